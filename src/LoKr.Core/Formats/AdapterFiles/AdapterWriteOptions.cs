namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>How an adapter is written.</summary>
public sealed record AdapterWriteOptions
{
    /// <summary>Part of the pipeline that the adapter is for, where neither its file nor the names of its modules say it.</summary>
    public AdapterComponent? Component { get; init; }

    /// <summary>Replace what is at the destination.</summary>
    public bool Force { get; init; }
}
