using System.Collections.Frozen;
using TorchSharp;

namespace LoKr.Core.Safetensors;

/// <summary>Element types of a safetensors file, named as in its header (F8E4M3 is written F8_E4M3).</summary>
public enum SafetensorsDType
{
    /// <summary>Boolean, one byte.</summary>
    BOOL,

    /// <summary>Unsigned 8-bit integer.</summary>
    U8,

    /// <summary>Signed 8-bit integer.</summary>
    I8,

    /// <summary>8-bit float, 4 exponent and 3 mantissa bits, no infinities.</summary>
    F8E4M3,

    /// <summary>8-bit float, 5 exponent and 2 mantissa bits.</summary>
    F8E5M2,

    /// <summary>Unsigned 16-bit integer.</summary>
    U16,

    /// <summary>Signed 16-bit integer.</summary>
    I16,

    /// <summary>IEEE half precision.</summary>
    F16,

    /// <summary>Brain float.</summary>
    BF16,

    /// <summary>Unsigned 32-bit integer.</summary>
    U32,

    /// <summary>Signed 32-bit integer.</summary>
    I32,

    /// <summary>Single precision.</summary>
    F32,

    /// <summary>Unsigned 64-bit integer.</summary>
    U64,

    /// <summary>Signed 64-bit integer.</summary>
    I64,

    /// <summary>Double precision.</summary>
    F64,
}

/// <summary>Names, sizes, order and torch types of the element types of safetensors.</summary>
internal static class SafetensorsDTypes
{
    private static readonly Info[] s_all =
    [
        new(SafetensorsDType.BOOL, "BOOL", 1, 0, torch.ScalarType.Bool, torch.ScalarType.Bool),
        new(SafetensorsDType.U8, "U8", 1, 1, torch.ScalarType.Byte, torch.ScalarType.Byte),
        new(SafetensorsDType.I8, "I8", 1, 2, torch.ScalarType.Int8, torch.ScalarType.Int8),
        new(SafetensorsDType.F8E5M2, "F8_E5M2", 1, 3, torch.ScalarType.Float32, null),
        new(SafetensorsDType.F8E4M3, "F8_E4M3", 1, 4, torch.ScalarType.Float32, null),
        new(SafetensorsDType.I16, "I16", 2, 5, torch.ScalarType.Int16, torch.ScalarType.Int16),
        new(SafetensorsDType.U16, "U16", 2, 6, torch.ScalarType.Int32, null),
        new(SafetensorsDType.F16, "F16", 2, 7, torch.ScalarType.Float16, torch.ScalarType.Float16),
        new(SafetensorsDType.BF16, "BF16", 2, 8, torch.ScalarType.BFloat16, torch.ScalarType.BFloat16),
        new(SafetensorsDType.I32, "I32", 4, 9, torch.ScalarType.Int32, torch.ScalarType.Int32),
        new(SafetensorsDType.U32, "U32", 4, 10, torch.ScalarType.Int64, null),
        new(SafetensorsDType.F32, "F32", 4, 11, torch.ScalarType.Float32, torch.ScalarType.Float32),
        new(SafetensorsDType.F64, "F64", 8, 12, torch.ScalarType.Float64, torch.ScalarType.Float64),
        new(SafetensorsDType.I64, "I64", 8, 13, torch.ScalarType.Int64, torch.ScalarType.Int64),
        new(SafetensorsDType.U64, "U64", 8, 14, torch.ScalarType.Int64, null),
    ];

    private static readonly FrozenDictionary<string, SafetensorsDType> s_byName = s_all.ToFrozenDictionary(info => info.Name, info => info.DType, StringComparer.Ordinal);
    private static readonly FrozenDictionary<SafetensorsDType, Info> s_byType = s_all.ToFrozenDictionary(info => info.DType);
    private static readonly FrozenDictionary<torch.ScalarType, SafetensorsDType> s_byScalar = s_all.Where(info => info.Stored is not null).ToFrozenDictionary(info => info.Stored!.Value, info => info.DType);

    /// <summary>Every name of the format that this library reads.</summary>
    public static IEnumerable<string> Names => s_all.Select(info => info.Name);

    /// <summary>The type of a header name.</summary>
    public static bool TryParse(string name, out SafetensorsDType dtype) => s_byName.TryGetValue(name, out dtype);

    /// <summary>Name in a header.</summary>
    public static string Name(SafetensorsDType dtype) => s_byType[dtype].Name;

    /// <summary>Bytes of one element.</summary>
    public static int Size(SafetensorsDType dtype) => s_byType[dtype].Size;

    /// <summary>Place in the order in which the reference implementation writes tensors, largest alignment last.</summary>
    public static int Rank(SafetensorsDType dtype) => s_byType[dtype].Rank;

    /// <summary>The torch type that holds every value: the same one, or a wider one where TorchSharp lacks it.</summary>
    public static torch.ScalarType Natural(SafetensorsDType dtype) => s_byType[dtype].Natural;

    /// <summary>Whether the bytes of the file are those of the natural torch type.</summary>
    public static bool IsSameLayout(SafetensorsDType dtype) => s_byType[dtype].Stored is not null;

    /// <summary>The type in which a torch tensor is stored.</summary>
    public static bool TryFromTorch(torch.ScalarType type, out SafetensorsDType dtype) => s_byScalar.TryGetValue(type, out dtype);

    /// <summary>
    /// Whether a conversion keeps the meaning of the values: between floating types, or from an integer type to one that holds all its values.
    /// Integers that become floats are refused: they are quantized weights or ids, which a cast would turn into wrong numbers silently.
    /// </summary>
    public static bool CanConvert(torch.ScalarType from, torch.ScalarType to) => from == to || (IsFloat(from), IsFloat(to)) switch
    {
        (true, true) => true,
        (false, false) => Width(to) > Width(from),
        _ => false,
    };

    /// <summary>Whether the values are floating-point numbers.</summary>
    public static bool IsFloatingPoint(SafetensorsDType dtype) => IsFloat(Natural(dtype));

    private static bool IsFloat(torch.ScalarType type) =>
        type is torch.ScalarType.Float16 or torch.ScalarType.BFloat16 or torch.ScalarType.Float32 or torch.ScalarType.Float64;

    private static int Width(torch.ScalarType type) => type switch
    {
        torch.ScalarType.Bool => 1,
        torch.ScalarType.Byte or torch.ScalarType.Int8 => 8,
        torch.ScalarType.Int16 => 16,
        torch.ScalarType.Int32 => 32,
        torch.ScalarType.Int64 => 64,
        _ => 0,
    };

    private sealed record Info(SafetensorsDType DType, string Name, int Size, int Rank, torch.ScalarType Natural, torch.ScalarType? Stored);
}
