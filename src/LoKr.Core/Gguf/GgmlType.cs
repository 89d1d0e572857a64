using System.Collections.Frozen;
using System.Diagnostics.CodeAnalysis;

namespace LoKr.Core.Gguf;

/// <summary>Element types of a GGUF file, with the numbers that its tensor table stores. Types of blocks are named as llama.cpp names them.</summary>
[SuppressMessage("Naming", "CA1707:Identifiers should not contain underscores", Justification = "The names are those of the format.")]
public enum GgmlType
{
    /// <summary>Single precision.</summary>
    F32 = 0,

    /// <summary>IEEE half precision.</summary>
    F16 = 1,

    /// <summary>Blocks of 32 with 4 bits each and a scale.</summary>
    Q4_0 = 2,

    /// <summary>Blocks of 32 with 4 bits each, a scale and a minimum.</summary>
    Q4_1 = 3,

    /// <summary>Blocks of 32 with 5 bits each and a scale.</summary>
    Q5_0 = 6,

    /// <summary>Blocks of 32 with 5 bits each, a scale and a minimum.</summary>
    Q5_1 = 7,

    /// <summary>Blocks of 32 with 8 bits each and a scale.</summary>
    Q8_0 = 8,

    /// <summary>The form of activations beside Q4_1 and Q5_1; not stored in files of models.</summary>
    Q8_1 = 9,

    /// <summary>Blocks of 256 with 2 bits each; scales and minimums of 4 bits.</summary>
    Q2_K = 10,

    /// <summary>Blocks of 256 with 3 bits each; scales of 6 bits.</summary>
    Q3_K = 11,

    /// <summary>Blocks of 256 with 4 bits each; scales and minimums of 6 bits.</summary>
    Q4_K = 12,

    /// <summary>Blocks of 256 with 5 bits each; scales and minimums of 6 bits.</summary>
    Q5_K = 13,

    /// <summary>Blocks of 256 with 6 bits each; scales of 8 bits.</summary>
    Q6_K = 14,

    /// <summary>The form of activations beside K types; not stored in files of models.</summary>
    Q8_K = 15,

    /// <summary>Blocks of 256 with 2.06 bits each, by a table of lattice points.</summary>
    IQ2_XXS = 16,

    /// <summary>Blocks of 256 with 2.31 bits each, by a table of lattice points.</summary>
    IQ2_XS = 17,

    /// <summary>Blocks of 256 with 3.06 bits each, by a table of lattice points.</summary>
    IQ3_XXS = 18,

    /// <summary>Blocks of 256 with 1.56 bits each, by a table of lattice points.</summary>
    IQ1_S = 19,

    /// <summary>Blocks of 32 with 4 bits each that are indexes of 16 uneven steps.</summary>
    IQ4_NL = 20,

    /// <summary>Blocks of 256 with 3.44 bits each, by a table of lattice points.</summary>
    IQ3_S = 21,

    /// <summary>Blocks of 256 with 2.56 bits each, by a table of lattice points.</summary>
    IQ2_S = 22,

    /// <summary>Blocks of 256 with 4 bits each that are indexes of 16 uneven steps; scales of 6 bits.</summary>
    IQ4_XS = 23,

    /// <summary>Signed 8-bit integer.</summary>
    I8 = 24,

    /// <summary>Signed 16-bit integer.</summary>
    I16 = 25,

    /// <summary>Signed 32-bit integer.</summary>
    I32 = 26,

    /// <summary>Signed 64-bit integer.</summary>
    I64 = 27,

    /// <summary>Double precision.</summary>
    F64 = 28,

    /// <summary>Blocks of 256 with 1.75 bits each, by a table of lattice points.</summary>
    IQ1_M = 29,

    /// <summary>Brain float.</summary>
    BF16 = 30,

    /// <summary>Blocks of 256 with values −1, 0 and 1, five in a byte.</summary>
    TQ1_0 = 34,

    /// <summary>Blocks of 256 with values −1, 0 and 1, four in a byte.</summary>
    TQ2_0 = 35,

    /// <summary>OCP's MXFP4: blocks of 32 floats of 4 bits with a power of two as scale.</summary>
    MXFP4 = 39,

    /// <summary>NVIDIA's FP4: blocks of 64 floats of 4 bits with four scales of 8 bits.</summary>
    NVFP4 = 40,
}

/// <summary>A block: how many values it has and how many bytes.</summary>
/// <param name="Values">Values in a block.</param>
/// <param name="Bytes">Bytes of a block.</param>
internal readonly record struct BlockSize(int Values, int Bytes)
{
    /// <summary>Bytes of a number of values that fills whole blocks.</summary>
    public long BytesOf(long values) => checked(values / Values * Bytes);
}

/// <summary>Sizes of the element types.</summary>
internal static class GgmlTypes
{
    private static readonly FrozenDictionary<GgmlType, BlockSize> s_sizes = new Dictionary<GgmlType, BlockSize>
    {
        [GgmlType.F32] = new(1, 4),
        [GgmlType.F16] = new(1, 2),
        [GgmlType.BF16] = new(1, 2),
        [GgmlType.F64] = new(1, 8),
        [GgmlType.I8] = new(1, 1),
        [GgmlType.I16] = new(1, 2),
        [GgmlType.I32] = new(1, 4),
        [GgmlType.I64] = new(1, 8),
        [GgmlType.Q4_0] = new(32, 18),
        [GgmlType.Q4_1] = new(32, 20),
        [GgmlType.Q5_0] = new(32, 22),
        [GgmlType.Q5_1] = new(32, 24),
        [GgmlType.Q8_0] = new(32, 34),
        [GgmlType.Q8_1] = new(32, 36),
        [GgmlType.Q2_K] = new(256, 84),
        [GgmlType.Q3_K] = new(256, 110),
        [GgmlType.Q4_K] = new(256, 144),
        [GgmlType.Q5_K] = new(256, 176),
        [GgmlType.Q6_K] = new(256, 210),
        [GgmlType.Q8_K] = new(256, 292),
        [GgmlType.IQ2_XXS] = new(256, 66),
        [GgmlType.IQ2_XS] = new(256, 74),
        [GgmlType.IQ2_S] = new(256, 82),
        [GgmlType.IQ3_XXS] = new(256, 98),
        [GgmlType.IQ3_S] = new(256, 110),
        [GgmlType.IQ1_S] = new(256, 50),
        [GgmlType.IQ1_M] = new(256, 56),
        [GgmlType.IQ4_NL] = new(32, 18),
        [GgmlType.IQ4_XS] = new(256, 136),
        [GgmlType.TQ1_0] = new(256, 54),
        [GgmlType.TQ2_0] = new(256, 66),
        [GgmlType.MXFP4] = new(32, 17),
        [GgmlType.NVFP4] = new(64, 36),
    }.ToFrozenDictionary();

    /// <summary>Whether a number in a tensor table is a type that this library knows the size of.</summary>
    public static bool IsKnown(GgmlType type) => s_sizes.ContainsKey(type);

    /// <summary>The block of a type.</summary>
    public static BlockSize Size(GgmlType type) => s_sizes[type];
}
