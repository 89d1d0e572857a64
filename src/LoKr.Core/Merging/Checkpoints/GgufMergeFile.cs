using System.Buffers;
using System.Runtime.InteropServices;
using LoKr.Core.Factors;
using LoKr.Core.Gguf;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// One GGUF file of the result. Where no tensor changes its type it is the file of the base model with the bytes of the adapted rows
/// replaced: header, metadata, padding and all other tensors are copied as they are.
/// </summary>
/// <param name="FileName">Its name.</param>
/// <param name="Header">Its bytes up to the first tensor.</param>
/// <param name="Part">The file of the base model.</param>
/// <param name="Targets">Its tensors in their order.</param>
internal sealed record GgufMergeFile(string FileName, byte[] Header, GgufReader Part, IReadOnlyList<GgufTarget> Targets) : MergeFile(FileName, Header)
{
    /// <inheritdoc/>
    public override long ByteCount { get; } = Targets.Count == 0 ? Math.Max(Header.Length, Part.Length)
        : Targets[^1].Result.Offset + Targets[^1].Result.ByteCount + TailLength(Part, Targets, Targets.Count - 1);

    /// <inheritdoc/>
    public override IReadOnlyList<string> TensorNames => [.. Targets.Where(static target => target.Segments.Count > 0).Select(static target => target.Source.Name)];

    /// <inheritdoc/>
    public override IEnumerable<MergePiece> Pieces()
    {
        yield return new FixedPiece(0, Header);
        RawRun run = new(Part, 0, 0, 0);
        for (int i = 0; i < Targets.Count; i++)
        {
            GgufTarget target = Targets[i];
            long row = 0;
            foreach (GgufSegment segment in target.Segments)
            {
                foreach (MergePiece piece in run.Add(target, row, segment.Place.FirstRow - row, out run).Concat(run.Cut()))
                {
                    yield return piece;
                }

                run = run with { Length = 0 };
                foreach (MergePiece piece in segment.Pieces())
                {
                    yield return piece;
                }

                row = segment.Place.FirstRow + segment.Place.RowCount;
            }

            // Rows without a change, and the padding behind the tensor.
            foreach (MergePiece piece in run.Add(target, row, target.Source.RowCount - row, out run))
            {
                yield return piece;
            }

            long end = target.Result.Offset + target.Result.ByteCount;
            long tail = TailLength(Part, Targets, i);
            if (target.Result.Type == target.Source.Type)
            {
                foreach (MergePiece piece in run.Add(target.Source.Offset + target.Source.ByteCount, end, tail, out run))
                {
                    yield return piece;
                }
            }
            else if (tail > 0)
            {
                yield return new FixedPiece(end, new byte[tail]);
            }
        }

        foreach (MergePiece piece in run.Cut())
        {
            yield return piece;
        }
    }

    /// <summary>Bytes from the end of a tensor to the next one, or to the end of the file.</summary>
    private static long TailLength(GgufReader part, IReadOnlyList<GgufTarget> targets, int i)
    {
        GgufTarget target = targets[i];
        long end = target.Result.Offset + target.Result.ByteCount;
        return i + 1 < targets.Count ? targets[i + 1].Result.Offset - end
            : target.Result.Type == target.Source.Type ? part.Length - target.Source.Offset - target.Source.ByteCount
            : GgufHeader.Align(end, part.Header.Alignment) - end;
    }

    /// <summary>Bytes that are copied.</summary>
    private sealed record RawRun(GgufReader Part, long From, long To, long Length)
    {
        /// <summary>Appends rows that do not change.</summary>
        public IEnumerable<MergePiece> Add(GgufTarget target, long firstRow, long rows, out RawRun next) =>
            Add(target.Source.Offset + (firstRow * target.Source.RowBytes), target.Result.Offset + (firstRow * target.Source.RowBytes), rows * target.Source.RowBytes, out next);

        /// <summary>Appends bytes; what does not continue the run ends it.</summary>
        /// <returns>The pieces of a run that ended.</returns>
        public IEnumerable<MergePiece> Add(long from, long to, long length, out RawRun next)
        {
            if (length == 0)
            {
                next = this;
                return [];
            }

            if (From + Length == from && To + Length == to)
            {
                next = this with { Length = Length + length };
                return [];
            }

            next = new(Part, from, to, length);
            return Cut();
        }

        /// <summary>The run in pieces.</summary>
        public IEnumerable<MergePiece> Cut()
        {
            for (long start = 0; start < Length; start += LayerDelta.BlockBytes)
            {
                yield return new GgufCopyPiece(To + start, (int)Math.Min(LayerDelta.BlockBytes, Length - start), Part, From + start, start == 0);
            }
        }
    }
}

/// <summary>One tensor of a GGUF file of the result.</summary>
/// <param name="Source">The tensor of the base model.</param>
/// <param name="Result">The same tensor with its type and position in the result.</param>
/// <param name="Segments">Rows that are computed, in ascending order; the others are copied.</param>
internal sealed record GgufTarget(GgufTensor Source, GgufTensor Result, IReadOnlyList<GgufSegment> Segments);

/// <summary>Rows of a tensor that are one weight of transformers, and change or get another type.</summary>
/// <param name="Target">The weight with its changes.</param>
/// <param name="Place">Where it is in the base model.</param>
/// <param name="Result">The tensor in the result.</param>
/// <param name="Loss">Measures what rounding leaves of the changes.</param>
internal sealed record GgufSegment(MergeTarget Target, GgufPlace Place, GgufTensor Result, QuantizationLoss Loss)
{
    /// <summary>The rows in pieces.</summary>
    public IEnumerable<MergePiece> Pieces()
    {
        MergeWork? work = Target.Layers.Count + Target.Dense.Count > 0 ? new(Target) : null;
        long length = Place.Tensor.RowLength;
        IEnumerable<(long Start, long Count)> runs = Place.Tensor.Shape.Count == 1 ? [(0, 1)]
            : work?.Runs ?? LayerDelta.Runs(Place.RowCount, 1, length * sizeof(float), Target.RowUnit);
        return runs.Select(run => new GgufPiece(
            Result.Offset + ((Place.FirstRow + run.Start) * Result.RowBytes), checked((int)(run.Count * Result.RowBytes)), this, run.Start, checked((int)run.Count), work));
    }
}

/// <summary>Bytes that are copied from the base model.</summary>
/// <param name="Offset">Position in the file.</param>
/// <param name="Count">Number of bytes.</param>
/// <param name="Part">The file of the base model.</param>
/// <param name="From">Position in it.</param>
/// <param name="StartsTensor">Whether a run of tensors begins here.</param>
internal sealed record GgufCopyPiece(long Offset, int Count, GgufReader Part, long From, bool StartsTensor) : MergePiece(Offset, Count)
{
    /// <inheritdoc/>
    public override bool StartsTensor { get; } = StartsTensor;

    /// <inheritdoc/>
    public override ReadOnlySpan<byte> Fill(PieceBuffer buffer, FiniteCheck check)
    {
        using Tensor bytes = buffer.Take(Count, SafetensorsDType.U8);
        Part.ReadBytes(From, bytes.bytes);
        return bytes.bytes;
    }
}

/// <summary>Rows that are dequantized, changed and quantized again.</summary>
/// <param name="Offset">Position in the file.</param>
/// <param name="Count">Number of bytes.</param>
/// <param name="Segment">The weight.</param>
/// <param name="First">First row of the weight.</param>
/// <param name="Rows">Number of rows.</param>
/// <param name="Work">The deltas that all pieces of the weight share; null where the type alone changes, or the weight is replaced.</param>
internal sealed record GgufPiece(long Offset, int Count, GgufSegment Segment, long First, int Rows, MergeWork? Work) : MergePiece(Offset, Count)
{
    private MergeTarget Target => Segment.Target;

    private GgufPlace Place => Segment.Place;

    /// <inheritdoc/>
    public override bool StartsTensor => First == 0 && Place.FirstRow == 0;

    /// <inheritdoc/>
    public override ReadOnlySpan<byte> Fill(PieceBuffer buffer, FiniteCheck check)
    {
        int length = checked((int)Place.Tensor.RowLength);
        int rowBytes = checked((int)Place.Tensor.RowBytes);
        using Tensor values = buffer.Take(Rows * length * sizeof(float), SafetensorsDType.F32);
        using Tensor result = buffer.Take(Count, SafetensorsDType.U8);
        byte[] stored = ArrayPool<byte>.Shared.Rent(Rows * rowBytes);
        float[] rows = ArrayPool<float>.Shared.Rent(2 * length);
        try
        {
            Place.Part.ReadBytes(Place.Tensor.Offset + ((Place.FirstRow + First) * rowBytes), stored.AsSpan(0, Rows * rowBytes));
            Span<float> merged = MemoryMarshal.Cast<byte, float>(values.bytes);
            BlockFormat from = BlockFormat.Of(Place.Tensor.Type)!;
            for (int i = 0; i < Rows; i++)
            {
                from.Dequantize(stored.AsSpan(FileRow(i) * rowBytes, rowBytes), merged.Slice(i * length, length));
            }

            Change(values, merged, length);
            Store(stored, merged, result.bytes, new(rows.AsSpan(0, length), rows.AsSpan(length, length)), check);
            return result.bytes;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(stored);
            ArrayPool<float>.Shared.Return(rows);
        }
    }

    /// <inheritdoc/>
    public override void Written() => Work?.Done();

    /// <inheritdoc/>
    public override void Release() => Work?.Dispose();

    private int FileRow(int i) => (int)(Place.FileRow(First + i) - First);

    private void Change(Tensor values, Span<float> merged, int length)
    {
        if (Target.Replacement is { } replacement)
        {
            replacement.Adapter.Tensors.ReadRange(replacement.Key, First * length, values);
            if (Place.IsPlusOne)
            {
                foreach (ref float value in merged)
                {
                    value += 1;
                }
            }
        }
        else if (Work is not null)
        {
            Work.Prepare();
            Work.Merge(values, First * length * sizeof(float));
        }
    }

    private void Store(ReadOnlySpan<byte> stored, ReadOnlySpan<float> merged, Span<byte> result, RowBuffers rows, FiniteCheck check)
    {
        BlockFormat from = BlockFormat.Of(Place.Tensor.Type)!;
        BlockFormat to = BlockFormat.Of(Segment.Result.Type)!;
        int length = rows.Before.Length;
        int fromBytes = (int)Place.Tensor.RowBytes;
        int toBytes = (int)Segment.Result.RowBytes;
        QuantizationLoss.Sums sums = default;
        (long notFinite, long notFiniteBefore) = (0, 0);
        for (int i = 0; i < Rows; i++)
        {
            int row = FileRow(i);
            ReadOnlySpan<byte> old = stored.Slice(row * fromBytes, fromBytes);
            ReadOnlySpan<float> wanted = merged.Slice(i * length, length);
            Span<byte> bytes = result.Slice(row * toBytes, toBytes);
            from.Dequantize(old, rows.Before);
            to.Quantize!(wanted, bytes);
            if (from.Type == to.Type)
            {
                KeepUnchanged(from.Size, rows.Before, wanted, old, bytes);
            }

            to.Dequantize(bytes, rows.After);
            sums = sums.Plus(QuantizationLoss.Sums.Of(rows.Before, wanted, rows.After));
            notFinite += NonFinite.Count(MemoryMarshal.AsBytes<float>(rows.After), SafetensorsDType.F32);
            notFiniteBefore += NonFinite.Count(MemoryMarshal.AsBytes<float>(rows.Before), SafetensorsDType.F32);
        }

        if (Work is not null)
        {
            Segment.Loss.Add(Segment.Result.Name, Segment.Result.Type.ToString(), sums);
        }

        ScalarType type = to.Type == GgmlType.F16 ? ScalarType.Float16 : ScalarType.Float32;
        check.Note(Target, Segment.Result.Name, type, notFinite, () => notFiniteBefore);
    }

    // Quantizing what was dequantized gives other bytes for some types, so blocks without a change keep theirs.
    private static void KeepUnchanged(BlockSize size, ReadOnlySpan<float> before, ReadOnlySpan<float> wanted, ReadOnlySpan<byte> old, Span<byte> bytes)
    {
        if (size.Values == 1)
        {
            return;
        }

        for (int block = 0; block < before.Length / size.Values; block++)
        {
            if (before.Slice(block * size.Values, size.Values).SequenceEqual(wanted.Slice(block * size.Values, size.Values)))
            {
                old.Slice(block * size.Bytes, size.Bytes).CopyTo(bytes[(block * size.Bytes)..]);
            }
        }
    }

    /// <summary>A row as it was and as it is stored.</summary>
    private readonly ref struct RowBuffers(Span<float> before, Span<float> after)
    {
        public Span<float> Before { get; } = before;

        public Span<float> After { get; } = after;
    }
}
