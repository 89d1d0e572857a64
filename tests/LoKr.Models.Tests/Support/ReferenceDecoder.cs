using System.Text.Json.Nodes;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Support;

/// <summary>
/// The decoder written out once more, in float64 and position by position with loops, without masks, caches, tables or fused kernels:
/// what a model without fixtures is compared with.
/// </summary>
internal sealed class ReferenceDecoder(JsonObject config, IReadOnlyDictionary<string, Tensor> weights)
{
    /// <summary>Frequencies of pairs of channels; by default base^(-2i/width).</summary>
    public double[]? Frequencies { get; init; }

    /// <summary>Factor on cosine and sine.</summary>
    public double AttentionFactor { get; init; } = 1;

    /// <summary>Positions that a layer looks back, itself included.</summary>
    public Func<int, int> Window { get; init; } = _ => int.MaxValue;

    /// <summary>Logits [length, vocabulary] of one sequence in which padded positions are not looked at.</summary>
    public Tensor Logits(long[] ids, bool[]? keep = null)
    {
        Tensor x = W("model.embed_tokens.weight").index_select(0, tensor(ids));
        for (int layer = 0; layer < Int("num_hidden_layers"); layer++)
        {
            string prefix = $"model.layers.{layer}.";
            x = x + Attend(prefix + "self_attn.", Norm(x, prefix + "input_layernorm"), layer, keep);
            Tensor y = Norm(x, prefix + "post_attention_layernorm");
            Tensor gate = Linear(y, prefix + "mlp.gate_proj");
            x = x + Linear(gate * sigmoid(gate) * Linear(y, prefix + "mlp.up_proj"), prefix + "mlp.down_proj");
        }

        return Norm(x, "model.norm").matmul(W(weights.ContainsKey("lm_head.weight") ? "lm_head.weight" : "model.embed_tokens.weight").t());
    }

    private Tensor Attend(string prefix, Tensor x, int layer, bool[]? keep)
    {
        (int heads, int keyHeads, int width) = (Int("num_attention_heads"), Int("num_key_value_heads"), Int("head_dim"));
        int length = (int)x.shape[0];
        Tensor q = Heads(Linear(x, prefix + "q_proj"), prefix + "q_norm");
        Tensor k = Heads(Linear(x, prefix + "k_proj"), prefix + "k_norm");
        Tensor v = Linear(x, prefix + "v_proj").view(length, keyHeads, width);
        Tensor[] rows = new Tensor[length];
        for (int i = 0; i < length; i++)
        {
            long[] seen = [.. Enumerable.Range(0, i + 1).Where(j => i - (long)j < Window(layer) && keep?[j] != false).Select(j => (long)j)];
            List<Tensor> outputs = [];
            for (int h = 0; h < heads; h++)
            {
                int shared = h / (heads / keyHeads);
                Tensor keys = k.index_select(0, tensor(seen)).select(1, shared);
                Tensor scores = keys.matmul(q[i, h]) / Math.Sqrt(width);
                outputs.Add(softmax(scores, 0).matmul(v.index_select(0, tensor(seen)).select(1, shared)));
            }

            rows[i] = cat([.. outputs]);
        }

        return Linear(stack(rows), prefix + "o_proj");

        Tensor Heads(Tensor y, string norm)
        {
            y = y.view(length, -1, width);
            return Turn(weights.ContainsKey(norm + ".weight") ? Norm(y, norm) : y, width);
        }
    }

    private Tensor Turn(Tensor x, int width)
    {
        double[] frequencies = Frequencies ?? [.. Enumerable.Range(0, width / 2).Select(i => Math.Pow(10000, -2.0 * i / width))];
        Tensor turned = x.clone();
        for (int i = 0; i < x.shape[0]; i++)
        {
            for (int c = 0; c < frequencies.Length; c++)
            {
                (double cos, double sin) = (Math.Cos(i * frequencies[c]) * AttentionFactor, Math.Sin(i * frequencies[c]) * AttentionFactor);
                int other = c + frequencies.Length;
                turned[i, TensorIndex.Colon, c] = (x[i, TensorIndex.Colon, c] * cos) - (x[i, TensorIndex.Colon, other] * sin);
                turned[i, TensorIndex.Colon, other] = (x[i, TensorIndex.Colon, other] * cos) + (x[i, TensorIndex.Colon, c] * sin);
            }
        }

        return turned;
    }

    private Tensor Norm(Tensor x, string name) =>
        x / (x.square().mean([-1], keepdim: true) + ((double?)config["rms_norm_eps"] ?? 1e-6)).sqrt() * W(name + ".weight");

    private Tensor Linear(Tensor x, string name)
    {
        Tensor y = x.matmul(W(name + ".weight").t());
        return weights.ContainsKey(name + ".bias") ? y + W(name + ".bias") : y;
    }

    private Tensor W(string name) => weights[name].to(ScalarType.Float64);

    private int Int(string key) => (int)config[key]!;
}
