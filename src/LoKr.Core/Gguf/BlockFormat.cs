using System.Collections.Frozen;
using LoKr.Core.Errors;

namespace LoKr.Core.Gguf;

/// <summary>Turns values into the blocks of an element type, and back.</summary>
/// <param name="source">Whole blocks, or values that fill them.</param>
/// <param name="destination">Values, or bytes of blocks.</param>
/// <typeparam name="TSource">Byte or float.</typeparam>
/// <typeparam name="TDestination">Float or byte.</typeparam>
internal delegate void BlockTransform<TSource, TDestination>(ReadOnlySpan<TSource> source, Span<TDestination> destination);

/// <summary>
/// How an element type stores numbers. Dequantizing is exact: every value has the bits that llama.cpp computes. Quantizing gives the bytes
/// of llama.cpp's quantizer without an importance matrix.
/// </summary>
/// <param name="Type">The element type.</param>
/// <param name="Dequantize">Blocks → values.</param>
/// <param name="Quantize">Values → blocks; null where the type can only be read.</param>
internal sealed record BlockFormat(GgmlType Type, BlockTransform<byte, float> Dequantize, BlockTransform<float, byte>? Quantize)
{
    private static readonly FrozenDictionary<GgmlType, BlockFormat> s_all = new BlockFormat[]
    {
        new(GgmlType.F32, FloatBlocks.CopyOut, FloatBlocks.CopyIn),
        new(GgmlType.F16, FloatBlocks.FromHalf, FloatBlocks.ToHalf),
        new(GgmlType.BF16, FloatBlocks.FromBrain, FloatBlocks.ToBrain),
        new(GgmlType.Q8_0, PlainBlocks.FromQ8, PlainBlocks.ToQ8),
        new(GgmlType.Q4_0, PlainBlocks.FromQ4, PlainBlocks.ToQ4),
        new(GgmlType.Q4_1, PlainBlocks.FromQ4WithMinimum, PlainBlocks.ToQ4WithMinimum),
        new(GgmlType.Q5_0, PlainBlocks.FromQ5, PlainBlocks.ToQ5),
        new(GgmlType.Q5_1, PlainBlocks.FromQ5WithMinimum, PlainBlocks.ToQ5WithMinimum),
        new(GgmlType.Q2_K, SuperBlocks.FromQ2, SuperBlockQuantizer.ToQ2),
        new(GgmlType.Q3_K, SuperBlocks.FromQ3, SuperBlockQuantizer.ToQ3),
        new(GgmlType.Q4_K, SuperBlocks.FromQ4, SuperBlockQuantizer.ToQ4),
        new(GgmlType.Q5_K, SuperBlocks.FromQ5, SuperBlockQuantizer.ToQ5),
        new(GgmlType.Q6_K, SuperBlocks.FromQ6, SuperBlockQuantizer.ToQ6),
        new(GgmlType.IQ4_NL, CodeBlocks.FromIQ4, CodeQuantizer.ToIQ4),
        new(GgmlType.IQ4_XS, CodeBlocks.FromIQ4Super, CodeQuantizer.ToIQ4Super),
        new(GgmlType.MXFP4, CodeBlocks.FromMxFp4, null),
        new(GgmlType.NVFP4, CodeBlocks.FromNvFp4, null),
        new(GgmlType.TQ1_0, CodeBlocks.FromTernary5, null),
        new(GgmlType.TQ2_0, CodeBlocks.FromTernary4, null),
        new(GgmlType.IQ1_S, LatticeBlocks.FromIQ1Small, null),
        new(GgmlType.IQ1_M, LatticeBlocks.FromIQ1, null),
        new(GgmlType.IQ2_XXS, LatticeBlocks.FromIQ2Smallest, null),
        new(GgmlType.IQ2_XS, LatticeBlocks.FromIQ2Small, null),
        new(GgmlType.IQ2_S, LatticeBlocks.FromIQ2, null),
        new(GgmlType.IQ3_XXS, LatticeBlocks.FromIQ3Smallest, null),
        new(GgmlType.IQ3_S, LatticeBlocks.FromIQ3, null),
    }.ToFrozenDictionary(static format => format.Type);

    /// <summary>Types that can be written.</summary>
    public static IEnumerable<GgmlType> Writable => s_all.Values.Where(static format => format.Quantize is not null).Select(static format => format.Type).Order();

    /// <summary>The block of the type.</summary>
    public BlockSize Size => GgmlTypes.Size(Type);

    /// <summary>The format of a type, or null for one whose values this library cannot read.</summary>
    public static BlockFormat? Of(GgmlType type) => s_all.GetValueOrDefault(type);

    /// <summary>The error for a tensor whose values cannot be read.</summary>
    public static LoKrException Unreadable(GgufTensor tensor, string path) =>
        GgufHeader.Error(path, ErrorIds.GgufTypeUnsupported, $"the values of tensor '{tensor.Name}' cannot be read, because it has type {tensor.Type}.");
}
