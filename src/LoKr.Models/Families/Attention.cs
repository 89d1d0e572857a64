using LoKr.Core.Configuration;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>Operations around torch's scaled dot-product attention.</summary>
internal static class Attention
{
    /// <summary>[batch, length, heads·width] → [batch, heads, length, width], a view.</summary>
    public static Tensor SplitHeads(Tensor x, long heads) => x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2);

    /// <summary>[batch, heads, length, width] → [batch, length, heads·width].</summary>
    public static Tensor MergeHeads(Tensor x) => x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1);

    /// <summary>
    /// Grouped-query attention: every key or value head serves <paramref name="groups"/> query heads,
    /// [batch, heads, length, width] → [batch, heads·groups, length, width].
    /// </summary>
    public static Tensor RepeatHeads(Tensor x, long groups)
    {
        if (groups == 1)
        {
            return x;
        }

        // In the order of memory that projections have, in which the copy and its gradient are fastest.
        long[] s = x.shape;
        return x.transpose(1, 2).unsqueeze(3).expand(s[0], s[2], s[1], groups, s[3]).reshape(s[0], s[2], s[1] * groups, s[3]).transpose(1, 2);
    }

    /// <summary>softmax(q·kᵀ/√width + mask)·v (Vaswani et al., arXiv:1706.03762).</summary>
    /// <param name="query">[batch, heads, length, width].</param>
    /// <param name="key">[batch, heads, key length, width].</param>
    /// <param name="value">[batch, heads, key length, width].</param>
    /// <param name="mask">Boolean (true takes part) or additive, broadcastable to [batch, heads, length, key length]; null allows torch's fast kernels.</param>
    /// <param name="causal">Whether each position sees itself and those before it only; not beside a mask.</param>
    /// <param name="dropout">Probability of dropping an attention weight; zero outside training.</param>
    public static Tensor ScaledDotProduct(Tensor query, Tensor key, Tensor value, Tensor? mask = null, bool causal = false, double dropout = 0) =>
        mask is not null && mask.is_floating_point()
            ? WithScores(query, key, value, mask, dropout)
            : nn.functional.scaled_dot_product_attention(query, key, value, mask, dropout, causal);

    // torch's kernels give no gradient to what they add to the scores. Whether a pass takes gradients must not matter: with gradient checkpointing
    // a layer runs with and without, and draws the same dropout.
    private static Tensor WithScores(Tensor query, Tensor key, Tensor value, Tensor added, double dropout)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor scores = (query / Math.Sqrt(query.shape[^1])).matmul(key.transpose(-2, -1)) + added;
        return scores.softmax(-1).WithDropout(dropout, training: true).matmul(value).MoveToOuterDisposeScope();
    }
}

/// <summary>Activation functions by the names that configurations use.</summary>
internal static class Activation
{
    private static readonly string[] s_names =
        ["gelu", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "mish", "quick_gelu", "relu", "relu6", "sigmoid", "silu", "swish", "tanh"];

    /// <summary>The function that a key of the configuration names; an unknown name is <see cref="Core.Errors.ErrorIds.ModelConfigUnsupported"/>.</summary>
    public static Func<Tensor, Tensor> Get(ModelConfig config, string key, string? defaultName = null)
    {
        string name = config.FindString(key) ?? defaultName ?? config.GetString(key);
        return name switch
        {
            "gelu" or "gelu_python" => x => nn.functional.gelu(x),

            // Three names for the tanh approximation of Hendrycks & Gimpel (arXiv:1606.08415); they differ in rounding only.
            "gelu_new" or "gelu_fast" or "gelu_pytorch_tanh" => x => nn.functional.gelu(x, GELU.Approximate.tanh),
            "quick_gelu" => x => x * sigmoid(1.702 * x),
            "silu" or "swish" => x => nn.functional.silu(x),
            "relu" => x => nn.functional.relu(x),
            "relu6" => x => nn.functional.relu6(x),
            "mish" => x => nn.functional.mish(x),
            "tanh" => tanh,
            "sigmoid" => sigmoid,
            _ => throw config.Unsupported(key, $"names the activation '{name}'; known are {string.Join(", ", s_names)}"),
        };
    }
}

/// <summary>Dropout where there is any.</summary>
internal static class Regularization
{
    /// <summary>The tensor with elements dropped; the tensor itself outside training or with a probability of zero.</summary>
    public static Tensor WithDropout(this Tensor x, double probability, bool training) =>
        training && probability > 0 ? nn.functional.dropout(x, probability) : x;
}
