using System.Buffers;
using System.Runtime.InteropServices;
using LoKr.Core.Factors;
using LoKr.Core.Gguf;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>A weight that is quantized in the base model, and changes or gets another type.</summary>
/// <param name="from">How it is stored in the base model.</param>
/// <param name="to">How it is stored in the result, with the scale of the base model.</param>
/// <param name="refit">The scale that it gets instead; null to keep that of the base model.</param>
/// <param name="loss">Measures what rounding leaves of the changes.</param>
internal sealed class WeightStorage(StoredWeight from, IWeightCodec to, RefitScale? refit, QuantizationLoss loss) : TargetStorage
{
    // Numbers that are merged at a time; with their values before and after they take three quarters of a MiB.
    private const int CachedValues = 1 << 16;

    /// <inheritdoc/>
    public override SafetensorsDType DType => to.DType;

    /// <inheritdoc/>
    public override IEnumerable<MergePiece> Pieces(MergeTarget target, long offset)
    {
        int size = SafetensorsDTypes.Size(to.DType);
        int length = checked((int)target.Shape.Skip(1).Product());
        MergeWork? work = target.Layers.Count + target.Dense.Count > 0 ? new(target) : null;
        return (work?.Runs ?? LayerDelta.Runs(target.Shape.Count == 0 ? 1 : target.Shape[0], 1, target.RowBytes))
            .Select(run => new QuantizedPiece(offset + (run.Start * length * size), checked((int)(run.Count * length * size)), target, this, run.Start * length, checked((int)run.Count * length), length, work));
    }

    /// <summary>Computes values and stores them.</summary>
    /// <param name="piece">Which ones.</param>
    /// <param name="values">Memory for them in float32.</param>
    /// <param name="result">Memory for their bytes.</param>
    /// <param name="check">Told of numbers that are NaN or infinite.</param>
    public void Fill(QuantizedPiece piece, Tensor values, Span<byte> result, FiniteCheck check)
    {
        IWeightCodec codec = refit?.Codec ?? to;
        if (piece.Target.IsUnchanged)
        {
            Span<float> same = MemoryMarshal.Cast<byte, float>(values.bytes);
            from.Read(piece.First, same);
            codec.Encode(same, piece.First, result);
            return;
        }

        // Rows that stay in the processor's cache from the first pass over them to the last.
        int row = Math.Max(1, piece.RowLength);
        int step = Math.Max(1, CachedValues / row) * row;
        int size = result.Length / Math.Max(1, piece.Length);
        float[] copies = ArrayPool<float>.Shared.Rent(2 * Math.Min(step, piece.Length));
        try
        {
            Span<float> all = MemoryMarshal.Cast<byte, float>(values.bytes);
            RoundingSums sums = default;
            (long beyond, long notFinite) = (0, 0);
            int stride = QuantizationLoss.Stride(piece.Target.Shape);
            for (int start = 0; start < piece.Length; start += step)
            {
                int count = Math.Min(step, piece.Length - start);
                Span<float> merged = all.Slice(start, count);
                Span<byte> stored = result.Slice(start * size, count * size);
                long first = piece.First + start;
                from.Read(first, merged);

                // Measured is the whole block, or every row whose number the stride divides.
                int unit = stride == 1 ? count : row;
                int skipped = stride == 1 ? 0 : (int)((stride - (first / row % stride)) % stride) * row;
                int At(int taken) => skipped + (taken * stride);
                Span<float> before = copies.AsSpan(0, count);
                Span<float> after = copies.AsSpan(count, unit);
                for (int taken = 0; At(taken) < count; taken += unit)
                {
                    merged.Slice(At(taken), unit).CopyTo(before[taken..]);
                }

                piece.Change(values, start, count);
                codec.Encode(merged, first, stored);
                RoundingSums part = default;
                for (int taken = 0; At(taken) < count; taken += unit)
                {
                    codec.Decode(stored.Slice(At(taken) * size, unit * size), first + At(taken), after);
                    part = part.Plus(RoundingSums.Of(before.Slice(taken, unit), merged.Slice(At(taken), unit), after));
                }

                // A number that is not finite shows in the sum of all.
                notFinite += stride == 1 && double.IsFinite(part.Delta) ? 0 : NonFinite.Count(MemoryMarshal.AsBytes(merged), SafetensorsDType.F32);
                beyond += codec.CountBeyond(merged, first, stored);
                sums = sums.Plus(part);
            }

            loss.Add(piece.Target.Name, codec.Format, sums.Times(stride) with { AtLimit = beyond });
            check.Note(piece.Target, piece.Target.Name, ScalarType.Float32, notFinite, () => CountBefore(piece));
        }
        finally
        {
            ArrayPool<float>.Shared.Return(copies);
        }
    }

    private long CountBefore(QuantizedPiece piece)
    {
        float[] before = new float[piece.Length];
        from.Read(piece.First, before);
        return NonFinite.Count(MemoryMarshal.AsBytes<float>(before), SafetensorsDType.F32);
    }
}

/// <summary>Rows of a quantized weight that are dequantized, changed and stored again.</summary>
/// <param name="Offset">Position in the file.</param>
/// <param name="Count">Number of bytes.</param>
/// <param name="Target">The weight.</param>
/// <param name="Storage">How it is stored.</param>
/// <param name="First">Index of the first value.</param>
/// <param name="Length">Number of values.</param>
/// <param name="RowLength">Values in a row.</param>
/// <param name="Work">The deltas that all pieces of the weight share; null where the type alone changes, or the weight is replaced.</param>
internal sealed record QuantizedPiece(long Offset, int Count, MergeTarget Target, WeightStorage Storage, long First, int Length, int RowLength, MergeWork? Work) : MergePiece(Offset, Count)
{
    /// <inheritdoc/>
    public override bool StartsTensor => First == 0;

    /// <inheritdoc/>
    public override ReadOnlySpan<byte> Fill(PieceBuffer buffer, FiniteCheck check)
    {
        // The bytes stay valid: they belong to the buffer.
        using Tensor values = buffer.Take(Length * sizeof(float), SafetensorsDType.F32);
        using Tensor result = buffer.Take(Count, SafetensorsDType.U8);
        Work?.Prepare(buffer.Products);
        Storage.Fill(this, values, result.bytes, check);
        return result.bytes;
    }

    /// <summary>Applies the changes to whole rows.</summary>
    /// <param name="values">Values of the base model from the first one of the piece on, flat, in float32.</param>
    /// <param name="start">Index of the first one to change.</param>
    /// <param name="count">How many.</param>
    public void Change(Tensor values, int start, int count)
    {
        if (Target.Replacement is { } replacement)
        {
            using Tensor rows = values.narrow(0, start, count);
            replacement.Adapter.Tensors.ReadRange(replacement.Key, First + start, rows);
        }
        else
        {
            Work?.Merge(values, start, count, First + start);
        }
    }

    /// <inheritdoc/>
    public override void Written() => Work?.Done();

    /// <inheritdoc/>
    public override void Release() => Work?.Dispose();
}

/// <summary>The scale that a weight of 8-bit floats gets from its largest merged values, computed when it is needed first.</summary>
internal sealed class RefitScale
{
    private readonly MergeTarget _values;
    private readonly Float8Weight _weight;
    private readonly Lazy<(Float8Codec Codec, byte[] Bytes)> _result;

    /// <summary>Prepares the scale; nothing is read yet.</summary>
    /// <param name="values">The weight as float32 with its changes.</param>
    /// <param name="weight">How it is stored; with a scale.</param>
    public RefitScale(MergeTarget values, Float8Weight weight)
    {
        (_values, _weight) = (values, weight);
        _result = new(Compute);
    }

    /// <summary>The type with the new scale.</summary>
    public Float8Codec Codec => _result.Value.Codec;

    /// <summary>The new scale as the file stores it.</summary>
    public byte[] Bytes => _result.Value.Bytes;

    private (Float8Codec Codec, byte[] Bytes) Compute()
    {
        WeightScale scale = _weight.Scale!;
        float[] largest = new float[scale.Values.Length];
        using ProductMemory products = new();
        using PieceBuffer buffer = new(products);
        MergePiece[] pieces = [.. new WeightStorage(_weight, _weight.Codec, null, new()).Pieces(_values, 0)];
        try
        {
            foreach (QuantizedPiece piece in pieces.Cast<QuantizedPiece>())
            {
                using Tensor values = buffer.Take(piece.Length * sizeof(float), SafetensorsDType.F32);
                Span<float> merged = MemoryMarshal.Cast<byte, float>(values.bytes);
                _weight.Read(piece.First, merged);
                piece.Work?.Prepare(products);
                piece.Change(values, 0, piece.Length);
                scale.Measure(merged, piece.First, largest);
            }
        }
        finally
        {
            Array.ForEach(pieces, static piece => piece.Release());
        }

        SafetensorsDType type = scale.Tensor!.Entry.DType;
        PlainCodec codec = new(type);
        byte[] bytes = new byte[largest.Length * SafetensorsDTypes.Size(type)];

        // A block of zeros keeps its scale, and so does one whose values are not finite. The codes belong to the scale as it is stored.
        codec.Encode([.. largest.Zip(scale.Values, (value, former) => value > 0 && float.IsFinite(value) ? value / _weight.Codec.Largest : former)], 0, bytes);
        float[] stored = new float[largest.Length];
        codec.Decode(bytes, 0, stored);
        return (_weight.Codec.With(scale with { Values = stored }), bytes);
    }
}

/// <summary>The scale of a weight that is fitted again.</summary>
/// <param name="type">Its element type.</param>
/// <param name="scale">The scale.</param>
internal sealed class ScaleStorage(SafetensorsDType type, RefitScale scale) : TargetStorage
{
    /// <inheritdoc/>
    public override SafetensorsDType DType => type;

    /// <inheritdoc/>
    public override IEnumerable<MergePiece> Pieces(MergeTarget target, long offset) => [new ScalePiece(offset, checked((int)target.Header.ByteCount), scale)];

    private sealed record ScalePiece(long Offset, int Count, RefitScale Scale) : MergePiece(Offset, Count)
    {
        public override bool StartsTensor => true;

        public override ReadOnlySpan<byte> Fill(PieceBuffer buffer, FiniteCheck check) => Scale.Bytes;
    }
}

/// <summary>Numbers as they are in a file: F32, F16 or BF16, rounded to nearest with ties to even.</summary>
/// <param name="type">The element type.</param>
internal sealed class PlainCodec(SafetensorsDType type) : IWeightCodec
{
    private readonly BlockFormat _format = BlockFormat.Of(type switch
    {
        SafetensorsDType.F32 => GgmlType.F32,
        SafetensorsDType.F16 => GgmlType.F16,
        SafetensorsDType.BF16 => GgmlType.BF16,
        _ => throw new ArgumentOutOfRangeException(nameof(type), type, "Not a floating-point type of 16 or 32 bits."),
    })!;

    /// <inheritdoc/>
    public SafetensorsDType DType => type;

    /// <inheritdoc/>
    public string Format => SafetensorsDTypes.Name(type);

    /// <inheritdoc/>
    public void Decode(ReadOnlySpan<byte> stored, long start, Span<float> values) => _format.Dequantize(stored, values);

    /// <inheritdoc/>
    public void Encode(ReadOnlySpan<float> values, long start, Span<byte> stored) => _format.Quantize!(values, stored);

    /// <inheritdoc/>
    public long CountBeyond(ReadOnlySpan<float> values, long start, ReadOnlySpan<byte> stored) => 0;
}
