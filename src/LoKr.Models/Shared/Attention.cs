using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Shared;

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
