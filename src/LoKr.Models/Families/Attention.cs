using LoKr.Core.Errors;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>What every attention layer does, around torch's scaled dot-product attention.</summary>
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

        long[] s = x.shape;
        return x.unsqueeze(2).expand(s[0], s[1], groups, s[2], s[3]).reshape(s[0], s[1] * groups, s[2], s[3]);
    }

    /// <summary>softmax(q·kᵀ/√width + mask)·v.</summary>
    /// <param name="query">[batch, heads, length, width].</param>
    /// <param name="key">[batch, heads, key length, width].</param>
    /// <param name="value">[batch, heads, key length, width].</param>
    /// <param name="mask">Boolean (true takes part) or additive, broadcastable to [batch, heads, length, key length]; null keeps torch's fast kernels.</param>
    /// <param name="causal">Each position sees itself and the ones before; only without a mask.</param>
    /// <param name="dropout">Probability of dropping an attention weight; zero outside training.</param>
    public static Tensor ScaledDotProduct(Tensor query, Tensor key, Tensor value, Tensor? mask = null, bool causal = false, double dropout = 0) =>
        nn.functional.scaled_dot_product_attention(query, key, value, mask, dropout, causal);

    /// <summary>
    /// The boolean mask [batch, 1, 1, length] of a padding mask [batch, length] with 1 for tokens and 0 for padding;
    /// null when nothing is padded, so that attention runs without a mask.
    /// </summary>
    public static Tensor? PaddingMask(Tensor? attentionMask)
    {
        if (attentionMask is null)
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor keep = attentionMask.ne(0);
        return keep.all().item<bool>() ? null : keep.unsqueeze(1).unsqueeze(1).MoveToOuterDisposeScope();
    }
}

/// <summary>Masks of layers that only look back, made only where torch's causal attention cannot do without.</summary>
internal static class CausalMask
{
    /// <summary>Whether every position sees itself and all before it, so that no mask is needed.</summary>
    /// <param name="padding">Boolean [batch, 1, 1, length], or null.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="window">Most positions that one sees, itself included; null for all.</param>
    public static bool IsPlain(Tensor? padding, long length, int? window) => padding is null && (window is null || length <= window);

    /// <summary>
    /// The boolean mask (true takes part), [1 or batch, 1, length, length], or null where <see cref="IsPlain"/> says that none is needed.
    /// </summary>
    /// <param name="padding">Boolean [batch, 1, 1, length], or null.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="window">Most positions that one sees, itself included; null for all.</param>
    /// <param name="device">Device of the mask.</param>
    public static Tensor? Create(Tensor? padding, long length, int? window, Device device)
    {
        if (IsPlain(padding, length, window))
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor mask = ones(length, length, dtype: ScalarType.Bool, device: device).tril_();
        if (window is int width && width < length)
        {
            mask = mask.triu_(1 - width);
        }

        mask = mask.unsqueeze(0).unsqueeze(0);
        return (padding is null ? mask : mask.logical_and(padding)).MoveToOuterDisposeScope();
    }
}

/// <summary>Activation functions by the names that configurations use.</summary>
internal static class Activation
{
    private static readonly string[] _names =
        ["gelu", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "mish", "quick_gelu", "relu", "relu6", "sigmoid", "silu", "swish", "tanh"];

    /// <summary>The function that a key of the configuration names; an unknown one is an error that lists the known ones.</summary>
    public static Func<Tensor, Tensor> Get(ModelConfig config, string key, string? defaultName = null)
    {
        string name = config.GetString(key, defaultName) ?? config.GetString(key);
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
            _ => throw config.Unsupported(key, $"names the activation '{name}'; known are {string.Join(", ", _names)}"),
        };
    }
}

/// <summary>Checks of a batch of token ids before it reaches the model.</summary>
internal static class TokenInput
{
    /// <summary>Refuses a batch that does not fit with <see cref="ErrorIds.ModelInputInvalid"/>.</summary>
    /// <param name="architecture">Name of the model for the message.</param>
    /// <param name="inputIds">Token ids, to be int64 [batch, length].</param>
    /// <param name="attentionMask">Mask of the same shape, or null.</param>
    /// <param name="vocabularySize">Number of embeddings.</param>
    /// <param name="positions">Longest sequence that has positions; null where they are not a table.</param>
    public static void Check(string architecture, Tensor inputIds, Tensor? attentionMask, int vocabularySize, int? positions = null)
    {
        ArgumentNullException.ThrowIfNull(inputIds);
        string? problem =
            inputIds.dim() != 2 || inputIds.dtype != ScalarType.Int64 ? $"token ids are {inputIds.dtype} [{string.Join(", ", inputIds.shape)}], not int64 [batch, length]"
            : inputIds.numel() == 0 ? $"token ids are empty: [{string.Join(", ", inputIds.shape)}]"
            : inputIds.shape[1] > positions ? $"sequences have {inputIds.shape[1]} tokens, more than the {positions} the model has positions for"
            : attentionMask is not null && !attentionMask.shape.SequenceEqual(inputIds.shape) ? $"the attention mask is [{string.Join(", ", attentionMask.shape)}], the token ids [{string.Join(", ", inputIds.shape)}]"
            : HasUnknownIds(inputIds, vocabularySize) ? $"a token id is not between 0 and {vocabularySize - 1}"
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument, $"{architecture}: {problem}.", "Encode texts with the tokenizer of the model, cut to its longest sequence.");
        }
    }

    // Worth a look at the values: on a GPU an id outside the table would end the process's use of the device.
    private static bool HasUnknownIds(Tensor inputIds, int vocabularySize)
    {
        using DisposeScope scope = NewDisposeScope();
        return inputIds.lt(0).logical_or(inputIds.ge(vocabularySize)).any().item<bool>();
    }
}
