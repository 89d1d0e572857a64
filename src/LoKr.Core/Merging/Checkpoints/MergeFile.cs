using System.Collections.Concurrent;
using LoKr.Core.Model;
using TorchSharp;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>One file of the result, as pieces whose bytes can be computed in any order and on any thread.</summary>
/// <param name="FileName">Its name.</param>
/// <param name="Header">Its first bytes, up to the first tensor. Together with the base model and the adapters it decides all others.</param>
internal abstract record MergeFile(string FileName, byte[] Header)
{
    /// <summary>Size of the file.</summary>
    public abstract long ByteCount { get; }

    /// <summary>Names of its tensors in messages.</summary>
    public abstract IReadOnlyList<string> TensorNames { get; }

    /// <summary>The pieces of the file in their order.</summary>
    public abstract IEnumerable<MergePiece> Pieces();
}

/// <summary>Consecutive bytes of a file of the result.</summary>
/// <param name="Offset">Position in the file.</param>
/// <param name="Count">Number of bytes.</param>
internal abstract record MergePiece(long Offset, int Count)
{
    /// <summary>Whether a tensor begins here.</summary>
    public abstract bool StartsTensor { get; }

    /// <summary>Computes the bytes. They stay valid until the thread fills its next piece.</summary>
    /// <param name="buffer">Memory of the thread.</param>
    /// <param name="check">Told of numbers that are NaN or infinite.</param>
    public abstract ReadOnlySpan<byte> Fill(PieceBuffer buffer, FiniteCheck check);

    /// <summary>Whether bytes that an interrupted run has written can be taken as they are. Pieces that report more than their bytes are computed again.</summary>
    public virtual bool CanReuse => false;

    /// <summary>Takes note of bytes that an interrupted run has written.</summary>
    /// <param name="bytes">The bytes.</param>
    /// <param name="check">Told of numbers that are NaN or infinite.</param>
    public virtual void Reuse(ReadOnlySpan<byte> bytes, FiniteCheck check)
    {
    }

    /// <summary>Called once when the piece was written.</summary>
    public virtual void Written()
    {
    }

    /// <summary>Releases what pieces share, also where not all of them were written.</summary>
    public virtual void Release()
    {
    }
}

/// <summary>Bytes that are known before the merge: a header, or padding.</summary>
/// <param name="Offset">Position in the file.</param>
/// <param name="Bytes">The bytes.</param>
internal sealed record FixedPiece(long Offset, byte[] Bytes) : MergePiece(Offset, Bytes.Length)
{
    /// <inheritdoc/>
    public override bool StartsTensor => false;

    /// <inheritdoc/>
    public override bool CanReuse => true;

    /// <inheritdoc/>
    public override ReadOnlySpan<byte> Fill(PieceBuffer buffer, FiniteCheck check) => Bytes;
}

/// <summary>Counts the numbers that the merge made NaN or infinite, or refuses them.</summary>
/// <param name="safe">Whether they are refused.</param>
internal sealed class FiniteCheck(bool safe)
{
    private readonly ConcurrentDictionary<string, long> _counts = new(StringComparer.Ordinal);

    /// <summary>The counts by tensor, for the tensors of a file.</summary>
    public IReadOnlyDictionary<string, long> Of(MergeFile file) => file.TensorNames.Where(_counts.ContainsKey).ToDictionary(static name => name, name => _counts[name], StringComparer.Ordinal);

    /// <summary>Takes note of a part of a tensor.</summary>
    /// <param name="target">The tensor.</param>
    /// <param name="name">Its name in messages.</param>
    /// <param name="type">Its type in messages.</param>
    /// <param name="count">How many numbers of the result are not finite.</param>
    /// <param name="before">Returns how many of the base model were not; called only where some of the result are.</param>
    /// <exception cref="Errors.LoKrException"><c>LoKr.MergeNotFinite</c>.</exception>
    public void Note(MergeTarget target, string name, torch.ScalarType type, long count, Func<long> before)
    {
        if (count == 0)
        {
            return;
        }

        if (safe)
        {
            throw ModelErrors.MergeNotFinite(string.Join("', '", target.AdapterNames), name, type, "nothing was written");
        }

        long added = count - before();
        if (added > 0)
        {
            _counts.AddOrUpdate(name, added, (_, former) => former + added);
        }
    }
}
