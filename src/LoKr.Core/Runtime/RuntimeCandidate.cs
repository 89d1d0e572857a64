namespace LoKr.Core.Runtime;

/// <summary>A libtorch that was found, not yet loaded.</summary>
/// <param name="Folder">Folder of the libtorch libraries; made on loading where <see cref="Packages"/> is not empty.</param>
/// <param name="LibTorchSharp">Full path of TorchSharp's native library.</param>
/// <param name="Version">Version of libtorch without build label, or null where it cannot be told.</param>
/// <param name="Flavor"><c>cpu</c> or <c>cuda</c>.</param>
/// <param name="Source">Where it was found.</param>
internal sealed record RuntimeCandidate(string Folder, string LibTorchSharp, string? Version, string Flavor, string Source)
{
    /// <summary>Folders of the NuGet packages over which a CUDA build of libtorch is spread.</summary>
    public IReadOnlyList<string> Packages { get; init; } = [];
}
