using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>The share of a change that rounding to 16 bits leaves, against sums over whole tensors in float64.</summary>
public sealed class RoundingLossTests : IDisposable
{
    private const string Name = "model.layers.0.mlp.up_proj";
    private const long Rows = 96;
    private const long Columns = 160;

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly Tensor _w1;
    private readonly Tensor _w2;

    public RoundingLossTests()
    {
        manual_seed(5);
        (_w1, _w2) = (randn(4, 4), randn(Rows / 4, Columns / 4));
        SafetensorsWriter.Write(_folder["style.safetensors"], new Dictionary<string, Tensor> { [Name + ".lokr_w1"] = _w1, [Name + ".lokr_w2"] = _w2 });
    }

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData(0.1, 0.99, 1.01)]
    [InlineData(1e-3, 0.2, 0.9)]
    [InlineData(1e-5, 0, 0.1)]
    public void A_weight_in_bfloat16_keeps_as_much_of_a_change_as_its_steps_allow(double strength, double least, double most)
    {
        (LoKrMergedWeight weight, Tensor before, Tensor after, _) = Merge(ScalarType.BFloat16, strength);
        Tensor delta = kron(_w1, _w2).to(float64) * strength;
        Tensor error = after - before - delta;
        double norm = delta.norm().ToDouble();
        Assert.Equal("BF16", weight.Type);
        Assert.Equal(((after - before) * delta).sum().ToDouble() / (norm * norm), weight.Kept, 1e-3);
        Assert.Equal(error.norm().ToDouble() / norm, weight.ErrorOverDelta, weight.ErrorOverDelta * 1e-2);
        Assert.Equal(norm, weight.DeltaNorm, norm * 1e-2);
        Assert.Equal(after.eq(before).to(float64).mean().ToDouble(), weight.Unchanged, 1e-12);
        Assert.InRange(weight.Kept, least, most);
    }

    [Fact]
    public void A_weight_in_float16_is_measured_by_some_of_its_rows()
    {
        (LoKrMergedWeight weight, Tensor before, Tensor after, _) = Merge(ScalarType.Float16, 1e-3);
        Tensor delta = kron(_w1, _w2).to(float64) * 1e-3;
        double norm = delta.norm().ToDouble();
        Assert.Equal("F16", weight.Type);
        Assert.Equal(((after - before) * delta).sum().ToDouble() / (norm * norm), weight.Kept, 0.05);
        Assert.Equal(norm, weight.DeltaNorm, norm * 0.5);
    }

    [Fact]
    public void Of_a_large_weight_of_8_bit_floats_one_row_of_seven_is_measured_and_every_number_looked_at()
    {
        (int rows, int columns, int inner) = (2080, 2176, 520);
        Random random = new(3);
        byte[] codes = [.. Enumerable.Range(0, rows * columns).Select(_ => (byte)(random.Next(0x18, 0x50) | (random.Next(2) << 7)))];
        SafetensorsBytes.Write(_folder["large.safetensors"], [("double_blocks.0.img_attn.proj.weight", "F8_E4M3", (long[])[rows, columns], codes)]);

        // Row 4 of w2 makes rows of which none is measured: one sum is infinite, one beyond the largest float.
        Tensor w2 = randn(inner, columns / 4) * 0.3;
        w2[4, 5] = float.PositiveInfinity;
        w2[4, 6] = 2000;
        (LoKrMergedWeight weight, LoKrMergeResult result) = MergeLarge(w2);
        float[] before = Decode(codes);
        float[] after = Decode(File.ReadAllBytes(_folder["large-out.safetensors"]).AsSpan()[^codes.Length..]);
        float[] delta = kron(_w1, w2).data<float>().ToArray();
        (double change, double along, double error, long unchanged, long beyond) = (0, 0, 0, 0, 0);
        for (int i = 0; i < before.Length; i++)
        {
            beyond += MathF.Abs(before[i] + delta[i]) > 448 ? 1 : 0;
            if (i / columns % inner != 4)
            {
                change += (double)delta[i] * delta[i];
                along += ((double)after[i] - before[i]) * delta[i];
                error += Math.Pow((double)after[i] - before[i] - delta[i], 2);
                unchanged += after[i] == before[i] ? 1 : 0;
            }
        }

        Assert.Equal(along / change, weight.Kept, 0.01);
        Assert.Equal(Math.Sqrt(error / change), weight.ErrorOverDelta, 0.01);
        Assert.Equal(1, weight.DeltaNorm / Math.Sqrt(change), 0.01);
        Assert.Equal((double)unchanged / before.Length, weight.Unchanged, 0.01);
        Assert.Equal(beyond, weight.AtLimit);
        Assert.Contains(result.Warnings, static warning => warning.StartsWith("16 numbers of 'double_blocks.0.img_attn.proj.weight'", StringComparison.Ordinal));

        float[] Decode(ReadOnlySpan<byte> stored)
        {
            float[] values = new float[stored.Length];
            Float8.E4M3.Decode(stored, 1, values);
            return values;
        }
    }

    [Fact]
    public void A_warning_says_where_a_change_mostly_disappears()
    {
        Assert.DoesNotContain(Merge(ScalarType.BFloat16, 0.1).Result.Warnings, static warning => warning.Contains("keep less than", StringComparison.Ordinal));
        Assert.Contains(Merge(ScalarType.BFloat16, 1e-5).Result.Warnings, static warning => warning.Contains("keep less than", StringComparison.Ordinal) && warning.Contains("float32", StringComparison.Ordinal));
        LoKrMergeResult exact = Merge(ScalarType.Float32, 1e-5).Result;
        Assert.Empty(exact.Weights);
        Assert.DoesNotContain(exact.Warnings, static warning => warning.Contains("keep less than", StringComparison.Ordinal));
    }

    [Fact]
    public void Several_adapters_are_measured_together()
    {
        string from = Base(ScalarType.BFloat16);
        LoKrMergeResult result = MergeFiles.Run(MergeFiles.Options(from, _folder["both"], _folder["style.safetensors"], _folder["style.safetensors"]));
        LoKrMergedWeight weight = Assert.Single(result.Weights);
        Assert.InRange(weight.Kept, 0.99, 1.01);
    }

    private (LoKrMergedWeight Weight, LoKrMergeResult Result) MergeLarge(Tensor w2)
    {
        const string module = "transformer.transformer_blocks.0.attn.to_out.0";
        SafetensorsWriter.Write(_folder["large-style.safetensors"], new Dictionary<string, Tensor> { [module + ".lokr_w1"] = _w1, [module + ".lokr_w2"] = w2 });
        LoKrMergeResult result = MergeFiles.Run(new()
        {
            Base = CheckpointBase.Read(_folder["large.safetensors"]),
            Destination = _folder["large-out.safetensors"],
            Adapters = [new AdapterMergeSource(_folder["large-style.safetensors"])],
        });
        return (Assert.Single(result.Weights), result);
    }

    private string Base(ScalarType type) => MergeFiles.Base(_folder[type.ToString()], new Dictionary<string, Tensor> { [Name + ".weight"] = randn(Rows, Columns).to(type), ["model.norm.weight"] = ones(Columns).to(type) });

    private (LoKrMergedWeight Weight, Tensor Before, Tensor After, LoKrMergeResult Result) Merge(ScalarType type, double strength)
    {
        string from = Base(type);
        string to = _folder[$"out-{type}-{strength}"];
        LoKrMergeResult result = MergeFiles.Run(new() { Base = CheckpointBase.Read(from), Destination = to, Adapters = [new AdapterMergeSource(_folder["style.safetensors"], strength)], Force = true });
        return (result.Weights.SingleOrDefault()!, MergeFiles.Read(from)[Name + ".weight"].to(float64), MergeFiles.Read(to)[Name + ".weight"].to(float64), result);
    }
}
