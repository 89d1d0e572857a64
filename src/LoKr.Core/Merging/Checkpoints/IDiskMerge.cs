using LoKr.Core.Model;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>A merge from disk to disk that was checked and can run: of a folder of safetensors, or of a GGUF file. Disposing closes the files.</summary>
public interface IDiskMerge : IDisposable
{
    /// <summary>Full path of the folder or file to write.</summary>
    string Destination { get; }

    /// <summary>Warnings about the adapters and the result.</summary>
    IReadOnlyList<string> Warnings { get; }

    /// <summary>Writes the result; it appears complete or not at all.</summary>
    /// <param name="progress">Called as bytes are written, from several threads; null for none.</param>
    /// <param name="cancel">Interrupts the merge.</param>
    LoKrMergeResult Run(Action<CheckpointMergeProgress>? progress = null, CancellationToken cancel = default);
}
