namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>What <c>Test-LoKrAdapter</c> found in one file. Flat and serialisable.</summary>
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
