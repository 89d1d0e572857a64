using System.Globalization;
using System.Text;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.References;

/// <summary>A single file with the names and shapes of Flux.1, fewer blocks and random weights, and an adapter on its linear layers as kohya's scripts write it.</summary>
internal static class FluxFiles
{
    private const long Hidden = 3072;
    private const long Inner = 4 * Hidden;
    private const int Rank = 16;
    private const int Factor = 8;

    // Beside the weights that adapters change; norms and biases are left out.
    private static readonly (string Name, long Rows, long Columns)[] s_modulations = [("img_mod.lin", 6 * Hidden, Hidden), ("txt_mod.lin", 6 * Hidden, Hidden)];

    private static readonly (string Name, long Rows, long Columns)[] s_double =
    [
        .. new[] { "img", "txt" }.SelectMany(static stream => new[]
        {
            ($"{stream}_attn.qkv", 3 * Hidden, Hidden), ($"{stream}_attn.proj", Hidden, Hidden), ($"{stream}_mlp.0", Inner, Hidden), ($"{stream}_mlp.2", Hidden, Inner),
        }),
    ];

    private static readonly (string Name, long Rows, long Columns)[] s_single = [("linear1", (3 * Hidden) + Inner, Hidden), ("linear2", Hidden, Hidden + Inner)];

    /// <summary>Writes a checkpoint, about 0.34 billion numbers for each double block and 0.14 for each single block.</summary>
    /// <param name="path">File to write.</param>
    /// <param name="doubles">Number of double blocks.</param>
    /// <param name="singles">Number of single blocks.</param>
    /// <param name="isFloat8">Whether weights are 8-bit floats with a scale each, as ComfyUI has them; bfloat16 otherwise.</param>
    public static string WriteBase(string path, int doubles, int singles, bool isFloat8)
    {
        (string Name, long Rows, long Columns)[] weights =
        [
            .. Blocks("double_blocks", doubles, [.. s_double, .. s_modulations]), .. Blocks("single_blocks", singles, [.. s_single, ("modulation.lin", 3 * Hidden, Hidden)]),
            ("img_in", Hidden, 64), ("txt_in", Hidden, 4096), ("time_in.in_layer", Hidden, 256), ("vector_in.in_layer", Hidden, 768), ("guidance_in.in_layer", Hidden, 256), ("final_layer.linear", 64, Hidden),
        ];
        int size = isFloat8 ? 1 : 2;
        StringBuilder header = new("{");
        long offset = 0;
        void Add(string name, string type, string shape, long bytes)
        {
            header.Append(CultureInfo.InvariantCulture, $"{(header.Length > 1 ? "," : "")}\"{name}\":{{\"dtype\":\"{type}\",\"shape\":[{shape}],\"data_offsets\":[{offset},{offset + bytes}]}}");
            offset += bytes;
        }

        foreach ((string name, _, _) in isFloat8 ? weights : [])
        {
            Add(name + ".weight_scale", "F32", "", sizeof(float));
        }

        foreach ((string name, long rows, long columns) in weights)
        {
            Add(name + ".weight", isFloat8 ? "F8_E4M3" : "BF16", $"{rows},{columns}", rows * columns * size);
        }

        header.Append('}');
        header.Append(' ', (8 - (header.Length % 8)) % 8);
        using FileStream stream = File.Create(path);
        stream.Write(BitConverter.GetBytes((long)header.Length));
        stream.Write(Encoding.ASCII.GetBytes(header.ToString()));
        foreach ((string _, long _, long _) in isFloat8 ? weights : [])
        {
            stream.Write(BitConverter.GetBytes(2e-4f));
        }

        // One set of values for all tensors: the disk does not know.
        byte[] values = Values(isFloat8);
        foreach ((_, long rows, long columns) in weights)
        {
            for (long rest = rows * columns * size; rest > 0; rest -= values.Length)
            {
                stream.Write(values, 0, (int)Math.Min(rest, values.Length));
            }
        }

        return path;
    }

    /// <summary>Writes an adapter on the linear layers of all blocks.</summary>
    /// <param name="path">File to write.</param>
    /// <param name="doubles">Number of double blocks.</param>
    /// <param name="singles">Number of single blocks.</param>
    public static string WriteAdapter(string path, int doubles, int singles)
    {
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal);
        foreach ((string name, long rows, long columns) in Blocks("double_blocks", doubles, s_double).Concat(Blocks("single_blocks", singles, s_single)))
        {
            string module = "lora_unet_" + name.Replace('.', '_');
            tensors.Add(module + ".lokr_w1", randn(Factor, Factor) * 0.1);
            tensors.Add(module + ".lokr_w2_a", randn(rows / Factor, Rank) * 0.02);
            tensors.Add(module + ".lokr_w2_b", randn(Rank, columns / Factor) * 0.02);
            tensors.Add(module + ".alpha", tensor((float)Rank));
        }

        SafetensorsWriter.Write(path, tensors);
        return path;
    }

    private static IEnumerable<(string Name, long Rows, long Columns)> Blocks(string name, int count, IReadOnlyList<(string Name, long Rows, long Columns)> weights) =>
        Enumerable.Range(0, count).SelectMany(i => weights.Select(weight => ($"{name}.{i}.{weight.Name}", weight.Rows, weight.Columns)));

    private static byte[] Values(bool isFloat8)
    {
        byte[] values = new byte[16 << 20];
        new Random(1).NextBytes(values);
        for (int i = 0; i < values.Length; i++)
        {
            if (isFloat8)
            {
                // Finite, and away from the largest magnitude.
                values[i] = (byte)((values[i] & 0x87) | (0x30 + (values[i] & 0x38)));
            }
            else if (i % 2 == 1)
            {
                // Between 2⁻⁷ and 2⁻⁵, of either sign.
                values[i] = (byte)((values[i] & 0x80) | 0x3c);
            }
        }

        return values;
    }
}
