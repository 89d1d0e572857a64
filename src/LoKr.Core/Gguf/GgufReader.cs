using System.Globalization;
using System.Runtime.InteropServices;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using Microsoft.Win32.SafeHandles;
using TorchSharp;

namespace LoKr.Core.Gguf;

/// <summary>
/// Reads one GGUF file, as llama.cpp writes them: the header at once, tensors on demand. Holds one handle; the file can be read by others
/// meanwhile. Tensors may be read from several threads.
/// </summary>
public sealed class GgufReader : IDisposable
{
    /// <summary>Extension of these files.</summary>
    public const string Extension = ".gguf";

    private readonly SafeFileHandle _handle;
    private readonly GgufHeader _header;
    private readonly Dictionary<string, GgufTensor> _byName;

    private GgufReader(string path, SafeFileHandle handle, GgufHeader header)
    {
        FilePath = path;
        _handle = handle;
        _header = header;
        _byName = header.Tensors.ToDictionary(static tensor => tensor.Name, StringComparer.Ordinal);
        Length = RandomAccess.GetLength(handle);
    }

    /// <summary>Full path of the file.</summary>
    public string FilePath { get; }

    /// <summary>Bytes of the file.</summary>
    public long Length { get; }

    /// <summary>Metadata in the order of the file.</summary>
    public IReadOnlyDictionary<string, GgufValue> Metadata => _header.Metadata;

    /// <summary>Tensors in the order of the file.</summary>
    public IReadOnlyList<GgufTensor> Tensors => _header.Tensors;

    /// <summary>The positions in the file.</summary>
    internal GgufHeader Header => _header;

    /// <summary>Whether a path names a GGUF file, by its extension.</summary>
    public static bool IsGguf(string path) => Extension.Equals(Path.GetExtension(path), StringComparison.OrdinalIgnoreCase);

    /// <summary>Opens a file and checks its header completely.</summary>
    /// <exception cref="LoKrException">
    /// <c>LoKr.PathNotFound</c>, <c>LoKr.FileNotReadable</c>, <c>LoKr.GgufTruncated</c>, <c>LoKr.GgufHeaderInvalid</c>, <c>LoKr.GgufTypeUnsupported</c>.
    /// </exception>
    public static GgufReader Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string full = Path.GetFullPath(path);
        FileSystem.CheckRegular(full);
        return FileSystem.OpenParts(full, handle => new GgufReader(full, handle, GgufHeader.Read(handle, full)));
    }

    /// <summary>The tensor of a name, or null.</summary>
    public GgufTensor? Find(string name) => _byName.GetValueOrDefault(name);

    /// <summary>The text of a metadata key; null where it is missing or is not text.</summary>
    public string? FindText(string key) => Metadata.GetValueOrDefault(key)?.Scalar as string;

    /// <summary>The number of a metadata key; null where it is missing, is not an integer or is beyond 64 bits with a sign.</summary>
    public long? FindInteger(string key) => Metadata.GetValueOrDefault(key)?.Scalar switch
    {
        ulong large => large <= long.MaxValue ? (long)large : null,
        bool or string or float or double or null => null,
        IConvertible number => number.ToInt64(CultureInfo.InvariantCulture),
        _ => null,
    };

    /// <summary>Reads a tensor, dequantized, float32 of its shape on the CPU.</summary>
    /// <exception cref="LoKrException"><c>LoKr.TensorNotFound</c>, <c>LoKr.GgufTypeUnsupported</c>, <c>LoKr.GgufTruncated</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public torch.Tensor Read(string name)
    {
        GgufTensor tensor = Find(name) ?? throw TensorErrors.NotFound(name, FilePath, _byName.Keys);
        BlockFormat format = BlockFormat.Of(tensor.Type) ?? throw BlockFormat.Unreadable(tensor, FilePath);
        TorchRuntime.EnsureLoaded();
        torch.Tensor result = torch.empty([.. tensor.Shape], torch.ScalarType.Float32);
        try
        {
            byte[] row = new byte[tensor.RowBytes];
            using torch.Tensor rows = result.view(-1, tensor.RowLength);
            for (long i = 0; i < tensor.RowCount; i++)
            {
                ReadBytes(tensor.Offset + (i * row.Length), row);
                using torch.Tensor target = rows[i];
                format.Dequantize(row, MemoryMarshal.Cast<byte, float>(target.bytes));
            }

            return result;
        }
        catch
        {
            result.Dispose();
            throw;
        }
    }

    /// <summary>Reads bytes of the file.</summary>
    /// <param name="position">Position of the first one.</param>
    /// <param name="destination">Where to put them; filled completely.</param>
    internal void ReadBytes(long position, Span<byte> destination)
    {
        try
        {
            // The header was checked against the length; a shorter read means the file shrank meanwhile.
            if (SafetensorsHeader.ReadUpTo(_handle, destination, position) < destination.Length)
            {
                throw GgufHeader.Error(FilePath, ErrorIds.GgufTruncated, "it ends inside a tensor.");
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotReadable(FilePath, exception);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _handle.Dispose();
}
