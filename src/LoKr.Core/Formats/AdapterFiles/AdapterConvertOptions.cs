using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>How an adapter file becomes another.</summary>
public sealed record AdapterConvertOptions
{
    /// <summary>What the caller says where the file is silent or misleads. A component chooses among several, and names the only one.</summary>
    public AdapterReadOptions Read { get; init; } = new();

    /// <summary>Folder or safetensors file of the base model, whose headers tell names and shapes of its modules; null without one.</summary>
    public string? BasePath { get; init; }

    /// <summary>A model in place of <see cref="BasePath"/>.</summary>
    public LoKrModel? Model { get; init; }

    /// <summary>Replace what is at the destination.</summary>
    public bool Force { get; init; }
}
