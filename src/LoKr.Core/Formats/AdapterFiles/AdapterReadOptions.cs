using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>What a reader of an adapter file may say where the file says nothing, or says it wrongly.</summary>
public sealed record AdapterReadOptions
{
    /// <summary>The layout, where names mislead; null to go by the names.</summary>
    public AdapterLayout? Layout { get; init; }

    /// <summary>Alpha of every module, in place of what the file says.</summary>
    public double? Alpha { get; init; }

    /// <summary>Scaling convention, in place of the one of the file's origin.</summary>
    public ScalingConvention? Scaling { get; init; }

    /// <summary>Only the modules of this component; null for all of them.</summary>
    public AdapterComponent? Component { get; init; }
}
