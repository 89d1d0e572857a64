using System.Text;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

/// <summary>No file that is written holds a path of this machine, whatever was read.</summary>
public sealed class PublishedPathTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Adapters_of_a_model_name_the_base()
    {
        using LoKrModel model = ModelLoader.Load(WriteBase(), new ModelLoadOptions { Labels = ["x", "y"] });
        model.AddAdapter(new LoKrConfig { ModulesToSave = [] }, seed: 1);
        foreach (AdapterLayout layout in Enum.GetValues<AdapterLayout>())
        {
            AdapterExporter.Export(model, "default", Out($"{layout}.safetensors"), layout, new() { Component = AdapterComponent.TextEncoder });
        }

        AdapterExporter.Export(model, "default", Out("folder"), AdapterLayout.Peft);
        using LoraAdapter lora = LoraConverter.Convert(model.GetAdapter("default"), LoraRank.OfSize(1), TestContext.Current.CancellationToken);
        PeftLoraFolder.Write(Out("lora"), lora);
        CheckWritten();
        Assert.Equal("base", PeftAdapterFolder.ReadConfig(Out("folder"), out _).BaseModelNameOrPath);
    }

    [Fact]
    public void Conversions_drop_the_paths_of_the_file_that_they_read()
    {
        using (LoKrModel model = ModelLoader.Load(WriteBase(), new ModelLoadOptions { Labels = ["x", "y"] }))
        {
            model.AddAdapter(new LoKrConfig { ModulesToSave = [], BaseModelNameOrPath = _folder["base"] }, seed: 1);
            AdapterExporter.Export(model, "default", _folder["plain.safetensors"], AdapterLayout.Bare);
        }

        string images = JsonEncode(_folder["images/train"]);
        using (SafetensorsReader plain = SafetensorsReader.Open(_folder["plain.safetensors"]))
        using (DisposeScope scope = NewDisposeScope())
        {
            SafetensorsWriter.Write(_folder["source.safetensors"], plain.Entries.Keys.ToDictionary(static name => name, name => plain.Read(name), StringComparer.Ordinal), new Dictionary<string, string>
            {
                ["ss_sd_model_name"] = _folder["my base/model.safetensors"],
                ["ss_datasets"] = $$"""[{"image_dir": {{images}}, "steps": 1}]""",
                ["ss_dataset_dirs"] = $$"""{ {{images}}: {"n_repeats": 10} }""",
                ["ss_training_comment"] = $"started with --output_dir={_folder["out/final"]}, see https://example.org/a/b",
                ["ss_learning_rate"] = "1e-4",
                ["lokr_ps"] = new JsonObject { ["layout"] = "Bare", ["configs"] = new JsonObject { ["Model"] = JsonNode.Parse(plain.Metadata["lokr_ps"])!["configs"]!["Model"]!.DeepClone() } }
                    .ToJsonString().Replace("\"base\"", JsonEncode(_folder["base"]), StringComparison.Ordinal),
            });
        }

        foreach (AdapterLayout layout in Enum.GetValues<AdapterLayout>())
        {
            AdapterConverter.Convert(_folder["source.safetensors"], Out($"{layout}.safetensors"), layout,
                new() { Read = new() { Component = AdapterComponent.TextEncoder } }, out _);
        }

        AdapterConverter.Convert(_folder["source.safetensors"], Out("folder"), AdapterLayout.Peft, new(), out _);
        AdapterLoraConverter.Convert(_folder["source.safetensors"], Out("lora"), LoraRank.OfSize(1), new(), new(), TestContext.Current.CancellationToken);
        CheckWritten();
        using SafetensorsReader written = SafetensorsReader.Open(Out("Kohya.safetensors"));
        Assert.Equal("model.safetensors", written.Metadata["ss_sd_model_name"]);
        Assert.Equal("""[{"image_dir": "train", "steps": 1}]""", written.Metadata["ss_datasets"]);
        Assert.Equal("started with --output_dir=final, see https://example.org/a/b", written.Metadata["ss_training_comment"]);
        Assert.Equal("1e-4", written.Metadata["ss_learning_rate"]);
    }

    [Fact]
    public void Models_in_memory_and_on_disk_drop_the_paths_of_their_source()
    {
        string source = WriteBase();
        using LoKrModel model = ModelLoader.Load(source, new ModelLoadOptions { Labels = ["x", "y"] });
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { InitWeights = InitWeights.Random }, seed: 1);
        AdapterExporter.Export(model, adapter.Name, _folder["adapter"], AdapterLayout.Peft);
        model.Merge();
        ModelFolder.Export(model, Out("memory"));
        using (CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions { Base = BaseModel.Read(source), Adapters = [new AdapterMergeSource(_folder["adapter"])], Destination = Out("disk") }))
        {
            merge.Run(cancel: TestContext.Current.CancellationToken);
        }

        CheckWritten();
        foreach (string written in new[] { "memory", "disk" })
        {
            Assert.Equal("original", (string?)JsonNode.Parse(File.ReadAllText(Path.Combine(Out(written), "config.json")))!["_name_or_path"]);
            JsonNode tokenizer = JsonNode.Parse(File.ReadAllText(Path.Combine(Out(written), "tokenizer_config.json")))!;
            Assert.Equal("original", (string?)tokenizer["name_or_path"]);
            Assert.Equal(32, (int?)tokenizer["model_max_length"]);
        }
    }

    [Fact]
    public void Pipelines_and_their_adapters_are_named()
    {
        string source = TinyPipeline.Write(_folder["sd"]);
        foreach (string file in new[] { "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json" })
        {
            JsonObject json = JsonNode.Parse(File.ReadAllText(Path.Combine(source, file)))!.AsObject();
            json["_name_or_path"] = _folder["original"];
            File.WriteAllText(Path.Combine(source, file), json.ToJsonString());
        }

        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(source);
        AdaptableExtensions.AddAdapter(pipeline, new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["q_proj", "to_q"]) });
        AdapterExporter.Export(pipeline, "default", Out("kohya.safetensors"), AdapterLayout.Kohya);
        AdapterExporter.Export(pipeline, "default", Out("diffusers.safetensors"), AdapterLayout.Diffusers);
        AdapterExporter.Export(pipeline, "default", Out("peft"), AdapterLayout.Peft);
        AdaptableExtensions.Merge(pipeline);
        ModelFolder.Export(pipeline, Out("merged"));
        CheckWritten();
        Assert.Equal("sd", PeftAdapterFolder.ReadConfig(Path.Combine(Out("peft"), "unet"), out _).BaseModelNameOrPath);
    }

    [Theory]
    [InlineData("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")]
    [InlineData("minilm", "minilm")]
    [InlineData("/home/me/models/minilm", "minilm")]
    [InlineData("/home/me/models/minilm/", "minilm")]
    [InlineData("./models/minilm", "minilm")]
    [InlineData("../minilm", "minilm")]
    [InlineData(@"C:\Users\me\minilm", "minilm")]
    [InlineData("D:/models/minilm", "minilm")]
    [InlineData(@"\\server\share\minilm", "minilm")]
    [InlineData("file:///srv/minilm", "minilm")]
    [InlineData("/root/.cache/huggingface/hub/models--BAAI--bge-small-en/snapshots/0123abc", "BAAI/bge-small-en")]
    [InlineData("https://huggingface.co/BAAI/bge-small-en", "https://huggingface.co/BAAI/bge-small-en")]
    [InlineData("/", null)]
    [InlineData("", "")]
    [InlineData(null, null)]
    public void A_hub_name_stays_and_a_path_becomes_a_name(string? given, string? expected) => Assert.Equal(expected, MachinePaths.NameOf(given));

    [Theory]
    [InlineData("lr 1/2, and/or https://a.b/c/d 3 w/h image/png", "lr 1/2, and/or https://a.b/c/d 3 w/h image/png")]
    [InlineData("""{"tag": "/m/", "frequency": {"a/b": 1}}""", """{"tag": "/m/", "frequency": {"a/b": 1}}""")]
    [InlineData(@"{""dir"": ""C:\\Users\\me\\train""}", @"{""dir"": ""train""}")]
    [InlineData("['/home/me/a b/c.png']", "['c.png']")]
    [InlineData("--data /home/me/train --out=~/runs/x", "--data train --out=x")]
    public void Paths_in_a_text_become_names_and_nothing_else_changes(string text, string expected) => Assert.Equal(expected, MachinePaths.Remove(text));

    private static string JsonEncode(string text) => JsonValue.Create(text).ToJsonString();

    private string Out(string name) => _folder[Path.Combine("written", name)];

    private string WriteBase()
    {
        string source = TinyModel.WriteBert(_folder["base"]);
        JsonObject config = JsonNode.Parse(File.ReadAllText(Path.Combine(source, "config.json")))!.AsObject();
        config["_name_or_path"] = _folder["original"];
        File.WriteAllText(Path.Combine(source, "config.json"), config.ToJsonString());
        JsonObject tokenizer = JsonNode.Parse(File.ReadAllText(Path.Combine(source, "tokenizer_config.json")))!.AsObject();
        tokenizer["name_or_path"] = _folder["original"];
        tokenizer["special_tokens_map_file"] = _folder["original/special_tokens_map.json"];
        File.WriteAllText(Path.Combine(source, "tokenizer_config.json"), tokenizer.ToJsonString());
        return source;
    }

    private void CheckWritten()
    {
        string[] files = Directory.GetFiles(_folder["written"], "*", SearchOption.AllDirectories);
        Assert.NotEmpty(files);
        byte[] path = Encoding.UTF8.GetBytes(Path.GetFileName(_folder.Path));
        Assert.All(files, file => Assert.True(File.ReadAllBytes(file).AsSpan().IndexOf(path) < 0, file));
    }
}
