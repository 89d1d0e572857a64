using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Checks the names, shapes and scales of an adapter file by its header and alphas; on request also values, and the base model.</summary>
public static class AdapterValidator
{
    /// <summary>Checks a file of any content; that it cannot be parsed is a finding, not an exception.</summary>
    /// <param name="path">Safetensors file or adapter folder; it must exist.</param>
    /// <param name="options">How thoroughly.</param>
    public static LoKrAdapterCheck Check(string path, AdapterCheckOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        string full = Path.GetFullPath(path);
        try
        {
            using AdapterFile file = AdapterFile.Open(full, options.Read.Layout);

            // Other kinds alone are merged into files and converted, and never loaded onto a model in memory.
            bool isAlone = file is { Modules.Count: 0, Foreign.Count: > 0 } && options.Model is null;
            AdapterReadOptions read = isAlone || (options.Program is AdapterProgram target && ProgramForm.Of(target).ReadsOtherKinds) ? options.Read with { Foreign = ForeignTensors.Carry } : options.Read;
            AdapterReading reading = AdapterReading.Of(file, read);
            List<LoKrAdapterFinding> findings = [.. reading.Findings];
            if (read.Foreign == ForeignTensors.Carry)
            {
                IReadOnlyList<OtherModule> others = OtherModule.Of(file, read);
                findings.AddRange(OtherModule.Findings(options.Program is null ? others : [.. others.Where(static other => other.Kind.Unsupported is null)], skips: false));
            }

            if (isAlone && options.Program is null && !HasError(findings))
            {
                findings.Add(new(LoKrFindingSeverity.Information, ErrorIds.AdapterTypeNotSupported,
                    $"The file has {string.Join(", ", file.Foreign.Select(static tensor => tensor.Kind).Distinct())} and no LoKr factors: it can be described, merged into a model, and converted for programs that read it.", file.WeightsPath));
            }

            ModuleNameIndex? index = null;
            if (!HasError(findings) && options.Program is AdapterProgram program)
            {
                index = BaseModelNames.Find(options.Model, options.BasePath);
                findings.AddRange(ProgramCheck.Check(reading, program, index?.Model));
            }

            if (!HasError(findings) && options.Values)
            {
                CheckValues(file, findings);
            }

            if (!HasError(findings) && (index ?? BaseModelNames.Find(options.Model, options.BasePath)) is ModuleNameIndex known)
            {
                CheckBase(file, read, known, findings);
            }

            return new()
            {
                Path = file.Path,
                IsValid = !HasError(findings),
                Layout = file.Layout,
                ModuleCount = file.Modules.Select(static module => (module.Component, module.Name)).Concat(file.Foreign.Select(static tensor => (tensor.Component, tensor.Module))).Distinct().Count(),
                Findings = [.. findings.OrderByDescending(static finding => finding.Severity)],
            };
        }
        catch (LoKrException exception) when (exception.Kind is not (LoKrErrorKind.InputOutput or LoKrErrorKind.Unavailable))
        {
            return new() { Path = full, IsValid = false, Findings = [Finding(exception, full)] };
        }
    }

    // Alphas are left out: an infinite one may have no meaning.
    private static void CheckValues(AdapterFile file, List<LoKrAdapterFinding> findings)
    {
        foreach (SafetensorsEntry entry in file.Modules.SelectMany(static module => module.Tensors)
            .Where(static pair => pair.Key != AdapterSuffixes.Alpha).Select(static pair => pair.Value)
            .Concat(file.Foreign.Where(static tensor => tensor.Suffix != AdapterSuffixes.Alpha).Select(static tensor => tensor.Entry))
            .Concat(file.SavedTensors.Values.Select(name => file.Entries[name])))
        {
            using torch.Tensor tensor = file.Tensors.Read(entry.Name);
            using torch.Tensor finite = tensor.isfinite();
            using torch.Tensor all = finite.all();
            if (!all.ToBoolean())
            {
                findings.Add(new(LoKrFindingSeverity.Error, ErrorIds.AdapterValueInvalid, $"'{entry.Name}' contains NaN or infinity. The training diverged, or the file was stored in too narrow a type.", entry.Name));
            }
        }
    }

    private static void CheckBase(AdapterFile file, AdapterReadOptions options, ModuleNameIndex index, List<LoKrAdapterFinding> findings)
    {
        try
        {
            using DisposeScope scope = torch.NewDisposeScope();
            AdapterContentReader.Read(file, options, index);
        }
        catch (LoKrException exception)
        {
            findings.Add(Finding(exception, file.Path));
        }
    }

    private static LoKrAdapterFinding Finding(LoKrException exception, string path) =>
        new(LoKrFindingSeverity.Error, exception.ErrorId, exception.Message, exception.Target?.ToString() ?? path);

    private static bool HasError(List<LoKrAdapterFinding> findings) => findings.Exists(static finding => finding.Severity == LoKrFindingSeverity.Error);
}

/// <summary>How thoroughly a file is checked.</summary>
public sealed record AdapterCheckOptions
{
    /// <summary>Overrides for what the file does not say, or says wrongly.</summary>
    public AdapterReadOptions Read { get; init; } = new();

    /// <summary>A program: what it will not load of the file, or scale otherwise, is found too. Null for none.</summary>
    public AdapterProgram? Program { get; init; }

    /// <summary>Read every tensor and look for NaN and infinity.</summary>
    public bool Values { get; init; }

    /// <summary>A model that the file must fit; it is not changed.</summary>
    public LoKrModel? Model { get; init; }

    /// <summary>Folder or file of a base model that the file must fit; only its headers are read.</summary>
    public string? BasePath { get; init; }
}

/// <summary>The result of checking one adapter file. Flat and serializable.</summary>
public sealed record LoKrAdapterCheck
{
    /// <summary>Full path of the file or folder.</summary>
    public required string Path { get; init; }

    /// <summary>Whether there is no error among the findings.</summary>
    public required bool IsValid { get; init; }

    /// <summary>Layout of the file; null where it could not be read.</summary>
    public AdapterLayout? Layout { get; init; }

    /// <summary>Number of modules.</summary>
    public int ModuleCount { get; init; }

    /// <summary>Errors, warnings and notes, in this order.</summary>
    public required IReadOnlyList<LoKrAdapterFinding> Findings { get; init => field = ValueList.Of(value); }

    /// <summary>Number of errors.</summary>
    public int ErrorCount => Findings.Count(static finding => finding.Severity == LoKrFindingSeverity.Error);

    /// <summary>Number of warnings.</summary>
    public int WarningCount => Findings.Count(static finding => finding.Severity == LoKrFindingSeverity.Warning);

    /// <inheritdoc/>
    public override string ToString() => $"{Path}: {(IsValid ? "valid" : $"{ErrorCount} errors")}";
}

/// <summary>A problem of an adapter file, or a note about it. Flat and serializable.</summary>
/// <param name="Severity">How serious it is.</param>
/// <param name="ErrorId">Stable id from <see cref="ErrorIds"/>.</param>
/// <param name="Message">Description and advice.</param>
/// <param name="Target">Module, tensor or file concerned.</param>
public sealed record LoKrAdapterFinding(LoKrFindingSeverity Severity, string ErrorId, string Message, string Target)
{
    /// <inheritdoc/>
    public override string ToString() => $"{Severity}: {Message}";
}

/// <summary>Severity of a finding about a file.</summary>
public enum LoKrFindingSeverity
{
    /// <summary>A note; nothing is wrong.</summary>
    Information,

    /// <summary>The file can be used, but programs may disagree about it.</summary>
    Warning,

    /// <summary>The file cannot be used as it is.</summary>
    Error,
}
