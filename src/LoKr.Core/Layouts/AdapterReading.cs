using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;

namespace LoKr.Core.Layouts;

/// <summary>The modules of a file with the meaning of their shapes and alphas, and every problem found while reading.</summary>
/// <param name="File">The file.</param>
/// <param name="Modules">Modules with factors; norms and modules with errors are left out.</param>
/// <param name="Findings">Errors, warnings and notes.</param>
internal sealed record AdapterReading(AdapterFile File, IReadOnlyList<ModuleReading> Modules, IReadOnlyList<LoKrAdapterFinding> Findings)
{
    private static readonly string[] s_adapterNames = ["lokr", "lora", "loha", "hada_", "oft_", "ia3", "vera_", "prompt_embeddings"];

    /// <summary>Interprets the header of a file.</summary>
    /// <param name="file">The file.</param>
    /// <param name="options">Overrides for what the file does not say, or says wrongly.</param>
    public static AdapterReading Of(AdapterFile file, AdapterReadOptions options)
    {
        ArgumentNullException.ThrowIfNull(file);
        if (IsModel(file))
        {
            return new(file, [], [new(LoKrFindingSeverity.Error, ErrorIds.AdapterKeyInvalid,
                $"These are the weights of a model, not an adapter: none of the {file.Entries.Count} tensors, such as '{file.Entries.Keys.First()}', is a factor. Name the file or folder of an adapter.", file.WeightsPath)]);
        }

        List<LoKrAdapterFinding> findings = [.. file.Findings];
        AddForeign(file, options.Foreign, findings);
        List<ModuleReading> modules = [];
        int ignored = 0;

        // Patterns are translated once for all modules of a component.
        Dictionary<LoKrConfig, ModuleRanks> ranks = new(ReferenceEqualityComparer.Instance);
        ModuleRanks RanksOf(LoKrConfig config) => ranks.TryGetValue(config, out ModuleRanks? known) ? known : ranks[config] = new(config);
        foreach (AdapterFileModule module in file.Modules)
        {
            if (module.IsNorm)
            {
                CheckNorm(module, findings);
            }
            else if (FactorGeometry.Read(module, findings) is FactorGeometry geometry)
            {
                modules.Add(new(module, geometry, ModuleScale.Of(file, module, geometry, options, RanksOf, findings)));
                ignored += module.Alpha is double alpha && !double.IsFinite(alpha) && geometry.Rank is null ? 1 : 0;
            }
        }

        if (ignored > 0)
        {
            findings.Add(new(LoKrFindingSeverity.Information, ErrorIds.AlphaInvalid, $"The alpha of {ignored} modules is not finite; it has no meaning, because both their factors are full.", file.WeightsPath));
        }

        return new(file, modules, findings);
    }

    /// <summary>The same with further findings.</summary>
    public AdapterReading With(IEnumerable<LoKrAdapterFinding> findings) => this with { Findings = [.. Findings, .. findings] };

    /// <summary>Throws an error with the id of the first error found and the messages of all.</summary>
    /// <param name="counts">Whether a finding counts; null for all of them.</param>
    public void ThrowIfInvalid(Func<LoKrAdapterFinding, bool>? counts = null)
    {
        LoKrAdapterFinding[] errors = [.. Findings.Where(finding => finding.Severity == LoKrFindingSeverity.Error && counts?.Invoke(finding) != false)];
        if (errors.Length > 0)
        {
            const int Most = 20;
            string more = errors.Length > Most ? $"{Environment.NewLine}… and {errors.Length - Most} more." : "";
            throw new LoKrException(
                errors[0].ErrorId,
                LoKrErrorKind.InvalidData,
                errors.Length == 1 ? $"'{File.Path}': {errors[0].Message}"
                    : $"'{File.Path}' has {errors.Length} errors:{string.Concat(errors.Take(Most).Select(static error => Environment.NewLine + "- " + error.Message))}{more}")
            { Target = errors[0].Target };
        }
    }

    /// <summary>Throws as <see cref="ThrowIfInvalid(Func{LoKrAdapterFinding, bool}?)"/> does, for the modules of the wanted component.</summary>
    /// <param name="file">The file.</param>
    /// <param name="options">The options with the component.</param>
    public void ThrowIfInvalid(AdapterFile file, AdapterReadOptions options)
    {
        HashSet<string> unwanted =
        [
            .. file.Modules.Where(module => !options.Wants(module.Component)).Select(static module => module.Name),
            .. file.Foreign.Where(tensor => !options.Wants(tensor.Component)).Select(static tensor => tensor.Module),
        ];
        ThrowIfInvalid(finding => !unwanted.Contains(finding.Target));
    }

    /// <summary>Warnings about tensors of other kinds of adapters that are left out.</summary>
    public static IEnumerable<string> Left(AdapterFile file, AdapterReadOptions options)
    {
        List<LoKrAdapterFinding> findings = [];
        AddForeign(file, options.Foreign, findings);
        return findings.Where(static finding => finding.Severity == LoKrFindingSeverity.Warning).Select(static finding => finding.Message);
    }

    private static void AddForeign(AdapterFile file, ForeignTensors policy, List<LoKrAdapterFinding> findings)
    {
        if (policy == ForeignTensors.Carry || (file.Foreign.Count == 0 && file.LowRank.Count == 0))
        {
            return;
        }

        if (file.Foreign.Count == 0)
        {
            findings.Add(new(LoKrFindingSeverity.Error, ErrorIds.AdapterTypeNotSupported,
                $"The configuration describes {file.LowRank.Values.First().Kind}, and the file has no LoKr factors. Name a file that holds LoKr factors.", file.WeightsPath));
            return;
        }

        string kinds = string.Join(", ", file.Foreign.GroupBy(static tensor => tensor.Kind).Select(static kind => $"{kind.Select(static tensor => tensor.Module).Distinct().Count()} modules of {kind.Key}"));
        if (file.Modules.Count == 0)
        {
            findings.Add(new(LoKrFindingSeverity.Error, ErrorIds.AdapterTypeNotSupported,
                $"The file has {kinds}, such as '{file.Foreign[0].Entry.Name}', and no LoKr factors: it can be described, merged into a model, and converted for programs that read it. Name a file that holds LoKr factors.", file.Foreign[0].Entry.Name));
            return;
        }

        findings.Add(policy == ForeignTensors.Skip
            ? new(LoKrFindingSeverity.Warning, ErrorIds.AdapterTypeNotSupported, $"The file has {kinds} beside {file.Modules.Count} of LoKr, such as '{file.Foreign[0].Entry.Name}'; they are left out.", file.WeightsPath)
            : new(LoKrFindingSeverity.Error, ErrorIds.AdapterTypeNotSupported, $"The file has {kinds} beside {file.Modules.Count} of LoKr, such as '{file.Foreign[0].Entry.Name}', which are not supported here. Leave them out, or name a file that holds only LoKr.", file.WeightsPath));
    }

    // Names of other kinds of adapters end differently, or name their kind.
    private static bool IsModel(AdapterFile file) => file.Modules.Count == 0 && file.SavedTensors.Count == 0
        && file.Entries.Keys.Any(static name => name.EndsWith(".weight", StringComparison.Ordinal))
        && !file.Entries.Keys.Any(static name => s_adapterNames.Any(part => name.Contains(part, StringComparison.OrdinalIgnoreCase)));

    private static void CheckNorm(AdapterFileModule module, List<LoKrAdapterFinding> findings)
    {
        if (module.Tensors.Keys.FirstOrDefault(static suffix => !AdapterSuffixes.Norms.Contains(suffix) && suffix != AdapterSuffixes.Alpha) is string other)
        {
            findings.Add(new(LoKrFindingSeverity.Error, ErrorIds.AdapterKeysMismatch, $"'{module}' has both changes of a norm and {other}. Get the file again, or ask its author.", module.Name));
        }

        SafetensorsEntry[] norms = [.. module.Tensors.Where(static pair => AdapterSuffixes.Norms.Contains(pair.Key)).Select(static pair => pair.Value)];
        if (norms.FirstOrDefault(entry => entry.Shape.Count != 1 || entry.Shape[0] != norms[0].Shape[0]) is SafetensorsEntry wrong)
        {
            findings.Add(new(LoKrFindingSeverity.Error, ErrorIds.AdapterShapeMismatch, $"'{wrong.Name}' is [{string.Join(", ", wrong.Shape)}]; the changes of a norm are vectors of one length.", module.Name));
        }
    }
}

/// <summary>One module of a file with factors.</summary>
/// <param name="Module">Its tensors in the file.</param>
/// <param name="Geometry">The shapes of its factors.</param>
/// <param name="Scale">The scale of w1 ⊗ w2.</param>
internal sealed record ModuleReading(AdapterFileModule Module, FactorGeometry Geometry, ModuleScale Scale)
{
    /// <summary>Axis of DoRA's magnitudes; null without any.</summary>
    public WeightDecomposeAxis? DoraAxis => Module.Tensors.TryGetValue(FactorNames.DoraScale, out SafetensorsEntry? magnitude) ? FactorGeometry.DoraAxis(magnitude, Geometry) : null;

    /// <summary>Whether the factors of a one-dimensional convolution with a full w2 mean w2 ⊗ w1, as PEFT reads them.</summary>
    /// <param name="file">The file.</param>
    public bool IsReversed(AdapterFile file)
    {
        bool fromPeft = file.FollowsPeft || file.Layout == AdapterLayout.DiffusersModel || (file.Layout == AdapterLayout.Diffusers && file.HasConfig);
        Conv1dLayout conv1d = (AdapterLayouts.HasAlphaTensors(file.Layout) ? null : file.ConfigOf(Module.Component))?.Conv1dLayout ?? (fromPeft ? Conv1dLayout.Peft : Conv1dLayout.Kronecker);
        return conv1d == Conv1dLayout.Peft && Geometry.InnerRank is null && Geometry.Kernel!.Count == 1;
    }
}

/// <summary>Overrides for what an adapter file does not say, or says wrongly.</summary>
public sealed record AdapterReadOptions
{
    /// <summary>The layout; null to detect it.</summary>
    public AdapterLayout? Layout { get; init; }

    /// <summary>Alpha of every module; overrides the file.</summary>
    public double? Alpha { get; init; }

    /// <summary>Scaling convention; overrides that of the file's origin.</summary>
    public ScalingConvention? Scaling { get; init; }

    /// <summary>Only the modules of this component; null for all of them.</summary>
    public AdapterComponent? Component { get; init; }

    /// <summary>Rank of every module whose factors are both whole, for a scale that depends on it; the file's header may name it too (<c>ss_network_dim</c>).</summary>
    public int? Rank { get; init; }

    /// <summary>Advice about tensors of other kinds of adapters.</summary>
    public ForeignTensors Foreign { get; init; }

    /// <summary>Whether modules of a component are read.</summary>
    internal bool Wants(AdapterComponent component) => Component is not AdapterComponent wanted || AdapterComponents.Matches(component, wanted);
}

/// <summary>Advice about tensors of other kinds of adapters beside LoKr's factors.</summary>
public enum ForeignTensors
{
    /// <summary>They are an error.</summary>
    Refuse,

    /// <summary>They are left out, with a warning.</summary>
    Skip,

    /// <summary>They are kept as they are.</summary>
    Carry,
}
