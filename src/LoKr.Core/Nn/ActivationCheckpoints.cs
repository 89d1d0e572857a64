using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>
/// Gradient checkpointing (Chen et al., arXiv:1604.06174) by block: the forward pass stores the input of each block and nothing in between,
/// the backward pass runs the block once more. Exact: dropout draws the same numbers the second time.
/// </summary>
/// <remarks>
/// The graph of a loss ends at the outputs of the blocks, which are leaves. After the loss's own backward pass, <see cref="Backward"/> carries
/// their gradients through the blocks, last first. No autograd function in managed code is needed.
/// </remarks>
public sealed class ActivationCheckpoints : IDisposable
{
    private readonly HashSet<nn.Module> _trained;
    private readonly Dictionary<nn.Module, bool> _trains = [];
    private readonly List<Segment> _segments = [];
    private readonly List<Tensor> _kept = [];
    private readonly List<(Tensor Computed, Tensor Leaf)> _shared = [];

    /// <summary>Creates an empty list.</summary>
    /// <param name="trained">Modules that are trained, or whose adapters are: a block with none of them, and nothing trained before it, needs no gradient.</param>
    public ActivationCheckpoints(IEnumerable<nn.Module> trained) => _trained = new(trained, ReferenceEqualityComparer.Instance);

    /// <summary>Number of blocks that wait for <see cref="Backward"/>.</summary>
    internal int Count => _segments.Count;

    /// <summary>Runs a block. Without gradients it just runs.</summary>
    /// <param name="block">The block, to know whether it trains anything.</param>
    /// <param name="x">Its input.</param>
    /// <param name="forward">Runs the block; called again in the backward pass, so other tensors it reads must be <see cref="Hold">kept</see> or <see cref="Share">shared</see>.</param>
    /// <returns>The output, in the caller's dispose scope.</returns>
    public Tensor Run(nn.Module block, Tensor x, Func<Tensor, Tensor> forward)
    {
        ArgumentNullException.ThrowIfNull(block);
        ArgumentNullException.ThrowIfNull(x);
        ArgumentNullException.ThrowIfNull(forward);
        if (!is_grad_enabled() || !(x.requires_grad || Trains(block)))
        {
            return forward(x);
        }

        DropoutState dropout = DropoutState.Start(x.device);
        Tensor output;
        using (no_grad())
        {
            using Tensor computed = forward(x);
            output = computed.detach().DetachFromDisposeScope();
        }

        output.requires_grad = true;
        _segments.Add(new(x.alias().DetachFromDisposeScope(), output, forward, dropout));

        // Not the leaf itself: the caller may dispose the result.
        return output.alias();
    }

    /// <summary>A tensor that lives until the backward pass is over, for blocks to read; shares memory.</summary>
    public Tensor? Hold(Tensor? tensor)
    {
        if (tensor is null)
        {
            return null;
        }

        Tensor kept = tensor.alias().DetachFromDisposeScope();
        _kept.Add(kept);
        return kept;
    }

    /// <summary>
    /// The same for a tensor that is computed once, from something that may be trained, and read by several blocks: their gradients meet in it
    /// and then go on to what it was computed from.
    /// </summary>
    public Tensor Share(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        if (!is_grad_enabled() || !tensor.requires_grad)
        {
            return Hold(tensor)!;
        }

        Tensor leaf = tensor.detach().DetachFromDisposeScope();
        leaf.requires_grad = true;
        _shared.Add((tensor.alias().DetachFromDisposeScope(), leaf));
        return leaf;
    }

    /// <summary>Carries the gradients that a loss's backward pass has left at the outputs through the blocks, then forgets them.</summary>
    public void Backward()
    {
        try
        {
            using IDisposable gradients = enable_grad();
            for (int i = _segments.Count - 1; i >= 0; i--)
            {
                using Segment segment = _segments[i];
                _segments.RemoveAt(i);
                RunBack(segment);
            }

            foreach ((Tensor computed, Tensor leaf) in _shared)
            {
                if (leaf.grad is Tensor gradient)
                {
                    computed.backward([gradient]);
                }
            }
        }
        finally
        {
            Clear();
        }
    }

    /// <summary>Forgets everything.</summary>
    public void Clear()
    {
        foreach (Segment segment in _segments)
        {
            segment.Dispose();
        }

        foreach (Tensor tensor in _kept)
        {
            tensor.Dispose();
        }

        foreach ((Tensor computed, Tensor leaf) in _shared)
        {
            leaf.grad = null;
            leaf.Dispose();
            computed.Dispose();
        }

        _segments.Clear();
        _kept.Clear();
        _shared.Clear();
    }

    /// <inheritdoc/>
    public void Dispose() => Clear();

    private static void RunBack(Segment segment)
    {
        using DisposeScope scope = NewDisposeScope();
        if (segment.Output.grad is not Tensor gradient)
        {
            // The loss does not depend on it.
            return;
        }

        Tensor input = segment.Input.detach();
        input.requires_grad = segment.Input.requires_grad;
        DropoutState after = DropoutState.Start(input.device);
        segment.Dropout.Restore();
        Tensor output = segment.Forward(input);
        after.Restore();
        after.Dispose();
        output.backward([gradient]);
        if (input.grad is Tensor inputGradient)
        {
            segment.Input.backward([inputGradient]);
        }
    }

    private bool Trains(nn.Module block)
    {
        if (!_trains.TryGetValue(block, out bool trains))
        {
            _trains.Add(block, trains = block.modules().Append(block).Any(_trained.Contains));
        }

        return trains;
    }

    private sealed record Segment(Tensor Input, Tensor Output, Func<Tensor, Tensor> Forward, DropoutState Dropout) : IDisposable
    {
        public void Dispose()
        {
            Input.Dispose();
            Output.grad = null;
            Output.Dispose();
            Dropout.Dispose();
        }
    }
}

/// <summary>The state of the random number generators when a block ran, to run it again with the same dropout.</summary>
internal sealed class DropoutState : IDisposable
{
    private readonly Tensor _state;
    private readonly long? _seed;

    private DropoutState(Tensor state, long? seed) => (_state, _seed) = (state, seed);

    /// <summary>Remembers the state of the CPU's generator. The state of a GPU's cannot be read from here: it is seeded with a drawn number instead.</summary>
    public static DropoutState Start(Device device)
    {
        long? seed = null;
        if (device.type == DeviceType.CUDA)
        {
            using Tensor drawn = randint(0, int.MaxValue, [1], ScalarType.Int64);
            seed = drawn.ToInt64();
            cuda.manual_seed_all(seed.Value);
        }

        return new(random.get_rng_state().DetachFromDisposeScope(), seed);
    }

    /// <summary>Restores that state.</summary>
    public void Restore()
    {
        random.set_rng_state(_state);
        if (_seed is long seed)
        {
            cuda.manual_seed_all(seed);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _state.Dispose();
}
