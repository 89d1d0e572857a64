using System.Text;
using LoKr.Core.Configuration;

namespace LoKr.Benchmarks.References;

/// <summary>A GGUF file in the shapes of Llama 3.2 1B with fewer layers and random blocks of one type, and an adapter on all its linear layers.</summary>
internal static class GgufFiles
{
    private const long Hidden = 2048;
    private const long Inner = 8192;
    private const long KeyValue = 512;
    private const long Vocabulary = 32_000;

    private static readonly (string Module, string Tensor, long Out, long In)[] s_layer =
    [
        ("self_attn.q_proj", "attn_q", Hidden, Hidden), ("self_attn.k_proj", "attn_k", KeyValue, Hidden), ("self_attn.v_proj", "attn_v", KeyValue, Hidden),
        ("self_attn.o_proj", "attn_output", Hidden, Hidden), ("mlp.gate_proj", "ffn_gate", Inner, Hidden), ("mlp.up_proj", "ffn_up", Inner, Hidden), ("mlp.down_proj", "ffn_down", Hidden, Inner),
    ];

    /// <summary>Writes a file.</summary>
    /// <param name="path">File to write.</param>
    /// <param name="layers">Number of layers.</param>
    /// <param name="type">Number of the element type.</param>
    /// <param name="block">Values and bytes of its blocks.</param>
    /// <param name="scales">How many halves at the beginning of a block are scales.</param>
    public static string WriteBase(string path, int layers, int type, (int Values, int Bytes) block, int scales)
    {
        (string Name, long Rows, long Columns)[] tensors =
        [
            ("token_embd.weight", Vocabulary, Hidden), ("output.weight", Vocabulary, Hidden),
            .. Enumerable.Range(0, layers).SelectMany(static i => s_layer.Select(item => ($"blk.{i}.{item.Tensor}.weight", item.Out, item.In))),
        ];
        using FileStream stream = File.Create(path);
        using BinaryWriter writer = new(stream);
        writer.Write("GGUF"u8);
        writer.Write(3);
        writer.Write((long)tensors.Length);
        writer.Write(4L);
        Text("general.architecture", 8);
        Text("llama");
        Text("llama.embedding_length", 4, (int)Hidden);
        Text("llama.attention.head_count", 4, 32);
        Text("llama.attention.head_count_kv", 4, 8);
        long offset = 0;
        foreach ((string name, long rows, long columns) in tensors)
        {
            Text(name, 2);
            writer.Write(columns);
            writer.Write(rows);
            writer.Write(type);
            writer.Write(offset);
            offset = Align(offset + (rows * columns / block.Values * block.Bytes));
        }

        writer.Flush();
        stream.SetLength(Align(stream.Length));
        stream.Position = stream.Length;

        // One set of blocks for all tensors: the disk does not know.
        byte[] blocks = new byte[4096 * block.Bytes];
        new Random(1).NextBytes(blocks);
        for (int i = 0; i < blocks.Length; i += block.Bytes)
        {
            for (int j = 0; j < scales; j++)
            {
                BitConverter.TryWriteBytes(blocks.AsSpan(i + (2 * j)), (Half)0.0003f);
            }
        }

        foreach ((_, long rows, long columns) in tensors)
        {
            for (long rest = rows * columns / block.Values * block.Bytes; rest > 0; rest -= blocks.Length)
            {
                stream.Write(blocks, 0, (int)Math.Min(rest, blocks.Length));
            }

            stream.SetLength(Align(stream.Length));
            stream.Position = stream.Length;
        }

        return path;

        void Text(string text, params ReadOnlySpan<int> numbers)
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

    /// <summary>Writes an adapter on all linear layers.</summary>
    public static string WriteAdapter(string folder, int layers, LoKrConfig config) =>
        LlamaFiles.WriteAdapter(folder, layers, config, [.. s_layer.Select(static item => (item.Module, item.Out, item.In))]);

    private static long Align(long position) => (position + 31) / 32 * 32;
}
