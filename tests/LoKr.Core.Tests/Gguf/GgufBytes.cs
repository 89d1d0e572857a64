using System.Text;
using LoKr.Core.Gguf;

namespace LoKr.Core.Tests.Gguf;

/// <summary>Writes GGUF headers by hand, valid or not.</summary>
internal sealed class GgufBytes
{
    private readonly MemoryStream _stream = new();
    private readonly BinaryWriter _writer;

    public GgufBytes(ulong tensors, ulong keys, uint version = 3, string magic = "GGUF")
    {
        _writer = new BinaryWriter(_stream);
        _writer.Write(Encoding.ASCII.GetBytes(magic));
        _writer.Write(version);
        _writer.Write(tensors);
        _writer.Write(keys);
    }

    public GgufBytes Text(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        _writer.Write((ulong)bytes.Length);
        _writer.Write(bytes);
        return this;
    }

    public GgufBytes Key(string name, GgufValueType type)
    {
        Text(name);
        return Number((uint)type);
    }

    public GgufBytes Number<T>(T value)
        where T : struct
    {
        _writer.Write(System.Runtime.InteropServices.MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));
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
        _writer.Flush();
        long start = (_stream.Length + alignment - 1) / alignment * alignment;
        _stream.SetLength(start + data);
        return _stream.ToArray();
    }

    public byte[] Raw()
    {
        _writer.Flush();
        return _stream.ToArray();
    }
}
