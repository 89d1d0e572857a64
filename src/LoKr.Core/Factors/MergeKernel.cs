using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// Adds scale·(outer ⊗ inner) into float32 or bfloat16 rows in memory of the CPU, in place and in one pass: fma(scale·outer, inner, w) in
/// float32; bfloat16 is widened, and rounded once, to nearest with ties to even. Merges in memory and on disk run the same code, so that
/// both give the same bits. torch has no operation that adds float32 products into bfloat16 without a second copy of the weight.
/// float64 factors are added into float32 rows in float64, rounded once.
/// </summary>
internal sealed unsafe class MergeKernel : IDisposable
{
    /// <summary>Numbers that a thread takes at a time.</summary>
    private const long Chunk = 1L << 18;

    // The kernel reads the memory of these tensors; it must not outlive them.
    private readonly Tensor _outerTensor;
    private readonly Tensor _innerTensor;
    private readonly void* _outer;
    private readonly void* _inner;
    private readonly bool _isWide;
    private readonly long _group;
    private readonly long _columns;
    private readonly long _width;

    /// <summary>Prepares the factors. Row i of the product is outer[i / group] ⊗ inner[i mod group].</summary>
    /// <param name="outer">float32 or float64, rows×columns, on the CPU.</param>
    /// <param name="inner">Of the same type, group×width, on the CPU; further dimensions belong to the width.</param>
    /// <param name="scale">Scale of the product.</param>
    public MergeKernel(Tensor outer, Tensor inner, double scale)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        _outerTensor = (outer * scale).contiguous().DetachFromDisposeScope();
        _innerTensor = inner.reshape(inner.shape[0], -1).contiguous().alias().DetachFromDisposeScope();
        (_group, _columns, _width) = (_innerTensor.shape[0], _outerTensor.shape[1], _innerTensor.shape[1]);
        _isWide = outer.dtype == ScalarType.Float64;
        _outer = Address(_outerTensor);
        _inner = Address(_innerTensor);
    }

    private long RowLength => _columns * _width;

    /// <summary>Whether the kernel merges factors of a type into a weight of a type. It needs a processor that fuses multiplication and addition.</summary>
    public static bool Supports(ScalarType factors, ScalarType weight) =>
        factors == ScalarType.Float32 && weight is ScalarType.Float32 or ScalarType.BFloat16 && (Fma.IsSupported || AdvSimd.Arm64.IsSupported);

    /// <summary>Whether the kernel merges float64 factors into a weight of a type, rounding each sum once.</summary>
    public static bool SupportsWide(ScalarType factors, ScalarType weight) =>
        factors == ScalarType.Float64 && weight == ScalarType.Float32 && (Fma.IsSupported || AdvSimd.Arm64.IsSupported);

    /// <summary>Adds the product to a whole weight, on as many threads as torch uses.</summary>
    /// <param name="weight">float32 or bfloat16, contiguous, on the CPU.</param>
    public void AddTo(Tensor weight)
    {
        byte* numbers = (byte*)Address(weight);
        bool isNarrow = weight.dtype == ScalarType.BFloat16;
        long rowBytes = RowLength * weight.element_size();
        long rows = weight.numel() / RowLength;
        long step = Math.Max(1, Chunk / RowLength);
        ParallelOptions options = new() { MaxDegreeOfParallelism = get_num_threads() };
        Parallel.For(0, (rows + step - 1) / step, options, part =>
        {
            long first = part * step;
            Add(numbers + (first * rowBytes), isNarrow, first, Math.Min(step, rows - first));
        });
    }

    /// <summary>Adds the product to some rows, on the calling thread.</summary>
    /// <param name="rows">Bytes of whole rows.</param>
    /// <param name="type">Their type, float32 or bfloat16.</param>
    /// <param name="first">Number of the first row in the product.</param>
    public void AddTo(Span<byte> rows, SafetensorsDType type, long first)
    {
        fixed (byte* numbers = rows)
        {
            Add(numbers, type == SafetensorsDType.BF16, first, rows.Length / (RowLength * SafetensorsDTypes.Size(type)));
        }
    }

    /// <summary>Adds the product to some rows of bfloat16 on the calling thread, to the same bits, and measures what rounding leaves of it.</summary>
    /// <param name="rows">Bytes of whole rows.</param>
    /// <param name="first">Number of the first row in the product.</param>
    /// <param name="stride">One row of so many is measured, for all of them.</param>
    public RoundingSums AddMeasured(Span<byte> rows, long first, int stride = 1)
    {
        RoundingSums sums = default;
        fixed (byte* numbers = rows)
        {
            ushort* target = (ushort*)numbers;
            long end = first + (rows.Length / (RowLength * sizeof(ushort)));
            for (long row = first; row < end; row++, target += RowLength)
            {
                (long group, long inner) = Math.DivRem(row, _group);
                float* factors = (float*)_outer + (group * _columns);
                float* values = (float*)_inner + (inner * _width);
                if (row % stride == 0)
                {
                    sums = sums.Plus(AddRowMeasured(target, factors, _columns, values, _width));
                }
                else
                {
                    AddRow(target, factors, _columns, values, _width);
                }
            }
        }

        return stride == 1 ? sums : sums.Times(stride);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _outerTensor.Dispose();
        _innerTensor.Dispose();
    }

    /// <summary>The address of the first number of a tensor on the CPU, whatever its strides.</summary>
    internal static void* Address(Tensor tensor)
    {
        // A span counts with 32 bits; one element is enough for the address.
        using Tensor element = tensor.as_strided([1], [1], tensor.storage_offset());
        return Unsafe.AsPointer(ref MemoryMarshal.GetReference(element.bytes));
    }

    private void Add(byte* target, bool isNarrow, long first, long count)
    {
        for (long row = first; row < first + count; row++)
        {
            (long group, long inner) = Math.DivRem(row, _group);
            if (_isWide)
            {
                AddRow((float*)target, (double*)_outer + (group * _columns), _columns, (double*)_inner + (inner * _width), _width);
                target += RowLength * sizeof(float);
                continue;
            }

            float* factors = (float*)_outer + (group * _columns);
            float* values = (float*)_inner + (inner * _width);
            if (isNarrow)
            {
                AddRow((ushort*)target, factors, _columns, values, _width);
                target += RowLength * sizeof(ushort);
            }
            else
            {
                AddRow((float*)target, factors, _columns, values, _width);
                target += RowLength * sizeof(float);
            }
        }
    }

    private static void AddRow(float* target, float* factors, long columns, float* values, long width)
    {
        for (long column = 0; column < columns; column++, target += width)
        {
            float factor = factors[column];
            Vector256<float> broadcast = Vector256.Create(factor);
            long i = 0;
            for (; i <= width - Vector256<float>.Count; i += Vector256<float>.Count)
            {
                Vector256.FusedMultiplyAdd(broadcast, Vector256.Load(values + i), Vector256.Load(target + i)).Store(target + i);
            }

            for (; i < width; i++)
            {
                target[i] = MathF.FusedMultiplyAdd(factor, values[i], target[i]);
            }
        }
    }

    private static void AddRow(float* target, double* factors, long columns, double* values, long width)
    {
        for (long column = 0; column < columns; column++, target += width)
        {
            double factor = factors[column];
            Vector256<double> broadcast = Vector256.Create(factor);
            long i = 0;
            for (; i <= width - Vector256<float>.Count; i += Vector256<float>.Count)
            {
                (Vector256<double> low, Vector256<double> high) = Vector256.Widen(Vector256.Load(target + i));
                low = Vector256.FusedMultiplyAdd(broadcast, Vector256.Load(values + i), low);
                high = Vector256.FusedMultiplyAdd(broadcast, Vector256.Load(values + i + Vector256<double>.Count), high);
                Vector256.Narrow(low, high).Store(target + i);
            }

            for (; i < width; i++)
            {
                target[i] = (float)Math.FusedMultiplyAdd(factor, values[i], target[i]);
            }
        }
    }

    private static void AddRow(ushort* target, float* factors, long columns, float* values, long width)
    {
        for (long column = 0; column < columns; column++, target += width)
        {
            float factor = factors[column];
            long i = 0;
            if (Vector512.IsHardwareAccelerated)
            {
                Vector512<float> wide = Vector512.Create(factor);
                for (; i <= width - Vector512<ushort>.Count; i += Vector512<ushort>.Count)
                {
                    (Vector512<uint> low, Vector512<uint> high) = Vector512.Widen(Vector512.Load(target + i));
                    low = Round(Vector512.FusedMultiplyAdd(wide, Vector512.Load(values + i), (low << 16).AsSingle()));
                    high = Round(Vector512.FusedMultiplyAdd(wide, Vector512.Load(values + i + Vector512<float>.Count), (high << 16).AsSingle()));
                    Vector512.Narrow(low, high).Store(target + i);
                }
            }

            Vector256<float> broadcast = Vector256.Create(factor);
            for (; i <= width - Vector256<ushort>.Count; i += Vector256<ushort>.Count)
            {
                (Vector256<uint> low, Vector256<uint> high) = Vector256.Widen(Vector256.Load(target + i));
                low = Round(Vector256.FusedMultiplyAdd(broadcast, Vector256.Load(values + i), (low << 16).AsSingle()));
                high = Round(Vector256.FusedMultiplyAdd(broadcast, Vector256.Load(values + i + Vector256<float>.Count), (high << 16).AsSingle()));
                Vector256.Narrow(low, high).Store(target + i);
            }

            for (; i < width; i++)
            {
                target[i] = Round(MathF.FusedMultiplyAdd(factor, values[i], BitConverter.UInt32BitsToSingle((uint)target[i] << 16)));
            }
        }
    }

    private static RoundingSums AddRowMeasured(ushort* target, float* factors, long columns, float* values, long width)
    {
        WideSums wide = default;
        HalfSums half = default;
        RoundingSums rest = default;
        for (long column = 0; column < columns; column++, target += width)
        {
            float factor = factors[column];
            long i = 0;
            if (Vector512.IsHardwareAccelerated)
            {
                Vector512<float> all = Vector512.Create(factor);
                for (; i <= width - Vector512<ushort>.Count; i += Vector512<ushort>.Count)
                {
                    (Vector512<uint> low, Vector512<uint> high) = Vector512.Widen(Vector512.Load(target + i));
                    Vector512.Narrow(wide.Add(low, all, Vector512.Load(values + i)), wide.Add(high, all, Vector512.Load(values + i + Vector512<float>.Count))).Store(target + i);
                }
            }

            Vector256<float> broadcast = Vector256.Create(factor);
            for (; i <= width - Vector256<ushort>.Count; i += Vector256<ushort>.Count)
            {
                (Vector256<uint> low, Vector256<uint> high) = Vector256.Widen(Vector256.Load(target + i));
                Vector256.Narrow(half.Add(low, broadcast, Vector256.Load(values + i)), half.Add(high, broadcast, Vector256.Load(values + i + Vector256<float>.Count))).Store(target + i);
            }

            for (; i < width; i++)
            {
                ushort before = target[i];
                float start = BitConverter.UInt32BitsToSingle((uint)before << 16);
                float wanted = MathF.FusedMultiplyAdd(factor, values[i], start);
                target[i] = Round(wanted);
                float stored = BitConverter.UInt32BitsToSingle((uint)target[i] << 16);
                (double delta, double error) = ((double)wanted - start, (double)stored - wanted);
                rest = rest.Plus(new(delta * delta, ((double)stored - start) * delta, error * error, 0, target[i] == before ? 1 : 0));
            }
        }

        return rest.Plus(wide.Total).Plus(half.Total) with { Count = columns * width };
    }

    /// <summary>The sums of <see cref="RoundingSums"/> in the lanes of a vector.</summary>
    private struct WideSums
    {
        private Vector512<float> _deltas;
        private Vector512<float> _alongs;
        private Vector512<float> _errors;
        private long _unchanged;

        public readonly RoundingSums Total => new(Vector512.Sum(_deltas), Vector512.Sum(_alongs), Vector512.Sum(_errors), 0, _unchanged);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public Vector512<uint> Add(Vector512<uint> before, Vector512<float> factor, Vector512<float> values)
        {
            Vector512<float> start = (before << 16).AsSingle();
            Vector512<float> wanted = Vector512.FusedMultiplyAdd(factor, values, start);
            Vector512<uint> rounded = Round(wanted);
            Vector512<float> stored = (rounded << 16).AsSingle();
            (Vector512<float> delta, Vector512<float> error) = (wanted - start, stored - wanted);
            _deltas = Vector512.FusedMultiplyAdd(delta, delta, _deltas);
            _alongs = Vector512.FusedMultiplyAdd(stored - start, delta, _alongs);
            _errors = Vector512.FusedMultiplyAdd(error, error, _errors);
            _unchanged += BitOperations.PopCount(Vector512.Equals(rounded, before).ExtractMostSignificantBits());
            return rounded;
        }
    }

    /// <summary>The same in vectors of half the size.</summary>
    private struct HalfSums
    {
        private Vector256<float> _deltas;
        private Vector256<float> _alongs;
        private Vector256<float> _errors;
        private long _unchanged;

        public readonly RoundingSums Total => new(Vector256.Sum(_deltas), Vector256.Sum(_alongs), Vector256.Sum(_errors), 0, _unchanged);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public Vector256<uint> Add(Vector256<uint> before, Vector256<float> factor, Vector256<float> values)
        {
            Vector256<float> start = (before << 16).AsSingle();
            Vector256<float> wanted = Vector256.FusedMultiplyAdd(factor, values, start);
            Vector256<uint> rounded = Round(wanted);
            Vector256<float> stored = (rounded << 16).AsSingle();
            (Vector256<float> delta, Vector256<float> error) = (wanted - start, stored - wanted);
            _deltas = Vector256.FusedMultiplyAdd(delta, delta, _deltas);
            _alongs = Vector256.FusedMultiplyAdd(stored - start, delta, _alongs);
            _errors = Vector256.FusedMultiplyAdd(error, error, _errors);
            _unchanged += BitOperations.PopCount(Vector256.Equals(rounded, before).ExtractMostSignificantBits());
            return rounded;
        }
    }

    // Rounding adds half a unit of the last bit that stays, less one for an even number; NaN stays NaN.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<uint> Round(Vector512<float> value)
    {
        Vector512<uint> bits = value.AsUInt32();
        Vector512<uint> odd = (bits >>> 16) & Vector512<uint>.One;
        Vector512<uint> rounded = (bits + odd + Vector512.Create(0x7fffu)) >>> 16;
        return Vector512.ConditionalSelect(Vector512.Equals(value, value).AsUInt32(), rounded, Vector512.Create(0x7fc0u));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<uint> Round(Vector256<float> value)
    {
        Vector256<uint> bits = value.AsUInt32();
        Vector256<uint> odd = (bits >>> 16) & Vector256<uint>.One;
        Vector256<uint> rounded = (bits + odd + Vector256.Create(0x7fffu)) >>> 16;
        return Vector256.ConditionalSelect(Vector256.Equals(value, value).AsUInt32(), rounded, Vector256.Create(0x7fc0u));
    }

    private static ushort Round(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        return float.IsNaN(value) ? (ushort)0x7fc0 : (ushort)((bits + ((bits >> 16) & 1) + 0x7fff) >> 16);
    }
}
