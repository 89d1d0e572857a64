namespace LoKr.Core.Runtime;

/// <summary>The native runtime that was found or loaded.</summary>
public sealed record LoKrRuntimeInfo
{
    /// <summary>Version of TorchSharp.</summary>
    public required string TorchSharpVersion { get; init; }

    /// <summary>Version of libtorch, for example 2.10.0.</summary>
    public required string LibtorchVersion { get; init; }

    /// <summary>Version of libtorch that TorchSharp was built for.</summary>
    public required string ExpectedLibtorchVersion { get; init; }

    /// <summary><c>cpu</c> or <c>cuda</c>.</summary>
    public required string Flavor { get; init; }

    /// <summary>Folder the libraries are loaded from.</summary>
    public required string Path { get; init; }

    /// <summary>Where it was found: Parameter, Environment, UserStore, Module or NuGet.</summary>
    public required string Source { get; init; }

    /// <summary>Whether the libraries are loaded in this process.</summary>
    public required bool IsLoaded { get; init; }

    /// <summary>Devices that can be used; empty until loaded.</summary>
    public required IReadOnlyList<string> Devices { get; init; }

    /// <summary>What had to be worked around on this machine, in words.</summary>
    public required IReadOnlyList<string> Workarounds { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"libtorch {LibtorchVersion} ({Flavor})";
}
