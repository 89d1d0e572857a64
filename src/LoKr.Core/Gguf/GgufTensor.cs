using LoKr.Core.Safetensors;

namespace LoKr.Core.Gguf;

/// <summary>One tensor of a GGUF file, as its table describes it.</summary>
/// <param name="Name">Its name, for example <c>blk.0.attn_q.weight</c>.</param>
/// <param name="Type">Element type.</param>
/// <param name="Shape">Dimensions as torch orders them: rows first. The file stores them in reverse.</param>
/// <param name="Offset">Position of its first byte in the file.</param>
/// <param name="ByteCount">Number of bytes, without padding.</param>
public sealed record GgufTensor(string Name, GgmlType Type, IReadOnlyList<long> Shape, long Offset, long ByteCount)
{
    /// <summary>Length of a row, the last dimension.</summary>
    public long RowLength => Shape[^1];

    /// <summary>Number of rows.</summary>
    public long RowCount => Shape.SkipLast(1).Product();

    /// <summary>Bytes of a row; blocks do not cross rows.</summary>
    internal long RowBytes => GgmlTypes.Size(Type).BytesOf(RowLength);
}
