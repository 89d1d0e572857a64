using LoKr.Core.Factors;
using LoKr.Core.Safetensors;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Factors;

/// <summary>The kernel bit for bit against scalar arithmetic, on a whole weight as in memory and on bytes of some rows as on disk.</summary>
public sealed class MergeKernelTests
{
    /// <summary>Type, rows of the outer factor, its columns, rows of the inner factor, its columns.</summary>
    public static TheoryData<ScalarType, int, int, int, int> Sizes
    {
        get
        {
            TheoryData<ScalarType, int, int, int, int> sizes = [];
            foreach (ScalarType type in (ScalarType[])[ScalarType.Float32, ScalarType.BFloat16])
            {
                foreach (int width in (int[])[1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64, 100])
                {
                    sizes.Add(type, 3, 5, 4, width);
                }

                sizes.Add(type, 1, 1, 1, 1);
                sizes.Add(type, 40, 33, 37, 29);
                sizes.Add(type, 2, 3, 1, 200_001);
            }

            return sizes;
        }
    }

    [Theory]
    [MemberData(nameof(Sizes))]
    public void Memory_disk_and_scalar_arithmetic_agree_bit_for_bit(ScalarType type, int outerRows, int columns, int innerRows, int width)
    {
        using DisposeScope scope = NewDisposeScope();
        Assert.SkipUnless(MergeKernel.Supports(ScalarType.Float32, type), "This processor does not fuse multiplication and addition.");
        manual_seed(outerRows + (31 * width));
        const double Scale = 0.3;
        Tensor outer = randn(outerRows, columns);
        Tensor inner = randn(innerRows, width);
        Tensor weight = randn(outerRows * innerRows, columns * width).to(type);
        Spoil(weight.view(-1));
        Spoil(inner.view(-1));
        byte[] expected = Reference(weight, outer, inner, (float)Scale);

        using MergeKernel kernel = new(outer, inner, Scale);
        byte[] onDisk = weight.bytes.ToArray();
        int rowBytes = onDisk.Length / (outerRows * innerRows);
        int rows = outerRows * innerRows;
        for (int row = 0; row < rows; row += 3)
        {
            kernel.AddTo(onDisk.AsSpan(row * rowBytes, Math.Min(3, rows - row) * rowBytes), type == ScalarType.Float32 ? SafetensorsDType.F32 : SafetensorsDType.BF16, row);
        }

        if (type == ScalarType.BFloat16)
        {
            byte[] measured = weight.bytes.ToArray();
            RoundingSums sums = kernel.AddMeasured(measured, 0);
            Assert.Equal(expected, measured);
            Assert.Equal(measured.Length / 2, sums.Count);
            byte[] sampled = weight.bytes.ToArray();
            RoundingSums sample = kernel.AddMeasured(sampled, 0, stride: 2);
            Assert.Equal(expected, sampled);
            Assert.Equal((rows + 1) / 2 * 2 * columns * width, sample.Count);
            Assert.Equal(Enumerable.Range(0, measured.Length / 2).Count(i => weight.bytes.Slice(2 * i, 2).SequenceEqual(measured.AsSpan(2 * i, 2))), sums.Unchanged);
        }

        kernel.AddTo(weight);
        Assert.Equal(expected, onDisk);
        Assert.Equal(expected, weight.bytes.ToArray());
    }

    [Fact]
    public void Bfloat16_ties_are_rounded_to_even()
    {
        using DisposeScope scope = NewDisposeScope();
        Assert.SkipUnless(MergeKernel.Supports(ScalarType.Float32, ScalarType.BFloat16), "This processor does not fuse multiplication and addition.");
        foreach (int width in (int[])[1, 16, 32, 50])
        {
            // 1 and its successor, each plus half a unit of the last bit: down to the even 1, up to the even 1 + 2/128.
            Tensor weight = tensor([1f, 1f + (1f / 128)]).unsqueeze(1).expand(2, width).to(ScalarType.BFloat16).contiguous();
            using MergeKernel kernel = new(ones(2, 1), full([1, width], 1f / 256), 1);
            kernel.AddTo(weight);
            Tensor expected = tensor([1f, 1f + (2f / 128)]).unsqueeze(1).expand(2, width);
            Assert.True(weight.to(ScalarType.Float32).equal(expected).all().ToBoolean(), $"width {width}");
        }
    }

    [Fact]
    public void Float32_equals_torch_bit_for_bit()
    {
        using DisposeScope scope = NewDisposeScope();
        Assert.SkipUnless(MergeKernel.Supports(ScalarType.Float32, ScalarType.Float32), "This processor does not fuse multiplication and addition.");
        manual_seed(11);
        (Tensor outer, Tensor inner, Tensor weight) = (randn(6, 7), randn(9, 40), randn(54, 280));
        Tensor expected = weight.clone();
        expected.view(6, 9, 7, 40).addcmul_(outer.view(6, 1, 7, 1), inner.view(1, 9, 1, 40), 0.3);
        using MergeKernel kernel = new(outer, inner, 0.3);
        kernel.AddTo(weight);
        Assert.True(weight.equal(expected).all().ToBoolean());
    }

    /// <summary>Puts in a NaN, infinities, the largest and the smallest numbers.</summary>
    private static void Spoil(Tensor flat)
    {
        float[] odd = [float.NaN, float.PositiveInfinity, float.NegativeInfinity, 3.38e38f, -3.38e38f, 1e-40f, -0f];
        for (int i = 0; i < odd.Length && flat.shape[0] > 40; i++)
        {
            flat[(i * 5) + 1] = tensor(odd[i]);
        }
    }

    private static byte[] Reference(Tensor weight, Tensor outer, Tensor inner, float scale)
    {
        float[] w1 = outer.data<float>().ToArray();
        float[] w2 = inner.data<float>().ToArray();
        float[] sums = weight.to(ScalarType.Float32).data<float>().ToArray();
        (int columns, int rows, int width) = ((int)outer.shape[1], (int)inner.shape[0], (int)inner.shape[1]);
        for (int i = 0; i < sums.Length; i++)
        {
            int row = i / (columns * width);
            int column = i % (columns * width);
            float factor = scale * w1[((row / rows) * columns) + (column / width)];
            sums[i] = MathF.FusedMultiplyAdd(factor, w2[((row % rows) * width) + (column % width)], sums[i]);
        }

        return weight.dtype == ScalarType.Float32
            ? [.. sums.SelectMany(BitConverter.GetBytes)]
            : [.. sums.Select(ToBFloat16).SelectMany(BitConverter.GetBytes)];
    }

    private static ushort ToBFloat16(float value)
    {
        if (float.IsNaN(value))
        {
            return 0x7fc0;
        }

        uint bits = BitConverter.SingleToUInt32Bits(value);
        (uint kept, uint rest) = (bits >> 16, bits & 0xffff);
        return (ushort)(rest > 0x8000 || (rest == 0x8000 && (kept & 1) == 1) ? kept + 1 : kept);
    }
}
