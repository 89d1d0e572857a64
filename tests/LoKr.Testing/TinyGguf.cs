using System.Buffers.Binary;
using System.Text;

namespace LoKr.Testing;

/// <summary>Writes the model of <see cref="TinyModel.WriteLlama"/> as GGUF, with random weights: F16, and Q8_0 where rows fill blocks.</summary>
public static class TinyGguf
{
    /// <summary>Writes a file.</summary>
    /// <param name="path">File to write.</param>
    /// <returns>The path.</returns>
    public static string Write(string path)
    {
        File.WriteAllBytes(path, Create());
        return path;
    }

    /// <summary>The bytes of such a file.</summary>
    /// <param name="alignment">Alignment of tensors; null for that of a file that does not name one.</param>
    public static byte[] Create(uint? alignment = null)
    {
        using MemoryStream stream = new();
        using BinaryWriter writer = new(stream, Encoding.UTF8, leaveOpen: true);
        (string Name, int Type, long[] Shape)[] tensors = [.. Tensors()];
        writer.Write("GGUF"u8);
        writer.Write(3);
        writer.Write((long)tensors.Length);
        writer.Write(alignment is null ? 6L : 7L);
        Text(writer, "general.architecture", 8);
        Text(writer, "llama");
        Text(writer, "llama.block_count", 4);
        writer.Write(2);
        Text(writer, "llama.embedding_length", 4);
        writer.Write(16);
        Text(writer, "llama.attention.head_count", 4);
        writer.Write(2);
        Text(writer, "llama.attention.head_count_kv", 9, 5);
        writer.Write(2L);
        writer.Write(1);
        writer.Write(1);
        Text(writer, "tokenizer.ggml.tokens", 9, 8);
        writer.Write(2L);
        Text(writer, "a");
        Text(writer, "ü");
        if (alignment is uint size)
        {
            Text(writer, "general.alignment", 4);
            writer.Write(size);
        }

        long unit = alignment ?? 32;
        long offset = 0;
        foreach ((string name, int type, long[] shape) in tensors)
        {
            Text(writer, name, shape.Length);
            foreach (long dimension in shape.Reverse())
            {
                writer.Write(dimension);
            }

            writer.Write(type);
            writer.Write(offset);
            offset = Align(offset + ByteCount(type, shape), unit);
        }

        stream.SetLength(Align(stream.Length, unit));
        Random random = new(1);
        foreach ((_, int type, long[] shape) in tensors)
        {
            stream.Position = stream.Length;
            stream.Write(Content(type, shape, random));
            stream.SetLength(Align(stream.Length, unit));
        }

        return stream.ToArray();
    }

    private static IEnumerable<(string Name, int Type, long[] Shape)> Tensors()
    {
        yield return ("token_embd.weight", 1, [258, 16]);
        yield return ("output_norm.weight", 0, [16]);
        for (int layer = 0; layer < 2; layer++)
        {
            yield return ($"blk.{layer}.attn_norm.weight", 0, [16]);
            yield return ($"blk.{layer}.attn_q.weight", 1, [16, 16]);
            yield return ($"blk.{layer}.attn_k.weight", 1, [8, 16]);
            yield return ($"blk.{layer}.attn_v.weight", 1, [8, 16]);
            yield return ($"blk.{layer}.attn_output.weight", 1, [16, 16]);
            yield return ($"blk.{layer}.ffn_norm.weight", 0, [16]);
            yield return ($"blk.{layer}.ffn_gate.weight", 1, [32, 16]);
            yield return ($"blk.{layer}.ffn_up.weight", 1, [32, 16]);
            yield return ($"blk.{layer}.ffn_down.weight", 8, [16, 32]);
        }
    }

    private static long ByteCount(int type, long[] shape) => shape.Aggregate(1L, static (product, size) => product * size) * (type == 0 ? 128 : type == 1 ? 64 : 34) / 32;

    private static byte[] Content(int type, long[] shape, Random random)
    {
        byte[] bytes = new byte[ByteCount(type, shape)];
        random.NextBytes(bytes);
        for (int i = 0; type == 0 && i < bytes.Length; i += 4)
        {
            BinaryPrimitives.WriteSingleLittleEndian(bytes.AsSpan(i), 1);
        }

        // The values, or the scale of each block.
        for (int i = 0; type != 0 && i < bytes.Length; i += type == 1 ? 2 : 34)
        {
            BinaryPrimitives.WriteHalfLittleEndian(bytes.AsSpan(i), (Half)(type == 1 ? (random.NextSingle() - 0.5f) / 4 : 0.001f));
        }

        return bytes;
    }

    private static long Align(long position, long unit) => (position + unit - 1) / unit * unit;

    private static void Text(BinaryWriter writer, string text, params ReadOnlySpan<int> numbers)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        writer.Write((long)bytes.Length);
        writer.Write(bytes);
        foreach (int number in numbers)
        {
            writer.Write(number);
        }
    }
}
