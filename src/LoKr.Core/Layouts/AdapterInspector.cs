using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts;

/// <summary>Describes adapter files from their headers.</summary>
public static class AdapterInspector
{
    private static readonly string[] s_baseModelKeys = ["ss_base_model_version", "ss_sd_model_name", "modelspec.architecture"];

    private static readonly string[] s_kinds =
    [
        FactorNames.W1, FactorNames.W1A, FactorNames.W1B, FactorNames.W2, FactorNames.W2A, FactorNames.W2B, FactorNames.T2,
        AdapterSuffixes.Alpha, FactorNames.Scalar, FactorNames.DoraScale, AdapterSuffixes.NormWeight, AdapterSuffixes.NormBias,
    ];

    /// <summary>Describes a file; of its tensors only alphas are read.</summary>
    /// <param name="path">A safetensors file, or an adapter folder.</param>
    /// <param name="layout">The layout, where names are misleading; null to detect it.</param>
    /// <exception cref="LoKrException">The file cannot be read, or is not a valid adapter.</exception>
    public static LoKrAdapterInfo Inspect(string path, AdapterLayout? layout = null)
    {
        using AdapterFile file = AdapterFile.Open(path, layout);
        return Inspect(file);
    }

    private static LoKrAdapterInfo Inspect(AdapterFile file)
    {
        AdapterReading reading = AdapterReading.Of(file, new() { Foreign = ForeignTensors.Carry });

        // A file without LoKr factors is described by what it has.
        OtherModule[] others = file.Modules.Count > 0 ? [] : [.. OtherModule.Of(file, new())];
        OtherModule[] products = [.. others.Where(static other => other.Kind.HasProduct)];

        // A file whose scale is not known can be described all the same.
        reading.With(OtherModule.Findings([.. others.Where(static other => other.Kind.Unsupported is null)], skips: false)).ThrowIfInvalid(static finding => finding.ErrorId is not (ErrorIds.AdapterScaleUnknown or ErrorIds.AlphaInvalid));
        IReadOnlyList<ModuleReading> modules = reading.Modules;
        IEnumerable<double> alphas = modules.Select(static entry => entry.Scale.Alpha).Concat(products.Select(static other => other.Alpha)).OfType<double>();
        IEnumerable<long> ranks = modules.Select(static entry => entry.Scale.Rank).OfType<long>().Concat(products.Select(static other => other.Rank));
        IEnumerable<double> scales = modules.Select(static entry => entry.Scale.Factor).Concat(products.Select(static other => other.Scale ?? double.NaN)).Where(double.IsFinite);
        HashSet<string> suffixes = [.. file.Modules.SelectMany(static module => module.Tensors.Keys)];
        string[] kinds = [.. others.SelectMany(static other => other.Module.Tensors.Keys).Select(AdapterSuffixes.Part).Distinct().Order(StringComparer.Ordinal)];
        SafetensorsEntry[] factors = [.. file.Modules.SelectMany(static module => module.Tensors).Where(static pair => pair.Key != AdapterSuffixes.Alpha).Select(static pair => pair.Value)];
        SafetensorsEntry[] numbers = factors.Length > 0 ? factors : [.. file.Foreign.Where(static tensor => tensor.Suffix != AdapterSuffixes.Alpha).Select(static tensor => tensor.Entry)];
        return new()
        {
            Path = file.Path,
            Name = System.IO.Path.GetFileName(file.Path),
            Layout = file.Layout,
            Components = [.. file.Modules.Select(static module => module.Component).Concat(file.Foreign.Select(static tensor => tensor.Component)).Distinct().Order().Select(static component => component.ToString())],
            ModuleCount = modules.Count,
            OtherCount = file.Modules.Count - modules.Count + file.SavedTensors.Count + file.Foreign.Select(static tensor => (tensor.Component, tensor.Module)).Distinct().Count(),
            Rank = Common(ranks),
            Ranks = [.. ranks.Distinct().Order()],
            Alpha = Common(alphas),
            Alphas = [.. alphas.Distinct().OrderBy(static alpha => double.IsFinite(alpha) ? alpha : double.PositiveInfinity)],
            Scale = Common(scales),
            Scaling = modules.Count > 0 ? modules[0].Scale.Convention : file.LowRank.Count > 0 ? ScalingConvention.Peft : ScalingConvention.Lycoris,
            Factor = FactorInference.Find(modules.Select(static entry => new KnownGeometry(entry.Geometry)), file.FactorHint)?.Factor,
            ParameterCount = numbers.Concat(file.SavedTensors.Values.Select(name => file.Entries[name])).Sum(static entry => entry.Shape.Product()),
            TensorCount = file.Entries.Count,
            TensorKinds = [.. s_kinds.Where(suffixes.Contains), .. kinds],
            DType = string.Join(", ", numbers.GroupBy(static entry => entry.DType).OrderByDescending(static group => group.Count()).Select(static group => TypeName(group.Key))),
            HasConfig = file.HasConfig,
            BaseModel = file.Configs.Values.Concat(file.LowRank.Values.Select(static config => config.Shared)).Select(static config => config.BaseModelNameOrPath).FirstOrDefault(static name => name is not null)
                ?? s_baseModelKeys.Select(key => file.Metadata.GetValueOrDefault(key)).FirstOrDefault(static name => name is not null),
            Size = new FileInfo(file.WeightsPath).Length,
            Metadata = file.Metadata,
        };
    }

    private static T? Common<T>(IEnumerable<T> values)
        where T : struct =>
        values.GroupBy(static value => value).OrderByDescending(static group => group.Count()).Select(static group => (T?)group.Key).FirstOrDefault();

    private static string TypeName(SafetensorsDType type) => type switch
    {
        SafetensorsDType.F8E4M3 => "float8_e4m3",
        SafetensorsDType.F8E5M2 => "float8_e5m2",
        _ => TorchNames.Of(SafetensorsDTypes.Natural(type)),
    };
}

/// <summary>A description of one adapter file, from its header. Flat and serializable.</summary>
public sealed record LoKrAdapterInfo
{
    /// <summary>Full path of the file, or of the folder that PEFT wrote.</summary>
    public required string Path { get; init; }

    /// <summary>Last part of the path.</summary>
    public required string Name { get; init; }

    /// <summary>How the tensors are named.</summary>
    public required AdapterLayout Layout { get; init; }

    /// <summary>Name of the layout, as text in JSON too.</summary>
    public string Format => Layout.ToString();

    /// <summary>Parts of a pipeline that the file has modules of; <c>Model</c> where it does not say.</summary>
    public required IReadOnlyList<string> Components { get; init => field = ValueList.Of(value); }

    /// <summary>Number of modules with factors.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Number of norms with changes, of tensors of modules that are saved whole, and of modules with other kinds of adapters.</summary>
    public required int OtherCount { get; init; }

    /// <summary>Most common rank; null where every factor is full and no configuration names one.</summary>
    public long? Rank { get; init; }

    /// <summary>All ranks, ascending.</summary>
    public required IReadOnlyList<long> Ranks { get; init => field = ValueList.Of(value); }

    /// <summary>Most common alpha; null where the file has none.</summary>
    public double? Alpha { get; init; }

    /// <summary>All alphas, ascending; one that is not finite is last.</summary>
    public required IReadOnlyList<double> Alphas { get; init => field = ValueList.Of(value); }

    /// <summary>Most common scale of w1 ⊗ w2; null where it is not known.</summary>
    public double? Scale { get; init; }

    /// <summary>Convention that turns alpha into the scale.</summary>
    public required ScalingConvention Scaling { get; init; }

    /// <summary>Decompose factor that results in these shapes; null where none does.</summary>
    public int? Factor { get; init; }

    /// <summary>Number of trained parameters: factors, magnitudes, norms and whole modules, without the alphas.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Number of tensors in the file.</summary>
    public required int TensorCount { get; init; }

    /// <summary>Kinds of tensors: lokr_w1, lokr_w2_a, alpha and so on.</summary>
    public required IReadOnlyList<string> TensorKinds { get; init => field = ValueList.Of(value); }

    /// <summary>Element type of the factors, for example float32; several are separated by commas.</summary>
    public required string DType { get; init; }

    /// <summary>Whether a configuration came with the file.</summary>
    public required bool HasConfig { get; init; }

    /// <summary>Base model by configuration or metadata, or null.</summary>
    public string? BaseModel { get; init; }

    /// <summary>Size of the file of weights in bytes.</summary>
    public required long Size { get; init; }

    /// <summary>Metadata of the header.</summary>
    public required IReadOnlyDictionary<string, string> Metadata { get; init => field = ValueList.Of(value); }

    /// <inheritdoc/>
    public override string ToString() => Path;
}
