using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// Cross entropy of next tokens, a block of positions after the other: the logits of a block are used up before the next ones are computed. The
/// vocabulary is the largest dimension of all, and the logits of a batch, their softmax and the gradients of both would be the most memory of a step.
/// </summary>
internal static class NextTokenLoss
{
    /// <summary>Positions in a block: enough to read the output embeddings seldom, few enough for the cache of a processor.</summary>
    internal const int DefaultBlock = 128;

    /// <summary>The mean over all positions, a float32 scalar with its graph.</summary>
    /// <param name="model">The model.</param>
    /// <param name="hidden">Hidden states of the positions that predict a token, [positions, hidden].</param>
    /// <param name="targets">The tokens, int64 [positions].</param>
    /// <param name="block">Positions in a block.</param>
    public static Tensor Mean(ICausalLanguageModel model, Tensor hidden, Tensor targets, int block = DefaultBlock)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor mean = !is_grad_enabled() ? Each(model, hidden, targets, block: block).Losses.mean()
            : hidden.requires_grad && IsHeadFrozen(model, hidden) ? MeanWithGradient(model, hidden, targets, block)
            : nn.functional.cross_entropy(Logits(model, hidden), targets);
        return mean.MoveToOuterDisposeScope();
    }

    /// <summary>The loss of every position, float32 [positions], without a graph.</summary>
    /// <param name="model">The model.</param>
    /// <param name="hidden">Hidden states of the positions that predict a token, [positions, hidden].</param>
    /// <param name="targets">The tokens, int64 [positions].</param>
    /// <param name="withMisses">Whether to find out where another token is more likely.</param>
    /// <param name="block">Positions in a block.</param>
    /// <returns>The losses, and 1 where another token is the most likely one, int64 [positions]; null unless asked for.</returns>
    public static (Tensor Losses, Tensor? Misses) Each(ICausalLanguageModel model, Tensor hidden, Tensor targets, bool withMisses = false, int block = DefaultBlock)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        List<Tensor> losses = [];
        List<Tensor> misses = [];
        for (long start = 0; start < targets.shape[0]; start += block)
        {
            using DisposeScope inner = NewDisposeScope();
            long count = Math.Min(block, targets.shape[0] - start);
            Tensor logits = Logits(model, hidden.narrow(0, start, count));
            Tensor right = targets.narrow(0, start, count);
            losses.Add(nn.functional.cross_entropy(logits, right, reduction: nn.Reduction.None).MoveToOuterDisposeScope());
            if (withMisses)
            {
                misses.Add(logits.argmax(-1).ne(right).to(ScalarType.Int64).MoveToOuterDisposeScope());
            }
        }

        return (cat(losses).MoveToOuterDisposeScope(), withMisses ? cat(misses).MoveToOuterDisposeScope() : null);
    }

    /// <summary>
    /// The mean, whose gradient for the hidden states is known already: softmax − one-hot of the target, through the head, is computed while the logits of
    /// the block are there. It is put into the graph as the slope of a term whose value is zero.
    /// </summary>
    private static Tensor MeanWithGradient(ICausalLanguageModel model, Tensor hidden, Tensor targets, int block)
    {
        long all = targets.shape[0];
        Tensor gradient = empty(hidden.shape, ScalarType.Float32, hidden.device);
        List<Tensor> losses = [];
        for (long start = 0; start < all; start += block)
        {
            using DisposeScope inner = NewDisposeScope();
            long count = Math.Min(block, all - start);
            Tensor rows = hidden.detach().narrow(0, start, count).requires_grad_(true);
            Tensor logits = model.Project(rows);
            Tensor ofLogits;
            using (no_grad())
            {
                Tensor logarithms = nn.functional.log_softmax(logits.to(ScalarType.Float32), -1);
                Tensor right = targets.narrow(0, start, count).unsqueeze(1);
                losses.Add(logarithms.gather(1, right).neg_().MoveToOuterDisposeScope());
                ofLogits = logarithms.exp_().scatter_add_(1, right, full([count, 1], -1f, device: hidden.device)).to(logits.dtype);
            }

            Tensor ofRows = autograd.grad([logits], [rows], [ofLogits])[0];
            gradient.narrow(0, start, count).copy_(ofRows);
        }

        Tensor slope = (hidden.to(ScalarType.Float32) * gradient).sum() / all;
        return cat(losses).mean() + (slope - slope.detach());
    }

    // One position tells: whatever the head is, and whichever adapters or trained modules are on it.
    private static bool IsHeadFrozen(ICausalLanguageModel model, Tensor hidden)
    {
        using DisposeScope scope = NewDisposeScope();
        return !model.Project(hidden.detach().narrow(0, 0, 1)).requires_grad;
    }

    private static Tensor Logits(ICausalLanguageModel model, Tensor hidden) => model.Project(hidden).to(ScalarType.Float32);
}
