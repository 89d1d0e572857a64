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
    // Values that are merged at a time, so that they stay in the processor's cache from the first pass over them to the last.
    private const int CachedValues = 1 << 15;

    private MergeTarget Target => Segment.Target;

    private GgufPlace Place => Segment.Place;

    /// <inheritdoc/>
    public override bool StartsTensor => First == 0 && Place.FirstRow == 0;

    /// <inheritdoc/>
    public override ReadOnlySpan<byte> Fill(PieceBuffer buffer, FiniteCheck check)
    {
        int length = checked((int)Place.Tensor.RowLength);
        int rowBytes = checked((int)Place.Tensor.RowBytes);
        int step = Math.Clamp(CachedValues / length, 1, Rows);
        using Tensor values = buffer.Take(step * length * sizeof(float), SafetensorsDType.F32);
        using Tensor result = buffer.Take(Count, SafetensorsDType.U8);
        byte[] stored = ArrayPool<byte>.Shared.Rent(Rows * rowBytes);
        float[] copies = ArrayPool<float>.Shared.Rent((step + 1) * length);
        try
        {
            Work?.Prepare(buffer.Products);
            Place.Part.ReadBytes(Place.Tensor.Offset + ((Place.FirstRow + First) * rowBytes), stored.AsSpan(0, Rows * rowBytes));
            Span<float> merged = MemoryMarshal.Cast<byte, float>(values.bytes);
            Span<byte> bytes = result.bytes;
            BlockFormat from = BlockFormat.Of(Place.Tensor.Type)!;
            Tally tally = default;
            for (int row = 0; row < Rows; row += step)
            {
                int count = Math.Min(step, Rows - row);
                Span<float> before = copies.AsSpan(0, count * length);
                for (int i = 0; i < count; i++)
                {
                    from.Dequantize(stored.AsSpan(FileRow(row + i) * rowBytes, rowBytes), before.Slice(i * length, length));
                }

                before.CopyTo(merged);
                Change(values, row, count);
                tally = tally.Plus(Store(stored, row, new(before, merged[..before.Length], copies.AsSpan(step * length, length)), bytes));
            }

            Note(tally, check);
            return bytes;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(stored);
            ArrayPool<float>.Shared.Return(copies);
        }
    }

    /// <inheritdoc/>
    public override void Written() => Work?.Done();

    /// <inheritdoc/>
    public override void Release() => Work?.Dispose();

    private int FileRow(int i) => (int)(Place.FileRow(First + i) - First);

    /// <summary>Applies the changes to rows.</summary>
    /// <param name="values">Memory that begins with the rows.</param>
    /// <param name="row">First one in the piece.</param>
    /// <param name="count">Number of rows.</param>
    private void Change(Tensor values, int row, int count)
    {
        int length = (int)Place.Tensor.RowLength;
        if (Target.Replacement is { } replacement)
        {
            using Tensor rows = values.narrow(0, 0, count * length);
            replacement.Adapter.Tensors.ReadRange(replacement.Key, (First + row) * length, rows);
            if (Place.IsPlusOne)
            {
                foreach (ref float value in MemoryMarshal.Cast<byte, float>(rows.bytes))
                {
                    value += 1;
                }
            }
        }
        else
        {
            Work?.Merge(values, 0, count * length, (First + row) * length);
        }
    }

    /// <summary>Quantizes rows.</summary>
    /// <param name="stored">The piece of the base model.</param>
    /// <param name="row">First row in the piece.</param>
    /// <param name="values">Values of the rows.</param>
    /// <param name="result">The piece of the result.</param>
    private Tally Store(ReadOnlySpan<byte> stored, int row, in RowValues values, Span<byte> result)
    {
        BlockFormat from = BlockFormat.Of(Place.Tensor.Type)!;
        BlockFormat to = BlockFormat.Of(Segment.Result.Type)!;
        int length = values.After.Length;
        int fromBytes = (int)Place.Tensor.RowBytes;
        int toBytes = (int)Segment.Result.RowBytes;
        Tally tally = default;
        for (int i = 0; i < values.Before.Length / length; i++)
        {
            int fileRow = FileRow(row + i);
            ReadOnlySpan<float> before = values.Before.Slice(i * length, length);
            ReadOnlySpan<float> wanted = values.Wanted.Slice(i * length, length);
            Span<byte> bytes = result.Slice(fileRow * toBytes, toBytes);
            to.Quantize!(wanted, bytes);
            if (from.Type == to.Type)
            {
                KeepUnchanged(from.Size, before, wanted, stored.Slice(fileRow * fromBytes, fromBytes), bytes);
            }

            to.Dequantize(bytes, values.After);
            RoundingSums sums = RoundingSums.Of(before, wanted, values.After);

            // A number that is not finite shows in the sums.
            tally = tally.Plus(double.IsFinite(sums.Delta + sums.Error) ? new(sums, 0, 0) : new(sums, NotFinite(values.After), NotFinite(before)));
        }

        return tally;
    }

    private void Note(in Tally tally, FiniteCheck check)
    {
        if (Work is not null)
        {
            Segment.Loss.Add(Segment.Result.Name, Segment.Result.Type.ToString(), tally.Sums);
        }

        ScalarType type = Segment.Result.Type == GgmlType.F16 ? ScalarType.Float16 : ScalarType.Float32;
        long before = tally.NotFiniteBefore;
        check.Note(Target, Segment.Result.Name, type, tally.NotFinite, () => before);
    }

    private static long NotFinite(ReadOnlySpan<float> values) => NonFinite.Count(MemoryMarshal.AsBytes(values), SafetensorsDType.F32);

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

    /// <summary>Values of some rows.</summary>
    /// <param name="before">As they were.</param>
    /// <param name="wanted">With the changes.</param>
    /// <param name="after">Memory for one row as it is stored.</param>
    private readonly ref struct RowValues(ReadOnlySpan<float> before, ReadOnlySpan<float> wanted, Span<float> after)
    {
        public ReadOnlySpan<float> Before { get; } = before;

        public ReadOnlySpan<float> Wanted { get; } = wanted;

        public Span<float> After { get; } = after;
    }

    /// <summary>Measures taken while rows were stored.</summary>
    private readonly record struct Tally(RoundingSums Sums, long NotFinite, long NotFiniteBefore)
    {
        public Tally Plus(in Tally other) => new(Sums.Plus(other.Sums), NotFinite + other.NotFinite, NotFiniteBefore + other.NotFiniteBefore);
    }
}
