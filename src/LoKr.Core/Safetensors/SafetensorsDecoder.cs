using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace LoKr.Core.Safetensors;

/// <summary>Turns the element types that TorchSharp lacks into wider ones it has.</summary>
internal static class SafetensorsDecoder
{
    /// <summary>Decodes elements of the file into the bytes of the natural torch type.</summary>
    /// <returns>False when a value does not fit (an unsigned 64-bit integer above the signed range).</returns>
    public static bool TryDecode(SafetensorsDType dtype, ReadOnlySpan<byte> source, Span<byte> destination)
    {
        switch (dtype)
        {
            case SafetensorsDType.F8E4M3 or SafetensorsDType.F8E5M2:
                Float8.Of(dtype)!.Decode(source, scale: 1, MemoryMarshal.Cast<byte, float>(destination));
                return true;
            case SafetensorsDType.U16:
                Span<int> ints = MemoryMarshal.Cast<byte, int>(destination);
                for (int i = 0; i < ints.Length; i++)
                {
                    ints[i] = BinaryPrimitives.ReadUInt16LittleEndian(source[(i * 2)..]);
                }

                return true;
            case SafetensorsDType.U32:
                Span<long> longs = MemoryMarshal.Cast<byte, long>(destination);
                for (int i = 0; i < longs.Length; i++)
                {
                    longs[i] = BinaryPrimitives.ReadUInt32LittleEndian(source[(i * 4)..]);
                }

                return true;
            case SafetensorsDType.U64:
                source.CopyTo(destination);
                return !MemoryMarshal.Cast<byte, long>(destination).ContainsAnyInRange(long.MinValue, -1);
            default:
                throw new ArgumentOutOfRangeException(nameof(dtype), dtype, "The bytes of this type need no decoding.");
        }
    }
}
