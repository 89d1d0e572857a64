namespace LoKr.Core.Formats.AdapterFiles;

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
