using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>One adapter file as <c>Get-LoKrAdapter -Path</c> shows it, from its header. Flat and serialisable.</summary>
public sealed record LoKrAdapterInfo
{
    /// <summary>Full path of the file, or of the folder that PEFT wrote.</summary>
    public required string Path { get; init; }

    /// <summary>Last part of the path.</summary>
    public required string Name { get; init; }

    /// <summary>How the tensors are named.</summary>
    public required AdapterLayout Layout { get; init; }

    /// <summary>Parts of a pipeline that the file has modules for; <c>Model</c> where it does not say.</summary>
    public required IReadOnlyList<string> Components { get; init; }

    /// <summary>Number of modules with factors.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Number of norms with changes, and of tensors of modules that are saved whole.</summary>
    public required int OtherCount { get; init; }

    /// <summary>Most common rank; null where every factor is full and no configuration names one.</summary>
    public long? Rank { get; init; }

    /// <summary>All ranks, rising.</summary>
    public required IReadOnlyList<long> Ranks { get; init; }

    /// <summary>Most common alpha; null where the file has none.</summary>
    public double? Alpha { get; init; }

    /// <summary>All alphas, rising; one that is not finite last.</summary>
    public required IReadOnlyList<double> Alphas { get; init; }

    /// <summary>What most modules' factors are multiplied with; null where nothing says it.</summary>
    public double? Scale { get; init; }

    /// <summary>Convention by which alpha becomes that number.</summary>
    public required ScalingConvention Scaling { get; init; }

    /// <summary>Decompose factor that gives every shape; null where none does.</summary>
    public int? Factor { get; init; }

    /// <summary>Number of trained numbers: factors, magnitudes, norms and whole modules, without the alphas.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Number of tensors in the file.</summary>
    public required int TensorCount { get; init; }

    /// <summary>Kinds of tensors: lokr_w1, lokr_w2_a, alpha and so on.</summary>
    public required IReadOnlyList<string> TensorKinds { get; init; }

    /// <summary>Element type of the factors, for example float32; several with commas.</summary>
    public required string DType { get; init; }

    /// <summary>Whether a configuration came with the file.</summary>
    public required bool HasConfig { get; init; }

    /// <summary>Base model by configuration or metadata, or null.</summary>
    public string? BaseModel { get; init; }

    /// <summary>Size of the file of weights in bytes.</summary>
    public required long Size { get; init; }

    /// <summary>Metadata of the header.</summary>
    public required IReadOnlyDictionary<string, string> Metadata { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Path;
}
