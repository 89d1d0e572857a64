using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Models.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>Checkpoints and adapters of both generations of module names, in every combination.</summary>
public sealed class PublishedNamesTests
{
    private static readonly ModelLoadOptions s_noTokenizer = new() { WithTokenizer = false };

    public static TheoryData<string, bool, bool> Combinations()
    {
        TheoryData<string, bool, bool> rows = [];
        foreach (string name in (string[])["vit", "clip-text"])
        {
            rows.Add(name, false, false);
            rows.Add(name, false, true);
            rows.Add(name, true, false);
            rows.Add(name, true, true);
        }

        return rows;
    }

    [Theory]
    [MemberData(nameof(Combinations))]
    public void Checkpoint_and_adapter_of_any_generation_give_the_same_outputs(string name, bool publishedModel, bool publishedAdapter)
    {
        string source = Fixtures.Require("transformers", name);
        string modelType = ModelConfig.Load(source).ModelType;
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        NameGenerations.Copy(source, folder["model"], modelType, publishedModel);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(source, "io.safetensors"));
        foreach (string adapterFolder in Directory.GetDirectories(Path.Combine(source, "adapters")))
        {
            string copy = folder["adapter-" + Path.GetFileName(adapterFolder)];
            NameGenerations.Copy(adapterFolder, copy, modelType, publishedAdapter, PeftAdapterFolder.Prefix);
            if (publishedAdapter && modelType == "vit")
            {
                RenameTargets(copy, ("q_proj", "query"), ("v_proj", "value"));
            }

            using LoKrModel model = ModelLoader.Load(folder["model"], s_noTokenizer);
            TensorAssert.Close(io.Read("base_output"), ReferenceInput.Run(model, io), TensorAssert.Model, name);
            LoKrAdapter adapter = PeftStart.Load(model, copy);
            using SafetensorsReader expected = SafetensorsReader.Open(Path.Combine(adapterFolder, "io.safetensors"));
            TensorAssert.Close(expected.Read("adapter_output"), ReferenceInput.Run(model, io), TensorAssert.Model, copy);

            // Whatever the file said, the adapter has the names of the module tree from here on, as transformers 5 saves them.
            JsonNode reference = JsonNode.Parse(File.ReadAllText(Path.Combine(adapterFolder, "case.json")))!;
            Assert.Equal(reference["layers"]!.AsArray().Select(layer => (string)layer!["name"]!), adapter.Layers.Select(layer => layer.ModuleName));
            Assert.Equal(
                reference["config"]!["target_modules"]!.AsArray().Select(item => (string)item!).Order(StringComparer.Ordinal),
                adapter.Config.TargetModules!.Names!.Order(StringComparer.Ordinal));
            Assert.Empty(adapter.Warnings);
        }
    }

    [Theory]
    [InlineData("vit", true)]
    [InlineData("vit", false)]
    [InlineData("clip-text", true)]
    [InlineData("clip-text", false)]
    public void Export_has_the_names_of_its_source(string name, bool published)
    {
        string source = Fixtures.Require("transformers", name);
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        NameGenerations.Copy(source, folder["in"], ModelConfig.Load(source).ModelType, published);
        using (LoKrModel model = ModelLoader.Load(folder["in"], s_noTokenizer))
        {
            ModelExporter.Export(model, folder["out"]);
        }

        using SafetensorsReader before = SafetensorsReader.Open(folder["in", "model.safetensors"]);
        using SafetensorsReader after = SafetensorsReader.Open(folder["out", "model.safetensors"]);
        Assert.Equal(before.Entries.Keys.Order(StringComparer.Ordinal), after.Entries.Keys.Order(StringComparer.Ordinal));
        Assert.All(before.Entries.Keys, key => Assert.True(TensorAssert.Same(before.Read(key), after.Read(key)), key));
    }

    [Fact]
    public void Names_of_a_fresh_adapter_may_be_published_ones_in_every_field()
    {
        using LoKrModel model = TinyVit();
        LoKrAdapter adapter = model.AddAdapter(
            new LoKrConfig
            {
                R = 2,
                TargetModules = ModuleSelector.FromNames(["query", "attention.output.dense", "output.dense"]),
                ExcludeModules = ModuleSelector.FromPattern(@".*encoder\.layer\.0\..*"),
                RankPattern = [new("attention.query", 1)],
                AlphaPattern = [new(@"encoder\.layer\.\d+\.output\.dense", 3)],
                ModulesToSave = ["classifier"],
            },
            seed: 1);
        Assert.Equal(["vit.layers.1.attention.q_proj", "vit.layers.1.attention.o_proj", "vit.layers.1.mlp.fc2"], adapter.Layers.Select(layer => layer.ModuleName));
        Assert.Equal([1, 2, 2], adapter.Layers.Select(layer => layer.R));
        Assert.Equal([8, 8, 3], adapter.Layers.Select(layer => layer.Alpha));
        Assert.Equal(["fc2", "o_proj", "q_proj"], adapter.Config.TargetModules!.Names!.Distinct().Order(StringComparer.Ordinal));
        Assert.Contains(adapter.Warnings, warning => warning.Contains("query is q_proj", StringComparison.Ordinal));
    }

    [Fact]
    public void Layers_to_transform_apply_to_published_names()
    {
        using LoKrModel model = TinyVit();
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig
        {
            TargetModules = ModuleSelector.FromNames(["query", "value"]),
            LayersToTransform = [1],
            LayersPattern = ["layer"],
        });
        Assert.Equal(["vit.layers.1.attention.q_proj", "vit.layers.1.attention.v_proj"], adapter.Layers.Select(layer => layer.ModuleName));
    }

    [Fact]
    public void Expression_over_published_names_means_their_modules()
    {
        using LoKrModel model = TinyVit();
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromPattern(@"vit\.encoder\.layer\.\d+\.intermediate\.dense") });
        Assert.Equal(["vit.layers.0.mlp.fc1", "vit.layers.1.mlp.fc1"], adapter.Layers.Select(layer => layer.ModuleName));
    }

    [Fact]
    public void Names_of_no_generation_stay_errors()
    {
        using LoKrModel model = TinyVit();
        ErrorAssert.Throws(ErrorIds.TargetModuleNotFound, () => model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames(["queri"]) }), "queri");

        using DisposeScope scope = NewDisposeScope();
        LoKrConfig config = new() { TargetModules = ModuleSelector.FromNames(["query"]) };
        Dictionary<string, Tensor> tensors = model.AddAdapter(config, "other").GetTensors()
            .ToDictionary(item => NameGenerations.ToPublished("vit", item.Key), item => item.Value.clone(), StringComparer.Ordinal);
        tensors["vit.encoder.layer.7.attention.attention.query.lokr_w1"] = zeros(2, 2);
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => model.LoadAdapter(config, tensors), "vit.layers.7.attention.q_proj.lokr_w1");
        tensors.Remove("vit.encoder.layer.7.attention.attention.query.lokr_w1");
        tensors["vit.layers.0.attention.q_proj.lokr_w1"] = zeros(2, 2);
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => model.LoadAdapter(config, tensors), "two names of one tensor");
    }

    [Fact]
    public void Checkpoint_that_holds_a_weight_under_both_names_is_refused()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        TinyModel.Write(folder.Path, TinyModel.VitConfig(), tensors =>
            tensors["vit.encoder.layer.0.intermediate.dense.bias"] = tensors["vit.layers.0.mlp.fc1.bias"].clone());
        ErrorAssert.Throws(ErrorIds.CheckpointKeysMismatch, () => ModelLoader.Load(folder.Path, s_noTokenizer), "same parameter");
    }

    [Theory]
    [InlineData("vit")]
    [InlineData("clip_text_model")]
    public void Every_name_has_a_published_one_and_comes_back(string modelType)
    {
        using nn.Module module = ModelLoader.Build(new ModelConfig(modelType == "vit" ? TinyModel.VitConfig() : TinyModel.ClipTextConfig()));
        IModuleAliases aliases = Assert.IsAssignableFrom<IModuleAliases>(module);
        string[] names = [.. module.named_parameters().Select(item => item.name)];
        Assert.All(names, name =>
        {
            Assert.Equal(NameGenerations.ToPublished(modelType, name), aliases.Published(name));
            Assert.Equal(name, aliases.Canonical(aliases.Published(name)));
            Assert.Equal(name, aliases.Canonical(name));
        });
        Assert.NotEqual(names, names.Select(aliases.Published));
    }

    private static LoKrModel TinyVit() => new(ModelLoader.Build(new ModelConfig(TinyModel.VitConfig()), new ModelBuildOptions { Device = CPU }));

    private static void RenameTargets(string adapterFolder, params (string From, string To)[] names)
    {
        string file = Path.Combine(adapterFolder, PeftAdapterFolder.ConfigFile);
        JsonObject config = JsonNode.Parse(File.ReadAllText(file))!.AsObject();
        config["target_modules"] = new JsonArray([.. config["target_modules"]!.AsArray().Select(item =>
            (JsonNode)(names.FirstOrDefault(pair => pair.From == (string)item!).To ?? throw new InvalidOperationException($"No older name of {item}.")))]);
        File.WriteAllText(file, config.ToJsonString());
    }
}
