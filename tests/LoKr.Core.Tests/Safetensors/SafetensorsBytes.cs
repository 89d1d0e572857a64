using System.Buffers.Binary;
using System.Text;

namespace LoKr.Core.Tests.Safetensors;

/// <summary>Safetensors files made by hand, well-formed or not.</summary>
internal static class SafetensorsBytes
{
    public static byte[] Make(string header, int dataBytes) => Make(Encoding.UTF8.GetBytes(header), new byte[dataBytes]);

    public static byte[] Make(string header, byte[] data) => Make(Encoding.UTF8.GetBytes(header), data);

    public static byte[] Make(byte[] header, byte[] data)
    {
        byte[] file = new byte[8 + header.Length + data.Length];
        BinaryPrimitives.WriteUInt64LittleEndian(file, (ulong)header.Length);
        header.CopyTo(file, 8);
        data.CopyTo(file, 8 + header.Length);
        return file;
    }
}
