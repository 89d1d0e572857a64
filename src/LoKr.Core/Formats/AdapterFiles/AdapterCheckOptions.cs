using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

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
