using System.Globalization;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Loading;

/// <summary>
/// The files of a folder that transformers and sentence-transformers read, file by file and key by key: a folder that is exported or merged says what the
/// folder says that those programs wrote.
/// </summary>
public sealed class ExportFilesTests : IDisposable
{
    private const string Weights = "model.safetensors";
    private const string Main = "config_sentence_transformers.json";
    private const string Lengths = "sentence_bert_config.json";
    private const string Modules = "modules.json";

    // What is beside a model in the fixtures, and does not belong to it.
    private static readonly string[] s_references =
        ["io.safetensors", "case.json", "generate.json", "config-old.json", "config-inferred.json", "pairs.json", "tokenizer_cases.json", "adapters", "old"];

    // Keys that an export adds to config.json: those of the other generation of transformers, labels that a folder leaves to the default, and the
    // activation of a reranker, which older releases of sentence-transformers look for there.
    private static readonly string[] s_added =
    [
        "torch_dtype", "rope_theta", "rope_scaling", "rope_local_base_freq", "global_rope_theta", "local_rope_theta", "partial_rotary_factor", "sliding_window_pattern",
        "global_attn_every_n_layers", "id2label", "label2id", "sentence_transformers",
    ];

    private static readonly string[] s_ofHead = ["architectures", "id2label", "label2id", "problem_type", "sentence_transformers"];

    private readonly TempFolder _folder = new();

    public static TheoryData<string, string> Folders()
    {
        TheoryData<string, string> folders = [];
        foreach (string set in (string[])["transformers", "text", "embeddings"])
        {
            foreach (TheoryDataRow<string> name in Fixtures.Cases(set))
            {
                folders.Add(set, name.Data);
            }
        }

        return folders;
    }

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Folders))]
    public void A_merged_model_has_every_file_and_key_of_the_folder_that_it_comes_from(string set, string name)
    {
        string source = Fixtures.Require(set, name);
        using (LoKrModel model = ModelLoader.Load(source))
        {
            ModuleSelector targets = ModuleSelector.FromPattern("all-linear");
            LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 2, TargetModules = targets, InitWeights = InitWeights.Random }, seed: 1);
            AdapterExporter.Export(model, adapter.Name, _folder["adapter"], AdapterLayout.Peft);
            model.Merge();
            ModelExporter.Export(model, _folder["out"]);
        }

        Assert.Equal(
            FilesOf(source).Where(static file => file != "2_Normalize/config.json"), FilesOf(_folder["out"]));
        Compare(source, _folder["out"]);

        // A merge on disk copies what it does not change, and adds the keys of the other generation of transformers.
        using CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions
        {
            Base = BaseModel.Read(source), Destination = _folder["disk"], Adapters = [new AdapterMergeSource(_folder["adapter"])],
        });
        merge.Run(cancel: TestContext.Current.CancellationToken);
        Assert.All(FilesOf(source).Where(static file => file is not (Weights or "config.json")), file => AssertSameBytes(source, _folder["disk"], file));
        CompareKeys(Read(source, "config.json").AsObject(), Read(_folder["disk"], "config.json").AsObject());
        CompareWeights(source, _folder["disk"]);
    }

    [Theory]
    [MemberData(nameof(Embeddings))]
    public void A_folder_in_the_spelling_of_published_encoders_is_exported_in_it(string name)
    {
        string source = _folder["in"];
        string written = Fixtures.Require("embeddings", name);
        foreach (string file in Directory.EnumerateFiles(Path.Combine(written, "old"), "*", SearchOption.AllDirectories)
            .Concat(((string[])["config.json", "tokenizer.json", Weights]).Select(file => Path.Combine(written, file))))
        {
            string target = Path.Combine(source, Path.GetRelativePath(file.StartsWith(Path.Combine(written, "old"), StringComparison.Ordinal) ? Path.Combine(written, "old") : written, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }

        using (LoKrModel model = ModelLoader.Load(source))
        {
            ModelExporter.Export(model, _folder["out"]);
        }

        Assert.Equal(FilesOf(source), FilesOf(_folder["out"]));
        Compare(source, _folder["out"]);
        Assert.Equal(Read(source, Modules).ToJsonString(), Read(_folder["out"], Modules).ToJsonString());
        Assert.True(JsonNode.DeepEquals(Read(source, "1_Pooling", "config.json"), Read(_folder["out"], "1_Pooling", "config.json")));
    }

    public static TheoryData<string> Embeddings() => Fixtures.Cases("embeddings");

    /// <summary>A model that gets its head here says of it what transformers says of one that has it.</summary>
    [Theory]
    [InlineData("bert-multilabel", false)]
    [InlineData("bert-regression", false)]
    [InlineData("bert-reranker", false)]
    [InlineData("bert-tokens", false)]
    [InlineData("llama-cls", true)]
    [InlineData("qwen3-cls", true)]
    public void A_new_head_is_described_as_transformers_describes_it(string name, bool isDecoder)
    {
        JsonObject expected = Read(Fixtures.Require("text", name), "config.json").AsObject();
        string className = (string)expected["architectures"]![0]!;
        string[] labels = expected["id2label"] is JsonObject names ? [.. names.Select(static pair => (string)pair.Value!)] : ["LABEL_0", "LABEL_1"];
        string source = isDecoder ? TinyModel.WriteLlama(_folder["in"]) : TinyModel.WriteBert(_folder["in"]);
        if (isDecoder)
        {
            JsonObject config = Read(source, "config.json").AsObject();
            config["model_type"] = expected["model_type"]!.DeepClone();
            config["architectures"] = new JsonArray(className.Replace("ForSequenceClassification", "ForCausalLM", StringComparison.Ordinal));
            using TorchSharp.DisposeScope scope = TorchSharp.torch.NewDisposeScope();
            TinyModel.Write(source, config);
        }

        TaskType task = className.EndsWith("TokenClassification", StringComparison.Ordinal) ? TaskType.TokenClassification : TaskType.SequenceClassification;
        ModelLoadOptions options = new() { Labels = labels, Task = task, Seed = 1 };
        using (LoKrModel model = ModelLoader.Load(source, options))
        {
            model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromPattern("all-linear"), TaskType = task }, seed: 1);
            using ITrainingTask data = TrainingTaskFactory.Create(model, [RowFor(name, labels), RowFor(name, labels)], 24);
            Trainer.Run(model, data, null, new() { MaxSteps = 1, BatchSize = 2, LearningRate = 1e-2, Seed = 1 }, null, TestContext.Current.CancellationToken);
            AdapterExporter.Export(model, "default", _folder["adapter"], AdapterLayout.Peft);
            model.Merge();
            ModelExporter.Export(model, _folder["out"]);
        }

        JsonObject actual = Read(_folder["out"], "config.json").AsObject();
        Assert.Equal(className, (string?)Assert.Single(actual["architectures"]!.AsArray()));
        Assert.Equal(labels, actual["id2label"]!.AsObject().OrderBy(static pair => int.Parse(pair.Key, CultureInfo.InvariantCulture)).Select(static pair => (string)pair.Value!));
        Assert.Equal(labels.Index().Select(static label => (label.Item, label.Index)), actual["label2id"]!.AsObject().Select(static pair => (pair.Key, (int)pair.Value!)).OrderBy(static pair => pair.Item2));
        Assert.Equal((string?)expected["problem_type"], (string?)actual["problem_type"] is "single_label_classification" ? null : (string?)actual["problem_type"]);
        if (isDecoder)
        {
            Assert.Equal(257, (int?)actual["pad_token_id"]);
        }

        string reranker = Path.Combine(Fixtures.Require("text", name), Main);
        Assert.Equal(File.Exists(reranker) ? (string?)JsonNode.Parse(File.ReadAllText(reranker))!["activation_fn"] : null, (string?)actual["sentence_transformers"]?["activation_fn"]);

        // The adapter alone says the same, to a model that is loaded again and to a merge on disk.
        using (LoKrModel again = ModelLoader.Load(source, options with { Seed = 2 }))
        {
            Assert.All(AdapterImporter.Import(again, _folder["adapter"]).Values, static adapter => Assert.Empty(adapter.Warnings));
            again.Merge();
            ModelExporter.Export(again, _folder["again"]);
        }

        using (CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions { Base = BaseModel.Read(source), Destination = _folder["disk"], Adapters = [new AdapterMergeSource(_folder["adapter"])] }))
        {
            merge.Run(cancel: TestContext.Current.CancellationToken);
        }

        foreach (JsonObject other in ((string[])["again", "disk"]).Select(folder => Read(_folder[folder], "config.json").AsObject()))
        {
            Assert.All(s_ofHead, key => Assert.True(JsonNode.DeepEquals(actual[key], other[key]), $"{key}: {actual[key]}, {other[key]}"));
        }

        // Weights have the names that the class has in the fixture.
        using SafetensorsReader there = SafetensorsReader.Open(Fixtures.Require("text", name, Weights));
        using SafetensorsReader here = SafetensorsReader.Open(_folder["out", Weights]);
        Assert.Equal(there.Entries.Keys.Select(General).Distinct().Order(StringComparer.Ordinal), here.Entries.Keys.Select(General).Distinct().Order(StringComparer.Ordinal));

        static string General(string key) => string.Join('.', key.Split('.').Select(static part => part.All(char.IsAsciiDigit) ? "N" : part));
    }

    private static DataRow RowFor(string name, string[] labels)
    {
        (string Name, object Value)[] fields = name switch
        {
            "bert-multilabel" => [("text", "vpn slow"), ("label", new[] { labels[1], labels[3] })],
            "bert-regression" => [("text", "vpn slow"), ("label", 1.5)],
            "bert-reranker" => [("text", "vpn slow"), ("text_pair", "the wifi"), ("label", 1)],
            "bert-tokens" => [("tokens", new[] { "vpn", "slow" }), ("ner_tags", new[] { "O", labels[1] })],
            _ => [("text", "vpn slow"), ("label", labels[1])],
        };
        return new(fields.ToDictionary(static field => field.Name, static field => (object?)field.Value), "a row");
    }

    private static void Compare(string source, string export)
    {
        foreach (string file in FilesOf(export))
        {
            switch (file)
            {
                case Weights:
                    CompareWeights(source, export);
                    break;
                case "config.json":
                    CompareConfig(Read(source, file).AsObject(), Read(export, file).AsObject());
                    break;
                case Main or Lengths or Modules or "1_Pooling/config.json" when File.Exists(Path.Combine(source, "1_Pooling", "config.json")):
                    break;
                default:
                    AssertSameBytes(source, export, file);
                    break;
            }
        }

        if (File.Exists(Path.Combine(source, "1_Pooling", "config.json")))
        {
            CompareSentences(source, export);
        }
    }

    private static void CompareKeys(JsonObject source, JsonObject export)
    {
        Assert.All(source, pair => Assert.True(export.ContainsKey(pair.Key) && JsonNode.DeepEquals(pair.Value, export[pair.Key]), pair.Key));
        Assert.Empty(export.Select(static pair => pair.Key).Except(source.Select(static pair => pair.Key)).Except(s_added));
    }

    private static void CompareConfig(JsonObject source, JsonObject export)
    {
        CompareKeys(source, export);
        Assert.Equal((string?)(source["dtype"] ?? source["torch_dtype"]), (string?)export["torch_dtype"]);
    }

    private static void CompareWeights(string source, string export)
    {
        using SafetensorsReader before = SafetensorsReader.Open(Path.Combine(source, Weights));
        using SafetensorsReader after = SafetensorsReader.Open(Path.Combine(export, Weights));
        Assert.Equal(before.Metadata, after.Metadata);
        Assert.Equal(Described(before), Described(after));

        static IEnumerable<string> Described(SafetensorsReader file) =>
            file.Entries.OrderBy(static pair => pair.Key, StringComparer.Ordinal).Select(static pair => $"{pair.Key} {pair.Value.DType} [{string.Join(", ", pair.Value.Shape)}]");
    }

    // The files of sentence-transformers in either spelling, by what its releases read of them.
    private static void CompareSentences(string source, string export)
    {
        Assert.Equal(Steps(source), Steps(export));
        Assert.Equal(Pooling(source), Pooling(export));
        (JsonNode there, JsonNode here) = (Read(source, Main), Read(export, Main));
        Assert.Equal("SentenceTransformer", (string?)here["model_type"]);
        Assert.Equal((string?)there["similarity_fn_name"] ?? "cosine", (string?)here["similarity_fn_name"]);
        Assert.Equal((string?)there["default_prompt_name"], (string?)here["default_prompt_name"]);
        Assert.True(JsonNode.DeepEquals(there["prompts"] ?? new JsonObject(), here["prompts"]));

        // The length stands in the tokenizer's configuration where the file does not have it, and is at most that of the positions.
        JsonNode lengths = Read(source, Lengths);
        int longest = Math.Min((int?)lengths["max_seq_length"] ?? (int)Read(source, "tokenizer_config.json")["model_max_length"]!, (int)Read(source, "config.json")["max_position_embeddings"]!);
        Assert.Equal((longest, (bool?)lengths["do_lower_case"] ?? false), ((int)Read(export, Lengths)["max_seq_length"]!, (bool)Read(export, Lengths)["do_lower_case"]!));

        static IEnumerable<string> Steps(string folder) => Read(folder, Modules).AsArray().Select(static step => $"{step!["idx"]} {step["name"]} {step["path"]} {((string)step["type"]!).Split('.')[^1]}");

        static string Pooling(string folder)
        {
            JsonObject pooling = Read(folder, "1_Pooling", "config.json").AsObject();
            string[] modes = pooling["pooling_mode"] switch
            {
                JsonArray several => [.. several.Select(static mode => (string)mode!)],
                JsonValue one => [(string)one!],
                _ => [.. pooling.Where(static pair => pair.Key.StartsWith("pooling_mode_", StringComparison.Ordinal) && (bool)pair.Value!)
                    .Select(static pair => pair.Key["pooling_mode_".Length..] switch { "cls_token" => "cls", "max_tokens" => "max", "mean_tokens" => "mean", "weightedmean_tokens" => "weightedmean", var other => other })],
            };
            return $"{pooling["embedding_dimension"] ?? pooling["word_embedding_dimension"]} {string.Join(", ", modes)} {pooling["include_prompt"] ?? true}";
        }
    }

    private static void AssertSameBytes(string source, string export, string file) =>
        Assert.True(File.ReadAllBytes(Path.Combine(source, file)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(export, file))), file);

    private static string[] FilesOf(string folder) =>
    [
        .. Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Select(file => Path.GetRelativePath(folder, file).Replace('\\', '/'))
            .Where(static file => !s_references.Contains(file.Split('/')[0])).Order(StringComparer.Ordinal),
    ];

    private static JsonNode Read(string folder, params string[] parts) => JsonNode.Parse(File.ReadAllText(Path.Combine([folder, .. parts])))!;
}
