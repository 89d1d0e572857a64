namespace LoKr.Core.Merging;

/// <summary>A run of bytes of a file of the result.</summary>
/// <param name="Offset">Where it begins in the file.</param>
/// <param name="Count">Number of bytes.</param>
/// <param name="Target">Tensor it belongs to, the first one of a run that is copied; null for the header.</param>
/// <param name="Start">Its first byte counted from the beginning of the tensor.</param>
/// <param name="Work">What all pieces of a weight that is merged share; null otherwise.</param>
internal sealed record MergePiece(long Offset, int Count, MergeTarget? Target, long Start, MergeWork? Work);
