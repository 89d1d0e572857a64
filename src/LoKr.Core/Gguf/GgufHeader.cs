using LoKr.Core.Errors;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.Gguf;

/// <summary>
/// The header of a GGUF file: counts, metadata, the table of tensors. Everything is checked against the length of the file before it is
/// used, and the layout is the one that llama.cpp demands: tensors in the order of the table, each padded to the alignment.
/// </summary>
/// <param name="Version">Version of the format, 2 or 3.</param>
/// <param name="Metadata">Metadata in the order of the file.</param>
/// <param name="Tensors">Tensors in the order of the file.</param>
/// <param name="Alignment">Alignment of tensors in bytes.</param>
/// <param name="TableOffset">Position of the table of tensors, behind the metadata.</param>
/// <param name="DataOffset">Position of the first tensor.</param>
internal sealed record GgufHeader(int Version, IReadOnlyDictionary<string, GgufValue> Metadata, IReadOnlyList<GgufTensor> Tensors, int Alignment, long TableOffset, long DataOffset)
{
    /// <summary>Bytes of the magic, the version and the two counts.</summary>
    public const int FixedBytes = 24;

    /// <summary>Key of the alignment.</summary>
    public const string AlignmentKey = "general.alignment";

    /// <summary>Alignment of a file that does not name one.</summary>
    public const int DefaultAlignment = 32;

    /// <summary>The first four bytes of every file.</summary>
    public static ReadOnlySpan<byte> Magic => "GGUF"u8;

    /// <summary>Reads and checks the header of an open file.</summary>
    /// <exception cref="LoKrException"><c>LoKr.GgufTruncated</c>, <c>LoKr.GgufHeaderInvalid</c>, <c>LoKr.GgufTypeUnsupported</c>.</exception>
    public static GgufHeader Read(SafeFileHandle handle, string path) => new GgufHeaderParser(handle, path).Parse();

    /// <summary>The next multiple of an alignment.</summary>
    public static long Align(long position, int alignment) => checked(position + alignment - 1) / alignment * alignment;

    /// <summary>An error that names the file.</summary>
    public static LoKrException Error(string path, string id, string what) => new(
        id,
        id is ErrorIds.GgufTypeUnsupported ? LoKrErrorKind.NotSupported : LoKrErrorKind.InvalidData,
        $"'{path}' is not a GGUF file that can be used: {what}",
        id switch
        {
            ErrorIds.GgufTruncated => "The download or copy is incomplete; get the file again.",
            ErrorIds.GgufTypeUnsupported => "Use a file of another quantization of the same model.",
            _ => "Get the file again, or convert the model again with a current llama.cpp.",
        })
    {
        Target = path,
    };
}
