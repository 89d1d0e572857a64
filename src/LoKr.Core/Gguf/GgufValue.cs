using System.Globalization;

namespace LoKr.Core.Gguf;

/// <summary>Types of metadata values, with the numbers that a file stores.</summary>
public enum GgufValueType
{
    /// <summary>Unsigned 8-bit integer.</summary>
    UInt8,

    /// <summary>Signed 8-bit integer.</summary>
    Int8,

    /// <summary>Unsigned 16-bit integer.</summary>
    UInt16,

    /// <summary>Signed 16-bit integer.</summary>
    Int16,

    /// <summary>Unsigned 32-bit integer.</summary>
    UInt32,

    /// <summary>Signed 32-bit integer.</summary>
    Int32,

    /// <summary>Single precision.</summary>
    Float32,

    /// <summary>A byte, 0 or 1.</summary>
    Bool,

    /// <summary>UTF-8 text.</summary>
    String,

    /// <summary>A list of values of one type.</summary>
    Array,

    /// <summary>Unsigned 64-bit integer.</summary>
    UInt64,

    /// <summary>Signed 64-bit integer.</summary>
    Int64,

    /// <summary>Double precision.</summary>
    Float64,
}

/// <summary>One metadata value. Long lists, such as the tokens of a vocabulary, are checked but not kept.</summary>
/// <param name="Type">Its type.</param>
/// <param name="Scalar">A number, a Boolean or a string; null for a list.</param>
public sealed record GgufValue(GgufValueType Type, object? Scalar)
{
    /// <summary>Type of the items of a list; null for other values.</summary>
    public GgufValueType? ItemType { get; init; }

    /// <summary>Number of items of a list; 0 for other values.</summary>
    public long Count { get; init; }

    /// <summary>Items of a list of at most 4,096 integers; null for other values.</summary>
    public IReadOnlyList<long>? Integers { get; init; }

    /// <inheritdoc/>
    public override string ToString() => ItemType is { } item ? $"{item}[{Count}]" : Convert.ToString(Scalar, CultureInfo.InvariantCulture) ?? "";
}
