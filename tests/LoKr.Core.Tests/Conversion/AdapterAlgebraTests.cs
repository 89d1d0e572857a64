using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Conversion;

/// <summary>Extraction, resizing and sums of adapters against the fixtures.</summary>
public sealed class AdapterAlgebraTests
{
    public static TheoryData<string> Resized => Fixtures.Cases("algebra/resize");

    [Theory]
    [MemberData(nameof(Resized))]
    public void A_resized_adapter_is_as_near_as_the_reference(string name)
    {
        string folder = Fixtures.Require("algebra", "resize", name);
        using TempFolder output = new();
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "case.json")));
        string basePath = Base(output, document.RootElement.GetProperty("layers").EnumerateObject().ToDictionary(static layer => layer.Name, static layer => Longs(layer.Value.GetProperty("shape"))));
        int number = 0;
        foreach (JsonElement target in document.RootElement.GetProperty("targets").EnumerateArray())
        {
            JsonElement wanted = target.GetProperty("target");
            bool? tucker = wanted.TryGetProperty("form", out JsonElement form) ? form.GetString() == "tucker" : null;
            AdapterFitOptions fit = new()
            {
                R = wanted.TryGetProperty("r", out JsonElement rank) ? rank.GetInt32() : null,
                FullMatrix = rank.ValueKind == JsonValueKind.Undefined,
                DecomposeFactors = wanted.TryGetProperty("factor", out JsonElement factor) ? [factor.GetInt32()] : [],
                UseEffectiveConv2d = tucker,
            };
            string destination = output[$"{number++}"];
            LoKrFitResult result = AdapterSum.Write([new(folder)], destination, new() { Fit = fit, BasePath = basePath }, out _, cancellation: TestContext.Current.CancellationToken);
            Near(target.GetProperty("total_error").GetDouble(), result.Error, $"{wanted}");
            foreach (JsonProperty layer in target.GetProperty("layers").EnumerateObject())
            {
                LoKrLayerFit own = result.Layers.Single(entry => entry.ModuleName == layer.Name);
                Near(layer.Value.GetProperty("error").GetDouble(), own.Error, $"{wanted}, layer {layer.Name}");
                long[][] shapes = [.. layer.Value.GetProperty("shapes").EnumerateArray().Select(Longs)];
                Assert.Equal(string.Join('×', shapes[0]), own.W1);
                Assert.StartsWith(string.Join('×', shapes[1]), own.W2, StringComparison.Ordinal);
            }

            Written(destination, [(folder, 1.0)], result);
        }

        Assert.True(number > 0);
    }

    [Fact]
    public void A_sum_is_as_near_as_the_reference()
    {
        string folder = Fixtures.Require("algebra", "sums");
        using TempFolder output = new();
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "case.json")));
        int number = 0;
        foreach (JsonElement sum in document.RootElement.GetProperty("sums").EnumerateArray())
        {
            (string Path, double Weight)[] terms = [.. sum.GetProperty("weights").EnumerateObject().Select(weight => (Path.Combine(folder, weight.Name), weight.Value.GetDouble()))];
            AdapterFitOptions fit = new()
            {
                R = sum.GetProperty("r").ValueKind == JsonValueKind.Null ? null : sum.GetProperty("r").GetInt32(),
                FullMatrix = sum.GetProperty("r").ValueKind == JsonValueKind.Null,
                DecomposeFactors = [sum.GetProperty("factor").GetInt32()],
            };
            string destination = output[$"{number++}"];
            LoKrFitResult result = AdapterSum.Write([.. terms.Select(static term => new AdapterTerm(term.Path, term.Weight))], destination, new() { Fit = fit }, out _, cancellation: TestContext.Current.CancellationToken);
            Near(sum.GetProperty("total_error").GetDouble(), result.Error, sum.GetProperty("weights").ToString());
            foreach (JsonProperty layer in sum.GetProperty("layers").EnumerateObject())
            {
                LoKrLayerFit own = result.Layers.Single(entry => entry.ModuleName == layer.Name);
                TensorAssert.Close(layer.Value.GetProperty("norm").GetDouble(), own.Norm, 1e-6, "norm");
                Near(layer.Value.GetProperty("error").GetDouble(), own.Error, $"{sum.GetProperty("weights")}, layer {layer.Name}");
            }

            Written(destination, terms, result);
        }

        Assert.True(number > 0);
    }

    [Fact]
    public void Without_a_limit_a_sum_keeps_what_a_product_can_hold()
    {
        string folder = Fixtures.Require("algebra", "sums");
        using TempFolder output = new();
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "case.json")));
        JsonElement exact = document.RootElement.GetProperty("sums").EnumerateArray()
            .First(static sum => sum.GetProperty("weights").TryGetProperty("h", out _) && sum.GetProperty("r").ValueKind == JsonValueKind.Null);
        LoKrFitResult result = AdapterSum.Write([new(Path.Combine(folder, "a"), exact.GetProperty("weights").GetProperty("a").GetDouble()), new(Path.Combine(folder, "h"), exact.GetProperty("weights").GetProperty("h").GetDouble())],
            output["sum"], new(), out _, cancellation: TestContext.Current.CancellationToken);
        LoKrConfig a = PeftAdapterFolder.ReadConfig(Path.Combine(folder, "a"), out _);
        LoKrConfig h = PeftAdapterFolder.ReadConfig(Path.Combine(folder, "h"), out _);
        Assert.Equal(a.R + h.R, result.LargestRank);
        Assert.InRange(result.Error, 0, 1e-6);
    }

    [Fact]
    public void Factors_whose_shapes_stay_are_copied_and_brought_to_equal_norms_on_request()
    {
        string folder = Fixtures.Require("algebra", "sums", "a");
        using TempFolder output = new();
        using DisposeScope scope = NewDisposeScope();
        LoKrFitResult copied = AdapterSum.Write([new(folder)], output["copied"], new(), out _, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal(Tensors(folder).Count, Tensors(output["copied"]).Count);
        Assert.All(Tensors(folder), pair => Assert.True(pair.Value.Equals(Tensors(output["copied"])[pair.Key])));
        Assert.InRange(copied.Error, 0, 1e-6);
        LoKrFitResult balanced = AdapterSum.Write([new(folder)], output["balanced"], new() { Copies = false }, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.InRange(balanced.Error, 0, 1e-6);
        Assert.Equal(copied.ParameterCount, balanced.ParameterCount);
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "..", "case.json")));
        JsonElement scaling = document.RootElement.GetProperty("scaling");
        Dictionary<string, Tensor> tensors = Tensors(output["balanced"]);
        Tensor w1 = tensors[$"{PeftAdapterFolder.Prefix}{scaling.GetProperty("layer").GetString()}.lokr_w1"];
        LoKrConfig config = PeftAdapterFolder.ReadConfig(output["balanced"], out _);
        Assert.Equal(config.R, config.Alpha);
        TensorAssert.Close(scaling.GetProperty("balanced_norm").GetDouble(), w1.norm().ToDouble(), 1e-5, "norm of w1");
    }

    [Fact]
    public void A_narrow_type_is_part_of_the_error()
    {
        string folder = Fixtures.Require("algebra", "sums", "a");
        using TempFolder output = new();
        LoKrFitResult result = AdapterSum.Write([new(folder)], output["half"], new() { Fit = new() { DType = ScalarType.BFloat16 } }, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.InRange(result.Error, 1e-4, 1e-2);
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(output["half"], PeftAdapterFolder.WeightsFile));
        Assert.All(reader.Entries.Values, static entry => Assert.Equal(SafetensorsDType.BF16, entry.DType));
        Assert.Contains("\"error\"", reader.Metadata["lokr_fit"], StringComparison.Ordinal);
    }

    [Fact]
    public void An_adapter_is_extracted_from_a_pair_of_models()
    {
        string folder = Fixtures.Require("algebra", "model");
        using TempFolder output = new();
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "case.json")));
        int factor = document.RootElement.GetProperty("factor").GetInt32();
        int rank = document.RootElement.GetProperty("rank").GetInt32();
        foreach ((string suffix, int? given) in new[] { ("", (int?)null), ($"_rank{rank}", rank) })
        {
            AdapterExtractionOptions options = new()
            {
                BasePath = Path.Combine(folder, "base"),
                FineTunedPath = Path.Combine(folder, "tuned"),
                Destination = output["adapter" + suffix],
                Fit = new() { R = given, FullMatrix = given is null, DecomposeFactors = [factor] },
            };
            LoKrFitResult result = AdapterExtraction.Extract(options, out IReadOnlyList<string> warnings, cancellation: TestContext.Current.CancellationToken);
            Near(document.RootElement.GetProperty("total_error" + suffix).GetDouble(), result.Error, "all layers");
            int adapted = 0;
            foreach (JsonProperty tensor in document.RootElement.GetProperty("tensors").EnumerateObject())
            {
                LoKrLayerFit? layer = result.Layers.SingleOrDefault(entry => entry.ModuleName + ".weight" == tensor.Name);
                bool isAdapted = !tensor.Value.TryGetProperty("adapted", out JsonElement flag) || flag.GetBoolean();
                Assert.Equal(isAdapted, layer is not null);
                bool changed = tensor.Value.GetProperty("norm").GetDouble() > 0;
                Assert.Equal(!isAdapted && changed, result.LeftOut.Contains(tensor.Name));
                if (isAdapted)
                {
                    TensorAssert.Close(tensor.Value.GetProperty("norm").GetDouble(), layer!.Norm, 1e-6, tensor.Name);
                    Near(tensor.Value.GetProperty(suffix.Length == 0 ? "error" : $"error_rank{rank}_from_nearest").GetDouble(), layer.Error, tensor.Name);
                    adapted++;
                }
            }

            Assert.Equal(adapted, result.ModuleCount);
            Assert.Contains(warnings, static warning => warning.Contains("are not in the adapter", StringComparison.Ordinal));
            LoKrConfig config = PeftAdapterFolder.ReadConfig(options.Destination, out IReadOnlyList<string> notes);
            Assert.Empty(notes);
            Assert.Equal(factor, config.DecomposeFactor);
            Assert.False(config.ShapesFromFile);
        }
    }

    [Fact]
    public void Limits_are_kept()
    {
        string folder = Fixtures.Require("algebra", "model");
        using TempFolder output = new();
        AdapterExtractionOptions options = new() { BasePath = Path.Combine(folder, "base"), FineTunedPath = Path.Combine(folder, "tuned"), Destination = output["a"] };
        LoKrFitResult few = AdapterExtraction.Extract(options with { Fit = new() { MaxParameters = 1200, DecomposeFactors = [2, 4, 8] } }, out _, cancellation: TestContext.Current.CancellationToken);
        LoKrFitResult more = AdapterExtraction.Extract(options with { Destination = output["b"], Fit = new() { MaxParameters = 3000, DecomposeFactors = [2, 4, 8] } }, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.InRange(few.ParameterCount, 1, 1200);
        Assert.InRange(more.ParameterCount, few.ParameterCount + 1, 3000);
        Assert.True(more.Error < few.Error);
        LoKrFitResult near = AdapterExtraction.Extract(options with { Destination = output["c"], Fit = new() { MaxError = 0.3, DecomposeFactors = [2, 4, 8] } }, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.All(near.Layers, static layer => Assert.InRange(layer.Error, 0, 0.3));
        LoKrFitResult energy = AdapterExtraction.Extract(options with { Destination = output["d"], Fit = new() { Energy = 0.9, DecomposeFactors = [4] } }, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.All(energy.Layers, static layer => Assert.InRange(layer.Rank!.Value, 1, 4));
    }

    [Fact]
    public void What_cannot_be_done_is_said_and_writes_nothing()
    {
        string folder = Fixtures.Require("algebra", "model");
        using TempFolder output = new();
        AdapterExtractionOptions same = new() { BasePath = Path.Combine(folder, "base"), FineTunedPath = Path.Combine(folder, "base"), Destination = output["a"] };
        Assert.Equal(ErrorIds.NoModuleTargeted, Assert.Throws<LoKrException>(() => AdapterExtraction.Extract(same, out _, cancellation: TestContext.Current.CancellationToken)).ErrorId);
        AdapterExtractionOptions both = same with { Fit = new() { R = 4, Energy = 0.9 } };
        Assert.Equal(ErrorIds.InvalidArgument, Assert.Throws<LoKrException>(() => AdapterExtraction.Extract(both, out _, cancellation: TestContext.Current.CancellationToken)).ErrorId);
        Assert.Equal(ErrorIds.InvalidArgument, Assert.Throws<LoKrException>(() => AdapterSum.Write([], output["b"], new(), out _, cancellation: TestContext.Current.CancellationToken)).ErrorId);
        Assert.Empty(Directory.EnumerateFileSystemEntries(output.Path));
    }

    [Fact]
    public void Modules_to_save_are_kept_whole()
    {
        string folder = Fixtures.Require("algebra", "model");
        using TempFolder output = new();
        AdapterExtractionOptions options = new()
        {
            BasePath = Path.Combine(folder, "base"),
            FineTunedPath = Path.Combine(folder, "tuned"),
            Destination = output["a"],
            ModulesToSave = ["lm_head", "norm", "input_layernorm", "post_attention_layernorm"],
            Fit = new() { R = 4, DecomposeFactors = [4] },
        };
        LoKrFitResult result = AdapterExtraction.Extract(options, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.Empty(result.LeftOut);
        LoKrConfig config = PeftAdapterFolder.ReadConfig(options.Destination, out _);
        Assert.Contains("lm_head", config.ModulesToSave!);
    }

    [Fact]
    public void A_bare_base_model_is_compared_with_a_model_that_has_a_prefix_and_a_new_head()
    {
        using TempFolder output = new();
        using DisposeScope scope = NewDisposeScope();
        random.manual_seed(1);
        Tensor[] weights = [randn(8, 8), randn(8, 8), randn(8, 6)];
        Tensor delta = eye(4).kron(randn(2, 2));
        SafetensorsWriter.Write(output["base.safetensors"], new Dictionary<string, Tensor> { ["layer.0.query.weight"] = weights[0], ["layer.1.query.weight"] = weights[1], ["pooler.dense.weight"] = weights[2] });
        SafetensorsWriter.Write(output["tuned.safetensors"], new Dictionary<string, Tensor> { ["bert.layer.0.query.weight"] = weights[0] + delta, ["bert.layer.1.query.weight"] = weights[1], ["classifier.dense.weight"] = randn(8, 8), ["classifier.dense.bias"] = randn(8) });
        AdapterExtractionOptions options = new() { BasePath = output["base.safetensors"], FineTunedPath = output["tuned.safetensors"], Destination = output["a"], Fit = new() { FullMatrix = true, DecomposeFactors = [4] } };
        LoKrFitResult result = AdapterExtraction.Extract(options, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal(["bert.layer.0.query"], result.Layers.Select(static layer => layer.ModuleName));
        Assert.Equal(1, result.UnchangedCount);
        Assert.Equal(["classifier.dense.bias", "classifier.dense.weight", "pooler.dense.weight"], result.LeftOut);
        Assert.InRange(result.Error, 0, 1e-6);
        LoKrFitResult saved = AdapterExtraction.Extract(options with { Destination = output["b"], ModulesToSave = ["classifier"] }, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal(["pooler.dense.weight"], saved.LeftOut);
        Assert.Equal(["classifier"], PeftAdapterFolder.ReadConfig(output["b"], out _).ModulesToSave!);
    }

    [Fact]
    public void An_adapter_that_was_not_trained_is_resized_too()
    {
        using TempFolder output = new();
        using DisposeScope scope = NewDisposeScope();
        LoKrConfig config = new() { R = 4, Alpha = 4, DecomposeFactor = 4, TargetModules = Core.Configuration.ModuleSelector.FromNames(["query"]) };
        PeftAdapterFolder.Write(output["a"], config, new Dictionary<string, Tensor> { ["query.lokr_w1"] = zeros(4, 4), ["query.lokr_w2_a"] = randn(16, 4), ["query.lokr_w2_b"] = randn(4, 16) });
        LoKrFitResult result = AdapterSum.Write([new(output["a"])], output["b"], new() { Fit = new() { R = 2 } }, out _, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal((1, 2, 0.0, 0.0), (result.ModuleCount, result.LargestRank!.Value, result.Error, result.Norm));
    }

    [Fact]
    public void The_number_of_threads_changes_no_bit()
    {
        using TempFolder output = new();
        using DisposeScope scope = NewDisposeScope();
        random.manual_seed(2);
        Dictionary<string, Tensor> before = Enumerable.Range(0, 4).ToDictionary(static i => $"layers.{i}.query.weight", static i => randn(1088, 1024 + (64 * i)).to(bfloat16));
        SafetensorsWriter.Write(output["base.safetensors"], before);
        SafetensorsWriter.Write(output["tuned.safetensors"], before.ToDictionary(static pair => pair.Key, static pair => pair.Value + (randn_like(pair.Value) * 0.1)));
        int threads = get_num_threads();
        try
        {
            foreach (int count in new[] { 1, 3 })
            {
                set_num_threads(count);
                AdapterExtraction.Extract(
                    new() { BasePath = output["base.safetensors"], FineTunedPath = output["tuned.safetensors"], Destination = output[$"with{count}"], Fit = new() { R = 4, DecomposeFactors = [-1] } }, out _, cancellation: TestContext.Current.CancellationToken);
                Assert.Equal(count, get_num_threads());
            }
        }
        finally
        {
            set_num_threads(threads);
        }

        Assert.Equal(File.ReadAllBytes(output["with1", PeftAdapterFolder.WeightsFile]), File.ReadAllBytes(output["with3", PeftAdapterFolder.WeightsFile]));
    }

    [Fact]
    public void Of_several_weights_that_are_not_finite_the_first_is_named()
    {
        using TempFolder output = new();
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, Tensor> before = Enumerable.Range(0, 6).ToDictionary(static i => $"layers.{i}.query.weight", static _ => randn(8, 8));
        SafetensorsWriter.Write(output["base.safetensors"], before);
        SafetensorsWriter.Write(output["tuned.safetensors"], before.ToDictionary(static pair => pair.Key, static pair => pair.Key is "layers.2.query.weight" or "layers.3.query.weight" ? pair.Value * double.NaN : pair.Value + 1));
        AdapterExtractionOptions options = new() { BasePath = output["base.safetensors"], FineTunedPath = output["tuned.safetensors"], Destination = output["a"], Fit = new() { FullMatrix = true } };
        LoKrException error = Assert.Throws<LoKrException>(() => AdapterExtraction.Extract(options, out _, cancellation: TestContext.Current.CancellationToken));
        Assert.Equal((ErrorIds.WeightNotFinite, "layers.2.query.weight"), (error.ErrorId, error.Target));
        Assert.False(Directory.Exists(options.Destination));
    }

    /// <summary>The error that the command says is that of the file it wrote.</summary>
    private static void Written(string path, IReadOnlyList<(string Path, double Weight)> terms, LoKrFitResult result)
    {
        using DisposeScope scope = NewDisposeScope();
        LoKrAdapterComparison[] pairs = [.. terms.Select(term => AdapterComparer.Compare(AdapterReference.OfFile(term.Path), AdapterReference.OfFile(path), TestContext.Current.CancellationToken).Total)];
        if (pairs.Length == 1)
        {
            Assert.True(Math.Abs(pairs[0].RelativeDistance!.Value - result.Error) < 1e-6, $"{pairs[0].RelativeDistance} is the distance of the file, and {result.Error} was said");
        }
    }

    private static Dictionary<string, Tensor> Tensors(string folder)
    {
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder, PeftAdapterFolder.WeightsFile));
        return reader.Entries.Keys.ToDictionary(static name => name, name => reader.Read(name), StringComparer.Ordinal);
    }

    private static string Base(TempFolder output, IReadOnlyDictionary<string, long[]> shapes)
    {
        using DisposeScope scope = NewDisposeScope();
        string path = output["base.safetensors"];
        SafetensorsWriter.Write(path, shapes.ToDictionary(static shape => shape.Key + ".weight", static shape => zeros(shape.Value), StringComparer.Ordinal));
        return path;
    }

    private static long[] Longs(JsonElement array) => [.. array.EnumerateArray().Select(static size => size.GetInt64())];

    private static void Near(double expected, double actual, string what) =>
        Assert.True(actual <= (expected * (1 + 1e-4)) + 1e-6, $"{what}: error {actual}, the reference has {expected}");
}
