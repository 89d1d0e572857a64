using System.Buffers;
using System.Buffers.Binary;
using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runtime;
using Microsoft.Win32.SafeHandles;
using TorchSharp;

namespace LoKr.Core.Safetensors;

/// <summary>
/// Reads one safetensors file: the header at once, tensors on demand, straight into the tensor's memory.
/// Holds one handle; the file can be read by others meanwhile. Tensors may be read from several threads.
/// </summary>
public sealed class SafetensorsReader : ITensorSource
{
    /// <summary>Bytes of the file that are converted at a time.</summary>
    private const int ChunkBytes = 16 << 20;

    /// <summary>Bytes that are read at a time where nothing has to be converted; a span holds at most 2 GiB.</summary>
    private const int DirectBytes = 1 << 30;

    private readonly SafeFileHandle _handle;
    private readonly SafetensorsHeader _header;
    private readonly Dictionary<torch.ScalarType, torch.Tensor> _mapped = [];

    private SafetensorsReader(string path, SafeFileHandle handle, SafetensorsHeader header)
    {
        FilePath = path;
        _handle = handle;
        _header = header;
    }

    /// <summary>Full path of the file.</summary>
    public string FilePath { get; }

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries => _header.Entries;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> Metadata => _header.Metadata;

    /// <summary>Opens a file and checks its header completely.</summary>
    /// <exception cref="LoKrException">
    /// <c>LoKr.PathNotFound</c>, <c>LoKr.FileNotReadable</c>, <c>LoKr.PickleRefused</c>, and the <c>LoKr.Safetensors…</c> ids of a damaged file.
    /// </exception>
    public static SafetensorsReader Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string full = Path.GetFullPath(path);
        FileSystem.CheckRegular(full);
        return FileSystem.OpenParts(full, handle =>
        {
            PickleGuard.ThrowIfPickleName(full);
            return new SafetensorsReader(full, handle, SafetensorsHeader.Read(handle, full));
        });
    }

    /// <summary>Reads a tensor.</summary>
    /// <param name="name">Key of the tensor.</param>
    /// <param name="dtype">Type to convert to; null for the type of the file, or the next wider one where TorchSharp lacks it (F8 as Float32, U16 as Int32, U32 and U64 as Int64).</param>
    /// <param name="device">Device; null for the CPU.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.TensorNotFound</c>, <c>LoKr.TensorDTypeMismatch</c>, <c>LoKr.TensorDTypeUnsupported</c>, <c>LoKr.SafetensorsValueInvalid</c>,
    /// and those of <see cref="TorchRuntime.EnsureLoaded"/>.
    /// </exception>
    public torch.Tensor Read(string name, torch.ScalarType? dtype = null, torch.Device? device = null)
    {
        SafetensorsEntry entry = Find(name);
        TorchRuntime.EnsureLoaded();
        torch.ScalarType type = dtype ?? SafetensorsDTypes.Natural(entry.DType);
        CheckConversion(entry, type);
        torch.Tensor result = torch.empty([.. entry.Shape], dtype: type, device: device ?? torch.CPU);
        try
        {
            Fill(entry, result);
            return result;
        }
        catch
        {
            result.Dispose();
            throw;
        }
    }

    /// <summary>Reads a tensor into memory that exists, converting type and device, without a second copy where types agree.</summary>
    /// <exception cref="LoKrException">Those of <see cref="Read"/>, and <c>LoKr.TensorShapeMismatch</c>.</exception>
    public void ReadInto(string name, torch.Tensor destination)
    {
        ArgumentNullException.ThrowIfNull(destination);
        SafetensorsEntry entry = Find(name);
        if (!destination.shape.AsSpan().SequenceEqual([.. entry.Shape]))
        {
            throw new LoKrException(
                ErrorIds.TensorShapeMismatch,
                LoKrErrorKind.InvalidData,
                $"Tensor '{name}' in '{FilePath}' has shape [{string.Join(", ", entry.Shape)}], but [{string.Join(", ", destination.shape)}] is needed.",
                "The file belongs to another model, or to one with another configuration.")
            {
                Target = name,
            };
        }

        CheckConversion(entry, destination.dtype);
        Fill(entry, destination);
    }

    /// <summary>Reads a tensor of one number, such as an alpha, without torch; null for other types (booleans, 8-bit floats) and other sizes.</summary>
    /// <param name="name">Key of the tensor.</param>
    /// <exception cref="LoKrException"><c>LoKr.TensorNotFound</c>, <c>LoKr.SafetensorsTruncated</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public double? ReadNumber(string name)
    {
        SafetensorsEntry entry = Find(name);
        int size = SafetensorsDTypes.Size(entry.DType);
        if (entry.ByteCount != size)
        {
            return null;
        }

        Span<byte> bytes = stackalloc byte[size];
        ReadExactly(entry, bytes, entry.Offset);
        return entry.DType switch
        {
            SafetensorsDType.F64 => BinaryPrimitives.ReadDoubleLittleEndian(bytes),
            SafetensorsDType.F32 => BinaryPrimitives.ReadSingleLittleEndian(bytes),
            SafetensorsDType.F16 => (double)BinaryPrimitives.ReadHalfLittleEndian(bytes),
            SafetensorsDType.I64 => BinaryPrimitives.ReadInt64LittleEndian(bytes),
            SafetensorsDType.I32 => BinaryPrimitives.ReadInt32LittleEndian(bytes),
            SafetensorsDType.I16 => BinaryPrimitives.ReadInt16LittleEndian(bytes),
            SafetensorsDType.I8 => (sbyte)bytes[0],
            SafetensorsDType.U8 => bytes[0],
            SafetensorsDType.BF16 => BitConverter.Int32BitsToSingle(BinaryPrimitives.ReadUInt16LittleEndian(bytes) << 16),
            _ => null,
        };
    }

    /// <inheritdoc/>
    public void ReadRange(string name, long start, torch.Tensor destination)
    {
        ArgumentNullException.ThrowIfNull(destination);
        SafetensorsEntry entry = Find(name);
        CheckConversion(entry, destination.dtype);
        int size = SafetensorsDTypes.Size(entry.DType);
        ArgumentOutOfRangeException.ThrowIfNegative(start);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(destination.numel(), (entry.ByteCount / size) - start);
        Fill(entry with { Offset = entry.Offset + (start * size), ByteCount = destination.numel() * size }, destination);
    }

    /// <summary>Reads bytes as they are in the file, unchecked; they may go on into the tensors that follow.</summary>
    /// <param name="entry">One of <see cref="Entries"/>.</param>
    /// <param name="start">First byte counted from the beginning of the tensor.</param>
    /// <param name="destination">Where to put them; filled completely.</param>
    internal void ReadBytes(SafetensorsEntry entry, long start, Span<byte> destination)
    {
        try
        {
            // The header was checked against the length; a shorter read means the file shrank meanwhile.
            if (SafetensorsHeader.ReadUpTo(_handle, destination, entry.Offset + start) < destination.Length)
            {
                throw SafetensorsHeader.Error(FilePath, ErrorIds.SafetensorsTruncated, $"it ends inside tensor '{entry.Name}'.");
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotReadable(FilePath, exception);
        }
    }

    /// <summary>
    /// A tensor over the pages of the file, which all processes that map the file share. A page that is written to becomes one of this process;
    /// the file stays as it is. The file must be replaced as a whole, by renaming, while such tensors live: what is written into it shows in them.
    /// </summary>
    /// <param name="name">Key of the tensor.</param>
    /// <param name="dtype">The type that is needed.</param>
    /// <returns>
    /// The tensor on the CPU, which stays valid when the reader is disposed; null where it has to be read: it is stored in another type or at an offset that is
    /// not a multiple of its elements' size, it is empty, or the system is not Linux.
    /// </returns>
    /// <exception cref="LoKrException"><c>LoKr.TensorNotFound</c>.</exception>
    public torch.Tensor? Map(string name, torch.ScalarType dtype)
    {
        SafetensorsEntry entry = Find(name);
        int size = SafetensorsDTypes.Size(entry.DType);
        if (!OperatingSystem.IsLinux() || entry.ByteCount == 0 || entry.Offset % size != 0
            || SafetensorsDTypes.Natural(entry.DType) != dtype || !SafetensorsDTypes.IsSameLayout(entry.DType) || entry.DType == SafetensorsDType.BOOL)
        {
            return null;
        }

        lock (_mapped)
        {
            using torch.Tensor part = Pages(dtype, size).narrow(0, entry.Offset / size, entry.ByteCount / size);
            return part.view([.. entry.Shape]).DetachFromDisposeScope();
        }
    }

    /// <summary>Reads the bytes of a tensor once and keeps none, so that its pages are in memory and what cannot be read is an error now, not a signal later.</summary>
    /// <param name="name">Key of the tensor.</param>
    /// <exception cref="LoKrException"><c>LoKr.TensorNotFound</c>, <c>LoKr.SafetensorsTruncated</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public void Prefetch(string name)
    {
        SafetensorsEntry entry = Find(name);
        byte[] buffer = ArrayPool<byte>.Shared.Rent((int)Math.Min(entry.ByteCount, 1 << 20));
        try
        {
            for (long start = 0; start < entry.ByteCount; start += buffer.Length)
            {
                ReadBytes(entry, start, buffer.AsSpan(0, (int)Math.Min(buffer.Length, entry.ByteCount - start)));
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (torch.Tensor pages in _mapped.Values)
        {
            // The storage lives as long as tensors over it.
            pages.Dispose();
        }

        _mapped.Clear();
        _handle.Dispose();
    }

    // The whole file as one tensor; by the handle, since another file may have the name by now.
    private torch.Tensor Pages(torch.ScalarType dtype, int size)
    {
        if (!_mapped.TryGetValue(dtype, out torch.Tensor? pages))
        {
            TorchRuntime.EnsureLoaded();
            string path = string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{_handle.DangerousGetHandle()}");
            _mapped[dtype] = pages = torch.from_file(path, shared: false, size: RandomAccess.GetLength(_handle) / size, dtype: dtype).DetachFromDisposeScope();
        }

        return pages;
    }

    private SafetensorsEntry Find(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return Entries.TryGetValue(name, out SafetensorsEntry? entry) ? entry : throw TensorErrors.NotFound(name, FilePath, Entries.Keys);
    }

    private void CheckConversion(SafetensorsEntry entry, torch.ScalarType type)
    {
        if (!SafetensorsDTypes.CanConvert(SafetensorsDTypes.Natural(entry.DType), type))
        {
            throw new LoKrException(
                ErrorIds.TensorDTypeMismatch,
                LoKrErrorKind.InvalidData,
                $"Tensor '{entry.Name}' in '{FilePath}' holds {SafetensorsDTypes.Name(entry.DType)}, which cannot be converted to {type}.",
                "Integers in place of floating-point weights mean a quantized file; use the unquantized one.")
            {
                Target = entry.Name,
            };
        }
    }

    private void Fill(SafetensorsEntry entry, torch.Tensor destination)
    {
        if (entry.ByteCount == 0)
        {
            return;
        }

        using var scope = torch.NewDisposeScope();
        using var noGrad = torch.no_grad();
        torch.ScalarType natural = SafetensorsDTypes.Natural(entry.DType);
        torch.Tensor target = destination.detach();
        if (!target.is_contiguous())
        {
            torch.Tensor whole = torch.empty(target.shape, dtype: natural);
            FillFlat(entry, whole.view(-1), natural);
            target.copy_(whole);
            return;
        }

        FillFlat(entry, target.view(-1), natural);
    }

    private void FillFlat(SafetensorsEntry entry, torch.Tensor flat, torch.ScalarType natural)
    {
        int size = SafetensorsDTypes.Size(entry.DType);
        bool direct = flat.device_type == DeviceType.CPU && flat.dtype == natural && SafetensorsDTypes.IsSameLayout(entry.DType);
        long perChunk = (direct ? DirectBytes : ChunkBytes) / size;
        long count = entry.ByteCount / size;
        torch.Tensor? staging = direct ? null : torch.empty(Math.Min(count, perChunk), dtype: natural);
        byte[] raw = direct || SafetensorsDTypes.IsSameLayout(entry.DType) ? [] : new byte[Math.Min(count, perChunk) * size];
        for (long start = 0; start < count; start += perChunk)
        {
            long elements = Math.Min(perChunk, count - start);
            long position = entry.Offset + (start * size);
            using torch.Tensor slice = flat.narrow(0, start, elements);
            if (staging is null)
            {
                ReadExactly(entry, slice.bytes, position);
                continue;
            }

            using torch.Tensor part = staging.narrow(0, 0, elements);
            ReadNatural(entry, part.bytes, raw.AsSpan(0, raw.Length == 0 ? 0 : (int)(elements * size)), position);
            slice.copy_(part);
        }
    }

    private void ReadNatural(SafetensorsEntry entry, Span<byte> destination, Span<byte> raw, long position)
    {
        if (raw.IsEmpty)
        {
            ReadExactly(entry, destination, position);
            return;
        }

        ReadExactly(entry, raw, position);
        if (!SafetensorsDecoder.TryDecode(entry.DType, raw, destination))
        {
            throw new LoKrException(
                ErrorIds.TensorDTypeUnsupported,
                LoKrErrorKind.NotSupported,
                $"Tensor '{entry.Name}' in '{FilePath}' holds {SafetensorsDTypes.Name(entry.DType)} values above {long.MaxValue}, which no torch type holds.")
            {
                Target = entry.Name,
            };
        }
    }

    private void ReadExactly(SafetensorsEntry entry, Span<byte> destination, long position)
    {
        ReadBytes(entry, position - entry.Offset, destination);
        if (entry.DType == SafetensorsDType.BOOL && destination.ContainsAnyExceptInRange((byte)0, (byte)1))
        {
            throw SafetensorsHeader.Error(FilePath, ErrorIds.SafetensorsValueInvalid, $"tensor '{entry.Name}' is BOOL but holds bytes other than 0 and 1.");
        }
    }
}
