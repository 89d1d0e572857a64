using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Merging;
using LoKr.Core.Tests.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Factors and alphas in every type that files have, and what is wrong with them: one rule for LoKr, LoRA and LoHa.</summary>
public sealed class HostileFactorTests : IDisposable
{
    private const string Module = "layers.0.q_proj";

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly string _base;

    public HostileFactorTests() => _base = MergeFiles.Base(_folder["base"], new Dictionary<string, Tensor> { [Module + ".weight"] = zeros(8, 8), ["norm.weight"] = ones(8) });

    public static TheoryData<string> Kinds => ["LoKr", "LoRA", "LoHa"];

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData("F32")]
    [InlineData("F16")]
    [InlineData("BF16")]
    [InlineData("F8_E4M3")]
    [InlineData("F8_E5M2")]
    public void Factors_of_all_floating_types_are_merged(string type)
    {
        foreach (string kind in (string[])["LoKr", "LoRA", "LoHa"])
        {
            string path = Ones(kind, type, "F32", [], BitConverter.GetBytes(6f));
            Assert.Equal(3, AdapterInspector.Inspect(path).Scale);
            Assert.True(AdapterValidator.Check(path, new() { Values = true, BasePath = _base }).IsValid, kind);
            TensorAssert.Close(full(8, 8, Expected(kind) * 3), Merge(path), 0, $"{kind} {type}");
        }
    }

    public static TheoryData<string, long[], byte[]> Alphas => new()
    {
        { "F32", [1], BitConverter.GetBytes(6f) },
        { "F32", [1, 1], BitConverter.GetBytes(6f) },
        { "F64", [], BitConverter.GetBytes(6.0) },
        { "F16", [], BitConverter.GetBytes((Half)6) },
        { "I64", [], BitConverter.GetBytes(6L) },
        { "I32", [1], BitConverter.GetBytes(6) },
        { "U8", [], [6] },
    };

    [Theory]
    [MemberData(nameof(Alphas))]
    public void Alpha_is_one_number_of_any_type(string type, long[] shape, byte[] value)
    {
        foreach (string kind in (string[])["LoKr", "LoRA", "LoHa"])
        {
            string path = Ones(kind, "F32", type, shape, value);
            Assert.Equal(3, AdapterInspector.Inspect(path).Scale);
            TensorAssert.Close(full(8, 8, Expected(kind) * 3), Merge(path), 0, kind);
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Alphas_that_are_not_numbers_are_errors(string kind)
    {
        void Fails(string id, string type, long[] shape, byte[] value)
        {
            string path = Ones(kind, "F32", type, shape, value);
            ErrorAssert.Throws(id, () => Merge(path), Module);
            Assert.Equal(id, AdapterValidator.Check(path, new()).Findings[0].ErrorId);
        }

        Fails(ErrorIds.AdapterShapeMismatch, "F32", [2], new byte[8]);
        Fails(ErrorIds.TensorDTypeUnsupported, "BOOL", [], [1]);
        Fails(ErrorIds.TensorDTypeUnsupported, "F8_E4M3", [], [0x38]);
        Fails(ErrorIds.AlphaInvalid, "F32", [], BitConverter.GetBytes(0f));
        Fails(ErrorIds.AlphaInvalid, "F32", [], BitConverter.GetBytes(float.NaN));
        Fails(ErrorIds.AlphaInvalid, "F16", [], BitConverter.GetBytes(Half.PositiveInfinity));
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Numbers_that_are_not_finite_are_found_and_never_silent(string kind)
    {
        string path = Ones(kind, "F32", "F32", [], BitConverter.GetBytes(6f));
        byte[] bytes = File.ReadAllBytes(path);
        BitConverter.GetBytes(float.NaN).CopyTo(bytes, bytes.Length - 8);
        File.WriteAllBytes(path, bytes);
        LoKrAdapterFinding finding = Assert.Single(AdapterValidator.Check(path, new() { Values = true }).Findings, static finding => finding.Severity == LoKrFindingSeverity.Error);
        Assert.Equal(ErrorIds.AdapterValueInvalid, finding.ErrorId);
        CheckpointMergeOptions options = MergeFiles.Options(_base, _folder["out"], path) with { Force = true };
        Assert.Contains(MergeFiles.Run(options).Warnings, static warning => warning.Contains("NaN", StringComparison.Ordinal));
        ErrorAssert.Throws(ErrorIds.MergeNotFinite, () => MergeFiles.Run(options with { Safe = true }));
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Factors_of_the_transposed_shape_are_an_error_on_a_folder_and_on_a_file(string kind)
    {
        string path = Ones(kind, "F32", "F32", [], BitConverter.GetBytes(6f));
        Dictionary<string, Tensor> weights = new() { [Module + ".weight"] = zeros(4, 16), ["norm.weight"] = ones(8) };
        (string suffix, Tensor wide) = kind switch { "LoKr" => ("lokr_w1", ones(4, 1)), "LoRA" => ("lora_up.weight", ones(16, 2)), _ => ("", ones(1)) };
        Dictionary<string, Tensor> tensors = [];
        using (SafetensorsReader reader = SafetensorsReader.Open(path))
        {
            foreach (string name in reader.Entries.Keys)
            {
                tensors.Add(name, reader.Read(name));
            }
        }

        tensors[$"{Module}.{suffix}"] = wide;
        if (kind == "LoRA")
        {
            tensors[Module + ".lora_down.weight"] = ones(2, 4);
        }
        else if (kind == "LoHa")
        {
            tensors = tensors.Where(static pair => pair.Key.EndsWith("alpha", StringComparison.Ordinal)).ToDictionary();
            foreach (int number in (int[])[1, 2])
            {
                (tensors[$"{Module}.hada_w{number}_a"], tensors[$"{Module}.hada_w{number}_b"]) = (ones(16, 2), ones(2, 4));
            }
        }

        SafetensorsWriter.Write(path, tensors);
        SafetensorsWriter.Write(_folder["single.safetensors"], weights);
        foreach (string from in (string[])[MergeFiles.Base(_folder["wide"], weights), _folder["single.safetensors"]])
        {
            ErrorAssert.Throws(ErrorIds.AdapterShapeMismatch, () => MergeFiles.Run(MergeFiles.Options(from, _folder[File.Exists(from) ? "wide-out.safetensors" : "wide-out"], path)), "[16, 4]", "[4, 16]");
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void A_file_that_was_cut_anywhere_is_a_typed_error(string kind)
    {
        string path = Ones(kind, "F32", "F32", [], BitConverter.GetBytes(6f));
        byte[] bytes = File.ReadAllBytes(path);
        for (int length = 0; length < bytes.Length; length += 1 + (length / 8))
        {
            File.WriteAllBytes(path, bytes[..length]);
            Assert.Throws<LoKrException>(() => AdapterInspector.Inspect(path));
            Assert.Throws<LoKrException>(() => Merge(path));
            Assert.False(AdapterValidator.Check(path, new()).IsValid);
        }
    }

    // All ones: every element of the product without the scale.
    private static double Expected(string kind) => kind switch { "LoKr" => 2, "LoRA" => 2, _ => 4 };

    /// <summary>Writes a file whose factors of rank 2 are all ones, and its alpha, which comes first.</summary>
    private string Ones(string kind, string type, string alphaType, long[] alphaShape, byte[] alpha)
    {
        (string Suffix, long Rows, long Columns)[] factors = kind switch
        {
            "LoKr" => [("lokr_w1", 2, 2), ("lokr_w2_a", 4, 2), ("lokr_w2_b", 2, 4)],
            "LoRA" => [("lora_up.weight", 8, 2), ("lora_down.weight", 2, 8)],
            _ => [("hada_w1_a", 8, 2), ("hada_w1_b", 2, 8), ("hada_w2_a", 8, 2), ("hada_w2_b", 2, 8)],
        };
        byte[] one = type switch { "F32" => BitConverter.GetBytes(1f), "F16" => BitConverter.GetBytes((Half)1), "BF16" => [0x80, 0x3F], "F8_E4M3" => [0x38], _ => [0x3C] };
        SafetensorsBytes.Write(_folder["ones.safetensors"],
        [
            ($"{Module}.alpha", alphaType, alphaShape, alpha),
            .. factors.Select(factor => ($"{Module}.{factor.Suffix}", type, new[] { factor.Rows, factor.Columns }, (byte[])[.. Enumerable.Range(0, (int)(factor.Rows * factor.Columns)).SelectMany(_ => one)])),
        ]);
        return _folder["ones.safetensors"];
    }

    private Tensor Merge(string path)
    {
        MergeFiles.Run(MergeFiles.Options(_base, _folder["out"], path) with { Force = true });
        return MergeFiles.Read(_folder["out"])[Module + ".weight"];
    }
}
