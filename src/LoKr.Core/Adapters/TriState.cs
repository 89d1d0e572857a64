namespace LoKr.Core.Adapters;

/// <summary>A yes or no over many parameters or layers, which may disagree.</summary>
public enum TriState
{
    /// <summary>None of them.</summary>
    False,

    /// <summary>All of them.</summary>
    True,

    /// <summary>Some of them and others not: nothing that the library does by itself (PEFT <c>"irregular"</c>).</summary>
    Irregular,
}
