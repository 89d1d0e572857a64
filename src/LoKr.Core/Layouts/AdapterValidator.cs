using LoKr.Core.Errors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Checks an adapter file by its header and its alphas: names, shapes, scaling.</summary>
public static class AdapterValidator
{
    /// <summary>Checks a file that may be anything; what cannot be read is a finding, not an exception.</summary>
    /// <param name="path">Safetensors file or adapter folder; it has to exist.</param>
    /// <param name="options">How thoroughly.</param>
    public static LoKrAdapterCheck Check(string path, AdapterCheckOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        string full = Path.GetFullPath(path);
        try
        {
            using AdapterFile file = AdapterFile.Open(full, options.Read.Layout);
            List<LoKrAdapterFinding> findings = [.. Check(file, options.Read)];
            if (!HasError(findings) && options.Values)
            {
                findings.AddRange(CheckValues(file));
            }

            if (!HasError(findings) && (options.Model is not null || options.BasePath is not null))
            {
                CheckBase(file, options, findings);
            }

            return new()
            {
                Path = file.Path,
                IsValid = !HasError(findings),
                Layout = file.Layout,
                ModuleCount = file.Modules.Count,
                Findings = [.. findings.OrderByDescending(static finding => finding.Severity)],
            };
        }
        catch (LoKrException exception) when (exception.Kind is not (LoKrErrorKind.InputOutput or LoKrErrorKind.Unavailable))
        {
            return new() { Path = full, IsValid = false, Findings = [Finding(exception, full)] };
        }
    }

    /// <summary>Everything that is wrong or worth knowing, errors first.</summary>
    /// <param name="file">The file.</param>
    /// <param name="options">What the reader says where the file is silent.</param>
    public static IReadOnlyList<LoKrAdapterFinding> Check(AdapterFile file, AdapterReadOptions? options = null)
    {
        _ = Read(file, options ?? new(), out List<LoKrAdapterFinding> findings);
        return [.. findings.OrderByDescending(static finding => finding.Severity)];
    }

    /// <summary>Looks for numbers that are not finite in every tensor but the alphas; reads the whole file.</summary>
    public static IReadOnlyList<LoKrAdapterFinding> CheckValues(AdapterFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        List<LoKrAdapterFinding> findings = [];
        foreach (SafetensorsEntry entry in file.Modules.SelectMany(static module => module.Tensors)
            .Where(static pair => pair.Key != AdapterSuffixes.Alpha).Select(static pair => pair.Value)
            .Concat(file.SavedTensors.Values.Select(name => file.Entries[name])))
        {
            using torch.Tensor tensor = file.Tensors.Read(entry.Name);
            using torch.Tensor finite = tensor.isfinite();
            using torch.Tensor all = finite.all();
            if (!all.ToBoolean())
            {
                findings.Add(new(LoKrFindingSeverity.Error, ErrorIds.AdapterValueInvalid, $"'{entry.Name}' holds NaN or infinity. The training diverged, or the file was stored in too narrow a type.", entry.Name));
            }
        }

        return findings;
    }

    /// <summary>Modules with their geometry and scaling; norms are left out. Errors are among the findings.</summary>
    internal static List<(AdapterFileModule Module, FactorGeometry Geometry, ModuleScale Scale)> Read(AdapterFile file, AdapterReadOptions options, out List<LoKrAdapterFinding> findings)
    {
        ArgumentNullException.ThrowIfNull(file);
        findings = [.. file.Findings];
        List<(AdapterFileModule, FactorGeometry, ModuleScale)> modules = [];
        int ignored = 0;
        foreach (AdapterFileModule module in file.Modules)
        {
            if (module.IsNorm)
            {
                CheckNorm(module, findings);
            }
            else if (FactorGeometry.Read(module, findings) is FactorGeometry geometry)
            {
                modules.Add((module, geometry, ModuleScale.Of(file, module, geometry, options, findings)));
                ignored += module.Alpha is double alpha && !double.IsFinite(alpha) && geometry.Rank is null ? 1 : 0;
            }
        }

        if (ignored > 0)
        {
            findings.Add(new(LoKrFindingSeverity.Information, ErrorIds.AlphaInvalid, $"The alpha of {ignored} modules is not finite; it has no meaning, because both their factors are full.", file.WeightsPath));
        }

        return modules;
    }

    /// <summary>Throws the first error, with all of them in its message.</summary>
    /// <exception cref="LoKrException">With the id of the first error.</exception>
    internal static void ThrowIfInvalid(AdapterFile file, IReadOnlyList<LoKrAdapterFinding> findings)
    {
        LoKrAdapterFinding[] errors = [.. findings.Where(static finding => finding.Severity == LoKrFindingSeverity.Error)];
        if (errors.Length > 0)
        {
            const int Most = 20;
            string more = errors.Length > Most ? $"{Environment.NewLine}… and {errors.Length - Most} more." : "";
            throw new LoKrException(
                errors[0].ErrorId,
                LoKrErrorKind.InvalidData,
                errors.Length == 1 ? $"'{file.Path}': {errors[0].Message}"
                    : $"'{file.Path}' has {errors.Length} errors:{string.Concat(errors.Take(Most).Select(static error => Environment.NewLine + "- " + error.Message))}{more}")
            { Target = errors[0].Target };
        }
    }

    private static void CheckBase(AdapterFile file, AdapterCheckOptions options, List<LoKrAdapterFinding> findings)
    {
        ModuleNameIndex index = options.Model is not null ? ModuleNameIndex.FromModule(options.Model.Module, options.Model.Name) : BaseModelNames.Read(Path.GetFullPath(options.BasePath!));
        try
        {
            using DisposeScope scope = torch.NewDisposeScope();
            AdapterContentReader.Read(file, options.Read, index);
        }
        catch (LoKrException exception)
        {
            findings.Add(Finding(exception, file.Path));
        }
    }

    private static LoKrAdapterFinding Finding(LoKrException exception, string path) =>
        new(LoKrFindingSeverity.Error, exception.ErrorId, exception.Message, exception.Target?.ToString() ?? path);

    private static bool HasError(List<LoKrAdapterFinding> findings) => findings.Exists(static finding => finding.Severity == LoKrFindingSeverity.Error);

    private static void CheckNorm(AdapterFileModule module, List<LoKrAdapterFinding> findings)
    {
        if (module.Tensors.Keys.FirstOrDefault(static suffix => !AdapterSuffixes.Norms.Contains(suffix) && suffix != AdapterSuffixes.Alpha) is string other)
        {
            findings.Add(new(LoKrFindingSeverity.Error, ErrorIds.AdapterKeysMismatch, $"'{module}' has changes of a norm and {other} too. Get the file again, or ask whoever made it.", module.Name));
        }

        SafetensorsEntry[] norms = [.. module.Tensors.Where(static pair => AdapterSuffixes.Norms.Contains(pair.Key)).Select(static pair => pair.Value)];
        if (norms.FirstOrDefault(entry => entry.Shape.Count != 1 || entry.Shape[0] != norms[0].Shape[0]) is SafetensorsEntry wrong)
        {
            findings.Add(new(LoKrFindingSeverity.Error, ErrorIds.AdapterShapeMismatch, $"'{wrong.Name}' is [{string.Join(", ", wrong.Shape)}]; the changes of a norm are lists of one length.", module.Name));
        }
    }
}

/// <summary>How thoroughly a file is checked.</summary>
public sealed record AdapterCheckOptions
{
    /// <summary>What the caller says where the file is silent or misleads.</summary>
    public AdapterReadOptions Read { get; init; } = new();

    /// <summary>Read every tensor and look for NaN and infinity.</summary>
    public bool Values { get; init; }

    /// <summary>A model that the file has to fit; it is not changed.</summary>
    public LoKrModel? Model { get; init; }

    /// <summary>Folder or file of a base model that the file has to fit, by its headers.</summary>
    public string? BasePath { get; init; }
}

/// <summary>What <c>Test-LoKrAdapter</c> found in one file. Flat and serializable.</summary>
public sealed record LoKrAdapterCheck
{
    /// <summary>Full path of the file or folder.</summary>
    public required string Path { get; init; }

    /// <summary>Whether there is no error among the findings.</summary>
    public required bool IsValid { get; init; }

    /// <summary>Layout of the file; null where it cannot be read at all.</summary>
    public AdapterLayout? Layout { get; init; }

    /// <summary>Number of modules.</summary>
    public int ModuleCount { get; init; }

    /// <summary>What was found, errors first.</summary>
    public required IReadOnlyList<LoKrAdapterFinding> Findings { get; init; }

    /// <summary>Number of errors.</summary>
    public int ErrorCount => Findings.Count(static finding => finding.Severity == LoKrFindingSeverity.Error);

    /// <summary>Number of warnings.</summary>
    public int WarningCount => Findings.Count(static finding => finding.Severity == LoKrFindingSeverity.Warning);

    /// <inheritdoc/>
    public override string ToString() => $"{Path}: {(IsValid ? "valid" : $"{ErrorCount} errors")}";
}

/// <summary>One thing that was found in an adapter file. Flat and serializable.</summary>
/// <param name="Severity">How serious it is.</param>
/// <param name="ErrorId">Stable id from <see cref="ErrorIds"/>.</param>
/// <param name="Message">What it is, and what to do.</param>
/// <param name="Target">Module, tensor or file that it is about.</param>
public sealed record LoKrAdapterFinding(LoKrFindingSeverity Severity, string ErrorId, string Message, string Target)
{
    /// <inheritdoc/>
    public override string ToString() => $"{Severity}: {Message}";
}

/// <summary>How serious a finding about a file is.</summary>
public enum LoKrFindingSeverity
{
    /// <summary>Worth knowing; nothing is wrong.</summary>
    Information,

    /// <summary>The file can be used, but programs may disagree about it.</summary>
    Warning,

    /// <summary>The file cannot be used as it is.</summary>
    Error,
}
