using LoKr.Core.Merging.Checkpoints;
using LoKr.Models.Families;

namespace LoKr.Models.Loading;

/// <summary>Merges on disk for the architectures that are known here.</summary>
public static class DiskMerge
{
    /// <summary>Opens a merge as <see cref="CheckpointMerge.Open"/> does. Names and head of the architecture are filled in if the base model's is known.</summary>
    /// <param name="options">Base model, adapters and destination; names and head class that are set override the architecture's.</param>
    /// <returns>The merge, checked and not yet run; the caller disposes it.</returns>
    /// <exception cref="Core.Errors.LoKrException"><see cref="Core.Errors.ErrorIds.ModelConfigInvalid"/>, and as for <see cref="CheckpointMerge.Open"/>.</exception>
    public static CheckpointMerge Open(CheckpointMergeOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        ModelArchitecture? architecture = ModelNames.FindArchitecture(options.BasePath);
        return CheckpointMerge.Open(options with
        {
            Names = options.Names ?? architecture?.Layout.Names,
            HeadClass = options.HeadClass ?? (architecture is { Layout.HeadPrefixes.Count: > 0 } ? architecture.Name : null),
        });
    }
}
