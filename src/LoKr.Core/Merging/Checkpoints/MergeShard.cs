using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>One safetensors file of the result.</summary>
/// <param name="FileName">Its name.</param>
/// <param name="Header">Its first bytes: length and header.</param>
/// <param name="Targets">Its tensors in the order of their bytes.</param>
internal sealed record MergeShard(string FileName, byte[] Header, IReadOnlyList<MergeTarget> Targets) : MergeFile(FileName, Header)
{
    /// <inheritdoc/>
    public override long ByteCount { get; } = Header.Length + Targets.Sum(static target => target.Header.ByteCount);

    /// <inheritdoc/>
    public override IReadOnlyList<string> TensorNames => [.. Targets.Select(static target => target.Name)];

    /// <summary>The same files as in the base model; tensors that adapters add go into the last one.</summary>
    /// <param name="part">The component of the base model with its changes.</param>
    public static IReadOnlyList<MergeShard> LikeBase(StoredPart part) => [.. part.Checkpoint.Shards.Select((shard, index) => Create(
        Path.Combine(part.Folder, Path.GetFileName(shard.FilePath)),
        [.. part.Plan.Targets(shard, part.Quantized), .. index == part.Checkpoint.Shards.Count - 1 ? part.Plan.AddedTargets(part.Quantized) : []],
        part.Quantized.Metadata(shard.Metadata)))];

    /// <summary>Files of a largest size; a single larger tensor gets a file of its own.</summary>
    /// <param name="part">The component of the base model with its changes.</param>
    /// <param name="maxBytes">Largest file in bytes, without its header.</param>
    public static IReadOnlyList<MergeShard> Split(StoredPart part, long maxBytes)
    {
        List<List<MergeTarget>> groups = CheckpointWriter.Split(
            part.Checkpoint.Shards.SelectMany(shard => part.Plan.Targets(shard, part.Quantized)).Concat(part.Plan.AddedTargets(part.Quantized)), static target => target.Header.ByteCount, maxBytes);
        return [.. groups.Select((targets, index) =>
            Create(Path.Combine(part.Folder, CheckpointWriter.FileName(part.BaseName, index, groups.Count)), targets, part.Quantized.Metadata(part.Checkpoint.Metadata)))];
    }

    /// <summary>The pieces of the file in their order: the header, then tensors in blocks. Unchanged tensors that are neighbors in the base model are copied as one run.</summary>
    public override IEnumerable<MergePiece> Pieces()
    {
        yield return new FixedPiece(0, Header);
        long offset = Header.Length;
        MergeTarget? first = null;
        long length = 0;
        foreach (MergeTarget target in Targets)
        {
            if (target.IsCopy && first is not null && ReferenceEquals(first.Shard, target.Shard) && first.Entry!.Offset + length == target.Entry!.Offset)
            {
                length += target.Header.ByteCount;
                continue;
            }

            foreach (MergePiece piece in Run(first, length, offset))
            {
                yield return piece;
            }

            offset += length;
            (first, length) = target.IsCopy ? (target, target.Header.ByteCount) : (null, 0);
            if (!target.IsCopy)
            {
                foreach (MergePiece piece in target.Storage?.Pieces(target, offset) ?? (target.Replacement is null ? Merged(target, offset) : Run(target, target.Header.ByteCount, offset)))
                {
                    yield return piece;
                }

                offset += target.Header.ByteCount;
            }
        }

        foreach (MergePiece piece in Run(first, length, offset))
        {
            yield return piece;
        }
    }

    private static MergeShard Create(string fileName, IReadOnlyList<MergeTarget> targets, IReadOnlyDictionary<string, string> metadata)
    {
        Dictionary<string, string> published = metadata.ToDictionary(static pair => pair.Key, static pair => MachinePaths.Remove(pair.Value), StringComparer.Ordinal);
        return new(fileName, SafetensorsHeaderWriter.Build([.. targets.Select(static target => target.Header)], published, fileName), targets);
    }

    private static IEnumerable<MergePiece> Merged(MergeTarget target, long offset)
    {
        MergeWork work = new(target);
        return work.Runs.Select(run => new ShardPiece(offset + (run.Start * target.RowBytes), checked((int)(run.Count * target.RowBytes)), target, run.Start * target.RowBytes, work));
    }

    private static IEnumerable<MergePiece> Run(MergeTarget? first, long length, long offset)
    {
        for (long start = 0; start < length; start += LayerDelta.BlockBytes)
        {
            yield return new ShardPiece(offset + start, (int)Math.Min(LayerDelta.BlockBytes, length - start), first!, start, null);
        }
    }
}

/// <summary>Bytes of a tensor of a safetensors file.</summary>
/// <param name="Offset">Position in the file.</param>
/// <param name="Count">Number of bytes.</param>
/// <param name="Target">Tensor it belongs to, the first one of a run that is copied.</param>
/// <param name="Start">Position of the first byte in the tensor.</param>
/// <param name="Work">The deltas that all pieces of a changed weight share; null for a copy.</param>
internal sealed record ShardPiece(long Offset, int Count, MergeTarget Target, long Start, MergeWork? Work) : MergePiece(Offset, Count)
{
    /// <inheritdoc/>
    public override bool StartsTensor => Start == 0;

    /// <inheritdoc/>
    public override bool CanReuse => true;

    /// <inheritdoc/>
    public override void Reuse(ReadOnlySpan<byte> bytes, FiniteCheck check)
    {
        if (!Target.IsCopy)
        {
            Note(check, bytes);
        }
    }

    /// <inheritdoc/>
    public override ReadOnlySpan<byte> Fill(PieceBuffer buffer, FiniteCheck check)
    {
        // The bytes stay valid: they belong to the buffer.
        using Tensor values = buffer.Take(Count, Target.IsCopy ? SafetensorsDType.U8 : Target.DType);
        Span<byte> bytes = values.bytes;
        if (Target.Replacement is { } replacement)
        {
            replacement.Adapter.Tensors.ReadRange(replacement.Key, Start / SafetensorsDTypes.Size(Target.DType), values);
            Note(check, bytes);
            return bytes;
        }

        Target.Shard!.ReadBytes(Target.Entry!, Start, bytes);
        if (Work is not null)
        {
            Work.Prepare(buffer.Products);
            int size = SafetensorsDTypes.Size(Target.DType);
            RoundingSums sums = Work.Merge(values, 0, Count / size, Start / size);
            if (sums.Count > 0)
            {
                Target.Loss!.Add(Target.Name, SafetensorsDTypes.Name(Target.DType), sums);
            }

            Note(check, bytes);
        }

        return bytes;
    }

    /// <inheritdoc/>
    public override void Written() => Work?.Done();

    /// <inheritdoc/>
    public override void Release() => Work?.Dispose();

    private void Note(FiniteCheck check, ReadOnlySpan<byte> rows) =>
        check.Note(Target, Target.Name, SafetensorsDTypes.Natural(Target.DType), NonFinite.Count(rows, Target.DType), CountBefore);

    private long CountBefore()
    {
        if (Target.Entry is not { } entry || Target.Replacement is not null)
        {
            return 0;
        }

        byte[] before = new byte[Count];
        Target.Shard!.ReadBytes(entry, Start, before);
        return NonFinite.Count(before, Target.DType);
    }
}
