using LoKr.Core.Formats;

namespace LoKr.Core.Merging;

/// <summary>One file of the result.</summary>
/// <param name="FileName">Its name.</param>
/// <param name="Header">Its first bytes: length and header.</param>
/// <param name="Targets">Its tensors in the order of their bytes.</param>
internal sealed record MergeShard(string FileName, byte[] Header, IReadOnlyList<MergeTarget> Targets)
{
    /// <summary>Size of the file.</summary>
    public long ByteCount { get; } = Header.Length + Targets.Sum(static target => target.Header.ByteCount);

    /// <summary>The files of the base with what becomes of their tensors; what adapters add goes into the last one.</summary>
    /// <param name="source">The base.</param>
    /// <param name="matcher">What becomes of its tensors.</param>
    public static IReadOnlyList<MergeShard> Keep(CheckpointReader source, MergeMatcher matcher)
    {
        IReadOnlyList<MergeTarget> added = matcher.AddedTargets();
        return [.. source.Shards.Select((shard, index) =>
        {
            IReadOnlyList<MergeTarget> own = matcher.Targets(shard);
            MergeTarget[] targets = index == source.Shards.Count - 1 ? [.. own, .. added] : [.. own];
            return Create(Path.GetFileName(shard.FilePath), targets, shard.Metadata);
        })];
    }

    /// <summary>Files of a largest size; a single larger tensor gets one of its own.</summary>
    /// <param name="source">The base.</param>
    /// <param name="matcher">What becomes of its tensors.</param>
    /// <param name="baseName">Name of the weights without extension.</param>
    /// <param name="maxBytes">Largest file, tensors alone.</param>
    public static IReadOnlyList<MergeShard> Split(CheckpointReader source, MergeMatcher matcher, string baseName, long maxBytes)
    {
        List<List<MergeTarget>> groups = CheckpointWriter.Split(source.Shards.SelectMany(matcher.Targets).Concat(matcher.AddedTargets()), static target => target.Header.ByteCount, maxBytes);
        return [.. groups.Select((targets, index) => Create(CheckpointWriter.FileName(baseName, index, groups.Count), targets, source.Metadata))];
    }

    /// <summary>The file in pieces, in their order: the header, then tensors in blocks. Neighbours in the base that stay neighbours are copied as one run.</summary>
    public IEnumerable<MergePiece> Pieces()
    {
        yield return new MergePiece(0, Header.Length, null, 0, null);
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
                foreach (MergePiece piece in target.Replacement is null ? Merged(target, offset) : Run(target, target.Header.ByteCount, offset))
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

    private static MergeShard Create(string fileName, IReadOnlyList<MergeTarget> targets, IReadOnlyDictionary<string, string> metadata) =>
        new(fileName, SafetensorsHeaderWriter.Build([.. targets.Select(static target => target.Header)], metadata, fileName), targets);

    private static IEnumerable<MergePiece> Run(MergeTarget? first, long length, long offset)
    {
        for (long start = 0; start < length; start += LayerDelta.BlockBytes)
        {
            yield return new MergePiece(offset + start, (int)Math.Min(LayerDelta.BlockBytes, length - start), first, start, null);
        }
    }

    private static IEnumerable<MergePiece> Merged(MergeTarget target, long offset)
    {
        MergeWork work = new(target);
        return work.Runs().ToArray().Select(run => new MergePiece(offset + run.Start, run.Count, target, run.Start, work));
    }
}
