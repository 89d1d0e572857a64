namespace LoKr.Core.Merging;

/// <summary>How far a merge on disk is.</summary>
/// <param name="File">File that is being written.</param>
/// <param name="Tensors">Tensors that were started.</param>
/// <param name="TotalTensors">Tensors in all.</param>
/// <param name="Bytes">Bytes that were written.</param>
/// <param name="TotalBytes">Bytes to write in all.</param>
/// <param name="Elapsed">Time since the start.</param>
public sealed record CheckpointMergeProgress(string File, int Tensors, int TotalTensors, long Bytes, long TotalBytes, TimeSpan Elapsed);
