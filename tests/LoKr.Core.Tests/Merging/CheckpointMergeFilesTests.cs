using System.Text;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>Files of a merge on disk: names, shards, interruptions and errors.</summary>
public sealed class CheckpointMergeFilesTests : IDisposable
{
    private const string Causal = """{"model_type": "test", "architectures": ["TestForCausalLM"]}""";
    private static readonly LoKrConfig s_config = new() { R = 2, TargetModules = ModuleSelector.FromNames(["proj"]), InitWeights = InitWeights.Random };

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData("model.layers.{0}.proj", "model.layers.{0}.proj")]
    [InlineData("layers.{0}.proj", "model.layers.{0}.proj")]
    [InlineData("model.layers.{0}.proj", "layers.{0}.proj")]
    [InlineData("text_model.layers.{0}.proj", "model.layers.{0}.proj")]
    [InlineData("model.language_model.layers.{0}.proj", "model.layers.{0}.proj")]
    public void Names_with_different_prefixes_match(string inCheckpoint, string inAdapter)
    {
        string from = Base(Weights(Named(inCheckpoint)));
        string adapter = Adapter(Named(inAdapter));
        LoKrMergeResult result = Run(from, adapter);
        Assert.Equal(3, result.ModuleCount);
        Dictionary<string, Tensor> merged = MergeFiles.Read(_folder["out"]);
        Dictionary<string, Tensor> before = MergeFiles.Read(from);
        Assert.Equal(before.Keys.Order(StringComparer.Ordinal), merged.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(Named(inCheckpoint).Select(static name => name + ".weight").Order(StringComparer.Ordinal), MergeFiles.Differences(before, merged));
    }

    [Fact]
    public void An_ambiguous_match_is_an_error()
    {
        string from = Base(Weights([.. Named("text_model.layers.{0}.proj"), .. Named("vision_model.layers.{0}.proj")]));
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => Run(from, Adapter(Named("layers.{0}.proj"))), "text_model.layers.0.proj.weight", "vision_model.layers.0.proj.weight");
        AssertNothingWritten();
    }

    [Fact]
    public void All_keys_without_a_match_are_listed()
    {
        string from = Base(Weights(["model.layers.0.proj", "model.layers.1.proj"]));
        string adapter = Adapter([.. Named("model.layers.{0}.proj"), "model.other.proj"]);
        LoKrException error = ErrorAssert.Throws(
            ErrorIds.AdapterKeysMismatch, () => Run(from, adapter),
            "model.layers.2.proj.lokr_w1", "model.layers.2.proj.lokr_w2_a", "model.layers.2.proj.lokr_w2_b", "model.other.proj.lokr_w1");
        Assert.DoesNotContain("layers.1.proj.lokr", error.Message, StringComparison.Ordinal);
        AssertNothingWritten();
    }

    [Fact]
    public void Factors_of_another_size_and_missing_factors_are_errors()
    {
        string from = Base(Weights(Named("m.{0}.proj")));
        Dictionary<string, Tensor> tensors = Factors(Named("m.{0}.proj"), 40, 24);
        tensors["m.0.proj.lokr_w1"] = zeros(3, 3);
        string adapter = Write(tensors);
        ErrorAssert.Throws(ErrorIds.AdapterShapeMismatch, () => Run(from, adapter), "m.0.proj.lokr_w1 is [3, 3]");
        tensors.Remove("m.1.proj.lokr_w2_b");
        PeftAdapterFolder.Write(adapter, s_config, tensors, force: true);
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => Run(from, adapter), "m.1.proj");
        AssertNothingWritten();
    }

    [Theory]
    [InlineData(Causal, false, true)]
    [InlineData("""{"model_type": "test", "architectures": ["TestForCausalLM"], "tie_word_embeddings": false}""", true, false)]
    [InlineData("""{"model_type": "test", "architectures": ["TestForCausalLM"], "tie_word_embeddings": true}""", true, true)]
    [InlineData("""{"model_type": "test", "architectures": ["TestForSequenceClassification"], "tie_word_embeddings": true}""", false, false)]
    public void A_tied_weight_is_not_merged_into(string config, bool storesHead, bool isTied)
    {
        Dictionary<string, Tensor> weights = Weights(["model.embed_tokens"]);
        if (storesHead)
        {
            weights.Add("lm_head.weight", weights["model.embed_tokens.weight"].clone());
        }

        string from = Base(weights, config: config);
        string adapter = Adapter(["model.embed_tokens"]);
        if (isTied)
        {
            ErrorAssert.Throws(ErrorIds.TiedWeight, () => Run(from, adapter), "model.embed_tokens");
            AssertNothingWritten();
        }
        else
        {
            Assert.Equal(1, Run(from, adapter).ModuleCount);
        }
    }

    [Fact]
    public void An_adapter_on_the_output_of_tied_embeddings_is_an_error_too()
    {
        string from = Base(Weights(["model.embed_tokens"]), config: Causal);
        ErrorAssert.Throws(ErrorIds.TiedWeight, () => Run(from, Adapter(["lm_head"])), "'lm_head' shares its weight with 'model.embed_tokens'");
    }

    [Fact]
    public void Saved_modules_replace_tensors_in_the_type_of_the_checkpoint()
    {
        Dictionary<string, Tensor> weights = Weights(["model.0.proj", "score"]).ToDictionary(static pair => pair.Key, static pair => pair.Value.to(bfloat16), StringComparer.Ordinal);
        string from = Base(weights);
        Tensor head = randn(40, 24);
        string adapter = Write(new(Factors(["model.0.proj"], 40, 24), StringComparer.Ordinal) { ["score.weight"] = head }, s_config with { ModulesToSave = ["score"] });
        LoKrMergeResult result = MergeFiles.Run(MergeFiles.Options(from, _folder["out"]) with { Adapters = [new AdapterMergeSource(adapter, 0.5)] });
        Assert.Equal((1, 1), (result.ModuleCount, result.SavedModuleCount));
        Assert.Contains(result.Warnings, static warning => warning.Contains("scales the deltas only", StringComparison.Ordinal));
        Assert.True(TensorAssert.Same(head.to(bfloat16), MergeFiles.Read(_folder["out"])["score.weight"]));
        string second = Write(new(Factors(["model.0.proj"], 40, 24), StringComparer.Ordinal) { ["score.weight"] = head }, s_config with { ModulesToSave = ["score"] }, "second");
        ErrorAssert.Throws(ErrorIds.SavedModuleConflict, () => MergeFiles.Run(MergeFiles.Options(from, _folder["other"], adapter, second)), "score.weight");
    }

    [Theory]
    [InlineData("pooler.dense", "pooler.dense.weight")]
    [InlineData("model.pooler.dense", "model.pooler.dense.weight")]
    [InlineData("model.9.mlp", null)]
    [InlineData("model.0", null)]
    [InlineData("model", null)]
    [InlineData("score", null)]
    public void A_module_of_which_the_checkpoint_has_no_tensor_is_added_and_a_part_of_another_is_refused(string module, string? added)
    {
        string from = Base(Weights(["model.0.proj", "score.inner"]));
        string adapter = Write(new(Factors(["model.0.proj"], 40, 24), StringComparer.Ordinal) { [module + ".weight"] = randn(40, 24) }, s_config with { ModulesToSave = [module] });
        if (added is null)
        {
            ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => Run(from, adapter), module + ".weight");
            return;
        }

        Assert.Equal((1, 1), Run(from, adapter) is var result ? (result.ModuleCount, result.SavedModuleCount) : default);
        Assert.Equal(new[] { "model.0.proj.weight", "score.inner.weight", added }.Order(StringComparer.Ordinal), MergeFiles.Read(_folder["out"]).Keys.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void A_new_module_is_refused_where_the_checkpoint_has_other_beginnings_than_the_adapter()
    {
        string from = Base(Weights(["bert.0.proj"]));
        string adapter = Write(new(Factors(["roberta.0.proj"], 40, 24), StringComparer.Ordinal) { ["roberta.pooler.dense.weight"] = randn(40, 24) }, s_config with { ModulesToSave = ["roberta.pooler.dense"] });
        ErrorAssert.Throws(ErrorIds.AdapterKeysMismatch, () => Run(from, adapter), "roberta.pooler.dense.weight");
    }

    [Theory]
    [InlineData("classifier.weight,pre_classifier.weight", 3)]
    [InlineData("classifier.dense.weight,classifier.out_proj.weight,pooler.dense.weight", 3)]
    [InlineData("classification_head.dense.weight,classification_head.out_proj.weight,pooler.dense.weight", 3)]
    [InlineData("pooler.dense.weight", null)]
    public void The_head_of_an_adapter_says_how_many_labels_there_are(string names, int? count)
    {
        string from = Base(Weights(["model.0.proj"]), config: """{"model_type": "test", "architectures": ["TestForSequenceClassification"]}""");
        Dictionary<string, Tensor> tensors = Factors(["model.0.proj"], 40, 24);
        foreach (string name in names.Split(','))
        {
            tensors.Add(name, randn(name is "classifier.weight" || name.Contains("out_proj", StringComparison.Ordinal) ? 3 : 24, 24));
        }

        string adapter = Write(tensors, s_config with { TaskType = TaskType.SequenceClassification, ModulesToSave = ["pooler.dense", "pre_classifier", "classification_head"] });
        Run(from, adapter);
        Assert.Equal(count, JsonNode.Parse(File.ReadAllText(_folder["out", "config.json"]))!["id2label"]?.AsObject().Count);
    }

    [Fact]
    public void Unchanged_tensors_and_file_names_are_preserved()
    {
        Dictionary<string, Tensor> weights = Weights(Named("m.{0}.proj"));
        weights.Add("ids", arange(7, ScalarType.Int64));
        weights.Add("mask", tensor(new[] { true, false, true }));
        weights.Add("empty", zeros(0, 4));
        weights.Add("norm", randn(24).to(float16));
        string from = Base(weights, maxShardBytes: 5000);
        File.WriteAllText(Path.Combine(from, "tokenizer.json"), "{}");
        File.WriteAllText(Path.Combine(from, "README.md"), "the base");
        File.WriteAllText(Path.Combine(from, "pytorch_model.bin"), "pickle");
        Directory.CreateDirectory(Path.Combine(from, "1_Pooling"));
        File.WriteAllText(Path.Combine(from, "1_Pooling", "config.json"), "{}");
        LoKrMergeResult result = Run(from, Adapter(["m.1.proj"]));
        Dictionary<string, byte[]> before = MergeFiles.Bytes(from);
        Dictionary<string, byte[]> after = MergeFiles.Bytes(_folder["out"]);
        Assert.Equal(before.Keys.Except(["README.md", "pytorch_model.bin"]).Order(StringComparer.Ordinal), after.Keys.Order(StringComparer.Ordinal));
        string changed = Assert.Single(after.Keys, key => !before[key].AsSpan().SequenceEqual(after[key]));
        Assert.EndsWith(".safetensors", changed, StringComparison.Ordinal);
        Assert.Equal(["m.1.proj.weight"], MergeFiles.Differences(MergeFiles.Read(from), MergeFiles.Read(_folder["out"])));
        Assert.Equal(after.Keys.Where(static key => key.EndsWith(".safetensors", StringComparison.Ordinal)).Order(StringComparer.Ordinal), result.Files);
        Assert.Equal(result.Files.Sum(file => new FileInfo(_folder["out", file]).Length), result.ByteCount);
        Assert.Equal(_folder["out"], result.Destination);
    }

    [Fact]
    public void The_size_of_files_does_not_change_the_tensors()
    {
        string from = Base(Weights(Named("m.{0}.proj")));
        string adapter = Adapter(Named("m.{0}.proj"));
        Run(from, adapter);
        LoKrMergeResult split = MergeFiles.Run(MergeFiles.Options(from, _folder["split"], adapter) with { MaxShardBytes = 5000 });
        Assert.Equal(["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"], split.Files);
        Assert.Empty(MergeFiles.Differences(MergeFiles.Read(_folder["out"]), MergeFiles.Read(_folder["split"])));
        LoKrMergeResult whole = MergeFiles.Run(MergeFiles.Options(_folder["split"], _folder["whole"], adapter) with { MaxShardBytes = long.MaxValue });
        Assert.Equal(["model.safetensors"], whole.Files);
        Assert.False(File.Exists(_folder["whole", "model.safetensors.index.json"]));
    }

    [Fact]
    public void A_component_of_diffusers_preserves_its_file_names()
    {
        string from = MergeFiles.Base(_folder["pipe", "unet"], Weights(["mid.proj"]), baseName: "diffusion_pytorch_model");
        File.WriteAllText(_folder["pipe", "model_index.json"], "{}");
        string adapter = Adapter(["mid.proj"]);
        Assert.Equal(["diffusion_pytorch_model.safetensors"], Run(from, adapter).Files);
    }

    [Fact]
    public void A_whole_pipeline_is_merged_into_and_copied()
    {
        MergeFiles.Base(_folder["pipe", "unet"], Weights(["mid.proj"]), baseName: "diffusion_pytorch_model");
        MergeFiles.Base(_folder["pipe", "vae"], Weights(["decoder.proj"]), baseName: "diffusion_pytorch_model");
        Directory.CreateDirectory(_folder["pipe", "scheduler"]);
        Directory.CreateDirectory(_folder["pipe", "checker"]);
        File.WriteAllText(_folder["pipe", "model_index.json"], "{}");
        File.WriteAllText(_folder["pipe", "scheduler", "scheduler_config.json"], "{}");
        File.WriteAllBytes(_folder["pipe", "checker", "pytorch_model.bin"], [1, 2, 3]);
        string adapter = Adapter(["mid.proj"]);
        LoKrMergeResult result = Run(_folder["pipe"], adapter);
        Assert.Equal([Path.Combine("unet", "diffusion_pytorch_model.safetensors"), Path.Combine("vae", "diffusion_pytorch_model.safetensors")], result.Files);
        MergeFiles.Run(MergeFiles.Options(_folder["pipe", "unet"], _folder["alone"], adapter));
        Dictionary<string, byte[]> before = MergeFiles.Bytes(_folder["pipe"]);
        Dictionary<string, byte[]> after = MergeFiles.Bytes(_folder["out"]);
        Assert.Equal(before.Keys.Order(StringComparer.Ordinal), after.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(MergeFiles.Bytes(_folder["alone"]).OrderBy(static pair => pair.Key), after.Where(static pair => pair.Key.StartsWith("unet", StringComparison.Ordinal)).Select(static pair => KeyValuePair.Create(pair.Key["unet/".Length..], pair.Value)).OrderBy(static pair => pair.Key));
        Assert.All(before.Where(static pair => !pair.Key.StartsWith("unet", StringComparison.Ordinal)), pair => Assert.Equal(pair.Value, after[pair.Key]));
    }

    [Fact]
    public void An_interrupted_merge_resumes_with_the_files_that_it_has_verified()
    {
        string from = Base(Weights([.. Enumerable.Range(0, 12).Select(static i => $"m.{i}.proj")]), maxShardBytes: 5000);
        string adapter = Adapter([.. Enumerable.Range(0, 12).Select(static i => $"m.{i}.proj")]);
        CheckpointMergeOptions options = MergeFiles.Options(from, _folder["out"], adapter);
        MergeFiles.Run(options with { Destination = _folder["reference"] });
        Dictionary<string, byte[]> expected = MergeFiles.Bytes(_folder["reference"]);
        string staged = _folder[".out.lokr-merge"];

        Interrupt(options, after: 6);
        AssertNothingWritten();
        string[] finished = [.. Directory.EnumerateFiles(staged, "*.safetensors").Order(StringComparer.Ordinal)];
        Assert.NotEmpty(finished);
        Assert.True(finished.Length < expected.Count);

        // A file with a flipped bit, a truncated one, and an unfinished one.
        byte[] bytes = File.ReadAllBytes(finished[0]);
        bytes[^1] ^= 1;
        File.WriteAllBytes(finished[0], bytes);
        File.WriteAllBytes(Path.Combine(staged, "model-00012-of-00012.safetensors"), new byte[100]);
        File.WriteAllBytes(Path.Combine(staged, "model-00011-of-00012.safetensors.partial"), new byte[100]);
        LoKrMergeResult result = MergeFiles.Run(options);
        Assert.Equal(finished.Length - 1, result.ResumedFileCount);
        AssertSame(expected, _folder["out"]);
        Assert.False(Directory.Exists(staged));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Path, ".*"));
    }

    [Fact]
    public void A_resumed_merge_reports_the_infinite_numbers_of_every_file()
    {
        string[] modules = [.. Enumerable.Range(0, 12).Select(static i => $"m.{i}.proj")];
        string from = Base(Weights(modules), maxShardBytes: 5000);
        Dictionary<string, Tensor> factors = Factors(modules, 40, 24);
        foreach (string module in modules)
        {
            factors[module + ".lokr_w1"][0, 0] = double.PositiveInfinity;
        }

        CheckpointMergeOptions options = MergeFiles.Options(from, _folder["out"], Write(factors));
        Interrupt(options, after: 6);
        LoKrMergeResult result = MergeFiles.Run(options);
        Assert.True(result.ResumedFileCount > 0);
        string[] reported = [.. result.Warnings.Where(static warning => warning.Contains("became NaN or infinity", StringComparison.Ordinal))];
        Assert.Equal(12, reported.Length);
        Assert.Equal(MergeFiles.Run(options with { Destination = _folder["reference"] }).Warnings, result.Warnings);
    }

    [Fact]
    public void An_interrupted_merge_with_other_options_is_not_resumed()
    {
        string from = Base(Weights([.. Enumerable.Range(0, 12).Select(static i => $"m.{i}.proj")]), maxShardBytes: 5000);
        string adapter = Adapter([.. Enumerable.Range(0, 12).Select(static i => $"m.{i}.proj")]);
        CheckpointMergeOptions options = MergeFiles.Options(from, _folder["out"], adapter);
        CheckpointMergeOptions half = options with { Adapters = [new AdapterMergeSource(adapter, 0.5)] };
        MergeFiles.Run(half with { Destination = _folder["reference"] });
        Interrupt(options, after: 6);
        Assert.Equal(0, MergeFiles.Run(half).ResumedFileCount);
        AssertSame(MergeFiles.Bytes(_folder["reference"]), _folder["out"]);
    }

    [Theory]
    [InlineData("{\"fingerprint\":\"\\udc00x\",\"files\":{}}")]
    [InlineData("{\"fingerprint\":1,\"files\":{\"\\ud800\":\"\"}}")]
    [InlineData("{\"fingerprint\":\"\u00ff\",\"files\":{}}")]
    [InlineData("{\"fingerprint\"")]
    [InlineData("[]")]
    public void An_interrupted_merge_with_a_damaged_journal_starts_from_the_beginning(string journal)
    {
        string[] modules = [.. Enumerable.Range(0, 12).Select(static i => $"m.{i}.proj")];
        string from = Base(Weights(modules), maxShardBytes: 5000);
        CheckpointMergeOptions options = MergeFiles.Options(from, _folder["out"], Adapter(modules));
        Interrupt(options, after: 6);
        File.WriteAllText(_folder[".out.lokr-merge", ".lokr-merge.json"], journal, Encoding.Latin1);
        Assert.Equal(0, MergeFiles.Run(options).ResumedFileCount);
        MergeFiles.Run(options with { Destination = _folder["reference"] });
        AssertSame(MergeFiles.Bytes(_folder["reference"]), _folder["out"]);
    }

    [Fact]
    public void A_base_that_another_one_replaces_during_the_merge_is_an_error()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Only Linux tells folders apart.");
        string from = Base(Weights(["m.proj"]));
        CheckpointMergeOptions options = MergeFiles.Options(from, _folder["out"], Adapter(["m.proj"]));
        using CheckpointMerge merge = CheckpointMerge.Open(options);
        Directory.Move(from, _folder["moved"]);
        Base(Weights(["m.proj"]));
        ErrorAssert.Throws(ErrorIds.FileNotReadable, () => merge.Run(cancel: TestContext.Current.CancellationToken), from);
        Assert.False(Directory.Exists(_folder["out"]));
    }

    [Fact]
    public void An_interrupted_merge_of_another_base_of_the_same_length_and_time_is_not_resumed()
    {
        string[] modules = [.. Enumerable.Range(0, 12).Select(static i => $"m.{i}.proj")];
        string from = Base(Weights(modules), maxShardBytes: 5000);
        string adapter = Adapter(modules);
        CheckpointMergeOptions options = MergeFiles.Options(from, _folder["out"], adapter);
        Dictionary<string, DateTime> times = Directory.EnumerateFiles(from).ToDictionary(static file => file, File.GetLastWriteTimeUtc, StringComparer.Ordinal);
        Interrupt(options, after: 6);
        Base(Weights(modules), maxShardBytes: 5000);
        Assert.All(times, static pair => File.SetLastWriteTimeUtc(pair.Key, pair.Value));
        Assert.Equal(0, MergeFiles.Run(options).ResumedFileCount);
        MergeFiles.Run(options with { Destination = _folder["reference"] });
        AssertSame(MergeFiles.Bytes(_folder["reference"]), _folder["out"]);
    }

    [Fact]
    public void An_existing_or_busy_destination_or_the_source_is_an_error()
    {
        string from = Base(Weights(["m.proj"]));
        string adapter = Adapter(["m.proj"]);
        Directory.CreateDirectory(_folder["out"]);
        File.WriteAllText(_folder["out", "mine.txt"], "mine");
        ErrorAssert.Throws(ErrorIds.DestinationExists, () => Run(from, adapter), "out");
        Assert.Equal("mine", File.ReadAllText(_folder["out", "mine.txt"]));
        ErrorAssert.Throws(ErrorIds.ExportIntoSource, () => MergeFiles.Run(MergeFiles.Options(from, from, adapter) with { Force = true }));
        ErrorAssert.Throws(ErrorIds.ExportIntoSource, () => MergeFiles.Run(MergeFiles.Options(from, Path.Combine(from, "in"), adapter)));
        ErrorAssert.Throws(ErrorIds.ExportIntoSource, () => MergeFiles.Run(MergeFiles.Options(from, adapter, adapter) with { Force = true }));
        using (new StagedDirectory(_folder["busy"], force: false))
        {
            ErrorAssert.Throws(ErrorIds.DestinationBusy, () => MergeFiles.Run(MergeFiles.Options(from, _folder["busy"], adapter)), "busy");
        }

        ErrorAssert.Throws(ErrorIds.DestinationForeign, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter) with { Force = true }), "out");
        File.WriteAllText(_folder["out", "config.json"], "{}");
        MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter) with { Force = true });
        Assert.False(File.Exists(_folder["out", "mine.txt"]));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Path, ".out*"));
    }

    [Fact]
    public void A_link_planted_as_working_folder_keeps_what_it_points_to()
    {
        string from = Base(Weights(["m.proj"]));
        string adapter = Adapter(["m.proj"]);
        Directory.CreateDirectory(_folder["victim"]);
        _folder.Write("victim/precious", "1");
        SymbolicLink.ToFolder(_folder[".out.lokr-merge"], _folder["victim"]);
        ErrorAssert.Throws(ErrorIds.FileNotWritable, () => Run(from, adapter), ".out.lokr-merge");
        Assert.Equal("1", File.ReadAllText(_folder["victim", "precious"]));
        AssertNothingWritten();
    }

    [Fact]
    public void A_commit_that_fails_keeps_the_finished_files_for_the_next_run()
    {
        string from = Base(Weights([.. Enumerable.Range(0, 4).Select(static i => $"m.{i}.proj")]), maxShardBytes: 5000);
        CheckpointMergeOptions options = MergeFiles.Options(from, _folder["out"], Adapter(["m.1.proj"]));
        using (CheckpointMerge merge = CheckpointMerge.Open(options))
        {
            void Appear(CheckpointMergeProgress progress)
            {
                Directory.CreateDirectory(_folder["out"]);
                File.WriteAllText(_folder["out", $"mine-{Environment.CurrentManagedThreadId}"], "1");
            }

            ErrorAssert.Throws(ErrorIds.DestinationExists, () => merge.Run(Appear), "out");
        }

        Directory.Delete(_folder["out"], recursive: true);
        LoKrMergeResult result = MergeFiles.Run(options);
        Assert.Equal(result.Files.Count, result.ResumedFileCount);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Path, ".*"));
    }

    [Fact]
    public void A_result_that_is_not_finite_is_refused_without_leftovers()
    {
        string from = Base(Weights(Named("m.{0}.proj")));
        Dictionary<string, Tensor> tensors = Factors(Named("m.{0}.proj"), 40, 24);
        tensors["m.1.proj.lokr_w1"].fill_(float.PositiveInfinity);
        string adapter = Write(tensors);
        ErrorAssert.Throws(ErrorIds.MergeNotFinite, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter) with { Safe = true }), "m.1.proj.weight");
        AssertNothingWritten();
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Path, ".*"));
    }

    [Fact]
    public void Damaged_and_invalid_inputs_are_errors_before_anything_is_written()
    {
        string from = Base(Weights(["m.proj"]));
        string adapter = Adapter(["m.proj"]);
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"])));
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter) with { MaxShardBytes = 0 }));
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => MergeFiles.Run(MergeFiles.Options(from, _folder["out"]) with { Adapters = [new AdapterMergeSource(adapter, double.NaN)] }));
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => Run(_folder["nowhere"], adapter));
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => Run(from, _folder["nowhere"]));
        string quantized = MergeFiles.Base(_folder["quantized"], new Dictionary<string, Tensor> { ["m.proj.weight"] = zeros([40, 24], ScalarType.Int8) });
        ErrorAssert.Throws(ErrorIds.TensorDTypeMismatch, () => Run(quantized, adapter), "m.proj.weight", "I8");
        File.WriteAllText(Path.Combine(from, "config.json"), "[1");
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => Run(from, adapter), "config.json");
        File.Delete(Path.Combine(from, "config.json"));
        using (FileStream stream = File.OpenWrite(Path.Combine(from, "model.safetensors")))
        {
            stream.SetLength(stream.Length - 1);
        }

        ErrorAssert.Throws(ErrorIds.SafetensorsTruncated, () => Run(from, adapter), "model.safetensors");
        AssertNothingWritten();
    }

    [Fact]
    public void Memory_does_not_grow_with_the_size_of_a_tensor()
    {
        // One tensor of 256 MiB, an eighth of which would show; torch's own memory is counted by its live tensors.
        string from = _folder["base"];
        Directory.CreateDirectory(from);
        using (Tensor large = ones([1 << 15, 1 << 12], ScalarType.BFloat16))
        {
            CheckpointWriter.Write(from, new Dictionary<string, Tensor> { ["m.proj.weight"] = large });
        }

        string adapter = Write(Factors(["m.proj"], 1 << 15, 1 << 12));
        long before = Environment.WorkingSet;
        long most = 0;
        MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter), progress => InterlockedMax(ref most, Environment.WorkingSet));
        Assert.True(most - before < 32L << 20, $"The working set grew by {(most - before) >> 20} MiB.");
    }

    private static void InterlockedMax(ref long target, long value)
    {
        long seen;
        while (value > (seen = Interlocked.Read(ref target)) && Interlocked.CompareExchange(ref target, value, seen) != seen)
        {
        }
    }

    private static string[] Named(string pattern) => [.. Enumerable.Range(0, 3).Select(i => string.Format(System.Globalization.CultureInfo.InvariantCulture, pattern, i))];

    private static Dictionary<string, Tensor> Weights(IEnumerable<string> modules) => modules.ToDictionary(static module => module + ".weight", static _ => randn(40, 24), StringComparer.Ordinal);

    private static Dictionary<string, Tensor> Factors(IEnumerable<string> modules, long rows, long columns) => modules
        .SelectMany(module => FactorShapes.Create(rows, columns, [], s_config.R, s_config).Tensors().Select(entry => (Name: $"{module}.{entry.Suffix}", entry.Shape)))
        .ToDictionary(static entry => entry.Name, static entry => randn(entry.Shape), StringComparer.Ordinal);

    private string Base(Dictionary<string, Tensor> tensors, long maxShardBytes = long.MaxValue, string? config = """{"model_type": "test"}""") =>
        MergeFiles.Base(_folder["base"], tensors, maxShardBytes, config: config);

    private string Adapter(string[] modules) => Write(Factors(modules, 40, 24), s_config with { TargetModules = ModuleSelector.FromNames(modules) });

    private string Write(Dictionary<string, Tensor> tensors, LoKrConfig? config = null, string name = "adapter")
    {
        PeftAdapterFolder.Write(_folder[name], config ?? s_config, tensors, force: true);
        return _folder[name];
    }

    private LoKrMergeResult Run(string from, string adapter) => MergeFiles.Run(MergeFiles.Options(from, _folder["out"], adapter));

    private void AssertNothingWritten() => Assert.False(Directory.Exists(_folder["out"]));

    // Canceled from within, when enough pieces are on their way; what is finished by then stays.
    private static void Interrupt(CheckpointMergeOptions options, int after)
    {
        using CancellationTokenSource cancel = new();
        using CheckpointMerge merge = CheckpointMerge.Open(options);
        int files = 0;
        Assert.ThrowsAny<OperationCanceledException>(() => merge.Run(
            progress =>
            {
                if (progress.Tensors >= after && Interlocked.Increment(ref files) == 1)
                {
                    cancel.Cancel();
                }
            },
            cancel.Token));
    }

    private static void AssertSame(Dictionary<string, byte[]> expected, string folder)
    {
        Dictionary<string, byte[]> actual = MergeFiles.Bytes(folder);
        Assert.Equal(expected.Keys.Order(StringComparer.Ordinal), actual.Keys.Order(StringComparer.Ordinal));
        Assert.All(expected, pair => Assert.True(pair.Value.AsSpan().SequenceEqual(actual[pair.Key]), pair.Key));
    }
}
