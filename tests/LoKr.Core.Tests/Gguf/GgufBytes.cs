using System.Runtime.InteropServices;
using System.Text;
using LoKr.Core.Gguf;

namespace LoKr.Core.Tests.Gguf;

/// <summary>Writes GGUF headers by hand, valid or not.</summary>
internal sealed class GgufBytes
{
    private readonly List<byte> _bytes = [];

    public GgufBytes(ulong tensors, ulong keys, uint version = 3, string magic = "GGUF")
    {
        _bytes.AddRange(Encoding.ASCII.GetBytes(magic));
        Number(version).Number(tensors).Number(keys);
    }

    public GgufBytes Text(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        Number((ulong)bytes.Length);
        _bytes.AddRange(bytes);
        return this;
    }

    public GgufBytes Key(string name, GgufValueType type) => Text(name).Number((uint)type);

    public GgufBytes Number<T>(T value)
        where T : struct
    {
        _bytes.AddRange(MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));
        return this;
    }

    public GgufBytes Tensor(string name, GgmlType type, ulong offset, params ulong[] ne)
    {
        Text(name).Number((uint)ne.Length);
        foreach (ulong size in ne)
        {
            Number(size);
        }

        return Number((uint)type).Number(offset);
    }

    /// <summary>The file with some bytes of data at the next multiple of the alignment.</summary>
    public byte[] File(int data, int alignment = 32)
    {
        byte[] file = new byte[((_bytes.Count + alignment - 1) / alignment * alignment) + data];
        _bytes.CopyTo(file);
        return file;
    }

    public byte[] Raw() => [.. _bytes];
}
