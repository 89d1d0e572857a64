using System.Text.Json.Nodes;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.References;

/// <summary>
/// A training step of a Llama with LoRA on all linear layers as transformers and PEFT compute it, one torch operation for each of theirs: norms by a
/// mean of squares, rotations by a concatenation of halves, logits of all positions in float32, their cross entropy, y + B(A(x))·scale as sums of their
/// own. In its favor are the flat buffer of its factors and that no Python runs between the operations.
/// </summary>
internal sealed class TransformersLlama : IDisposable
{
    private readonly Dictionary<string, Tensor> _weights;
    private readonly Dictionary<string, int> _adapted;
    private readonly double _scale;
    private readonly (int Layers, int Heads, int KeyHeads, int Width, double Epsilon, double Theta) _sizes;

    /// <summary>Takes the weights of a model, which stays their owner, and makes the factors.</summary>
    /// <param name="model">A Llama whose output embeddings are tied to its token embeddings.</param>
    /// <param name="config">Its config.json.</param>
    /// <param name="rank">Rank of LoRA.</param>
    /// <param name="scale">Factor of its product.</param>
    public TransformersLlama(LoKrModel model, JsonObject config, int rank, double scale)
    {
        _weights = model.Module.named_parameters().ToDictionary(static item => item.name, static item => item.parameter.detach(), StringComparer.Ordinal);
        string[] adapted = [.. _weights.Keys.Where(static name => name.Contains("_proj.", StringComparison.Ordinal))];
        _adapted = adapted.Index().ToDictionary(static item => item.Item, static item => item.Index, StringComparer.Ordinal);
        _scale = scale;
        _sizes = (
            (int)config["num_hidden_layers"]!, (int)config["num_attention_heads"]!, (int)config["num_key_value_heads"]!, (int)config["head_dim"]!,
            (double)config["rms_norm_eps"]!, (double)config["rope_parameters"]!["rope_theta"]!);
        Device device = _weights[adapted[0]].device;
        Parameters = new([.. adapted.SelectMany(name => (long[][])[[rank, _weights[name].shape[1]], [_weights[name].shape[0], rank]])], ScalarType.Float32, device);
        using (no_grad())
        {
            Parameters.Value.normal_(0, 0.02);
        }

        Parameters.SetRequiresGrad(true);
    }

    /// <summary>All factors.</summary>
    public FlatParameter Parameters { get; }

    /// <summary>The loss of a batch, a scalar with its graph.</summary>
    /// <param name="ids">Token ids, int64 [batch, length].</param>
    /// <param name="labels">The same, −100 where there is no loss.</param>
    public Tensor Loss(Tensor ids, Tensor labels)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor hidden = _weights["model.embed_tokens.weight"].index_select(0, ids.flatten()).view(ids.shape[0], ids.shape[1], -1);
        (Tensor cosine, Tensor sine) = Rotations(ids.shape[1], ids.device);
        for (int layer = 0; layer < _sizes.Layers; layer++)
        {
            using DisposeScope inner = NewDisposeScope();
            string name = $"model.layers.{layer}.";
            Tensor x = hidden + Attend(Normalize(hidden, name + "input_layernorm"), name + "self_attn.", cosine, sine);
            hidden = (x + Feed(Normalize(x, name + "post_attention_layernorm"), name + "mlp.")).MoveToOuterDisposeScope();
        }

        Tensor logits = nn.functional.linear(Normalize(hidden, "model.norm"), _weights["model.embed_tokens.weight"]).to(ScalarType.Float32);
        Tensor next = nn.functional.pad(labels, [0, 1], value: -100).narrow(1, 1, labels.shape[1]).contiguous();
        return nn.functional.cross_entropy(logits.view(-1, logits.shape[^1]), next.view(-1), ignore_index: -100).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Parameters.Dispose();
        foreach (Tensor weight in _weights.Values)
        {
            weight.Dispose();
        }
    }

    private static Tensor Rotate(Tensor x, Tensor cosine, Tensor sine)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] halves = x.chunk(2, -1);
        return ((x * cosine) + (cat([-halves[1], halves[0]], -1) * sine)).MoveToOuterDisposeScope();
    }

    private (Tensor Cosine, Tensor Sine) Rotations(long length, Device device)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor frequencies = tensor((float)_sizes.Theta, device: device).pow(arange(0, _sizes.Width, 2, ScalarType.Float32, device) / _sizes.Width).reciprocal();
        Tensor angles = arange(0, length, ScalarType.Float32, device).unsqueeze(1) * frequencies.unsqueeze(0);
        Tensor both = cat([angles, angles], -1).unsqueeze(0).unsqueeze(0);
        return (both.cos().MoveToOuterDisposeScope(), both.sin().MoveToOuterDisposeScope());
    }

    private Tensor Normalize(Tensor x, string name)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor variance = x.pow(2).mean([-1], keepdim: true);
        return (_weights[name + ".weight"] * (x * rsqrt(variance + _sizes.Epsilon))).MoveToOuterDisposeScope();
    }

    private Tensor Attend(Tensor x, string name, Tensor cosine, Tensor sine)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor query = Rotate(Heads(Linear(x, name + "q_proj")), cosine, sine);
        Tensor key = Rotate(Heads(Linear(x, name + "k_proj")), cosine, sine);
        Tensor value = Heads(Linear(x, name + "v_proj"));
        Tensor context = nn.functional.scaled_dot_product_attention(query, Repeat(key), Repeat(value), is_casual: true);
        context = context.transpose(1, 2).contiguous().reshape(x.shape[0], x.shape[1], -1);
        return Linear(context, name + "o_proj").MoveToOuterDisposeScope();
    }

    private Tensor Heads(Tensor x) => x.view(x.shape[0], x.shape[1], -1, _sizes.Width).transpose(1, 2);

    private Tensor Repeat(Tensor x)
    {
        long[] shape = x.shape;
        int groups = _sizes.Heads / _sizes.KeyHeads;
        return groups == 1 ? x : x.unsqueeze(2).expand(shape[0], shape[1], groups, shape[2], shape[3]).reshape(shape[0], shape[1] * groups, shape[2], shape[3]);
    }

    private Tensor Feed(Tensor x, string name)
    {
        using DisposeScope scope = NewDisposeScope();
        return Linear(nn.functional.silu(Linear(x, name + "gate_proj")) * Linear(x, name + "up_proj"), name + "down_proj").MoveToOuterDisposeScope();
    }

    private Tensor Linear(Tensor x, string name)
    {
        name += ".weight";
        int index = 2 * _adapted[name];
        return LoraReference.AddAsPeft(x, nn.functional.linear(x, _weights[name]), Parameters.Views[index], Parameters.Views[index + 1], _scale);
    }
}
