namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>One thing that was found in an adapter file. Flat and serialisable.</summary>
/// <param name="Severity">How serious it is.</param>
/// <param name="ErrorId">Stable id from <see cref="ErrorIds"/>.</param>
/// <param name="Message">What it is, and what to do.</param>
/// <param name="Target">Module, tensor or file that it is about.</param>
public sealed record LoKrAdapterFinding(LoKrFindingSeverity Severity, string ErrorId, string Message, string Target)
{
    /// <inheritdoc/>
    public override string ToString() => $"{Severity}: {Message}";
}
