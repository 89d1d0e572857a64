using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>The fused projection of queries, keys and values in <c>torch.nn.MultiheadAttention</c>: one linear layer of three times the width.</summary>
internal sealed class AttentionInputBaseLayer(string name, MultiheadAttention attention) : LinearKindBaseLayer(name, attention)
{
    /// <inheritdoc/>
    public override Parameter Weight => new AttentionParameters(attention).InputWeight;

    /// <inheritdoc/>
    public override string? LoraObstacle => "PEFT stores LoRA on a MultiheadAttention in a layout of its own";

    /// <inheritdoc/>
    protected override Tensor? Bias => new AttentionParameters(attention).InputBias;

    /// <inheritdoc/>
    protected override IDisposable Hook(ForwardHooks hooks, IOutputAdapter adapter) => hooks.OnAttention(attention, isOutput: false, adapter);
}

/// <summary>The projection of the result in <c>torch.nn.MultiheadAttention</c>. In PyTorch it is a module <c>out_proj</c> that never runs on its own; TorchSharp has no such module, but the name is the same here.</summary>
internal sealed class AttentionOutputBaseLayer(string name, MultiheadAttention attention) : LinearKindBaseLayer(name, attention)
{
    /// <inheritdoc/>
    public override string TypeName => nameof(Linear);

    /// <inheritdoc/>
    public override bool HasLoKrInPeft => true;

    /// <inheritdoc/>
    public override Parameter Weight => new AttentionParameters(attention).OutputWeight;

    /// <inheritdoc/>
    public override string? LoraObstacle => "PEFT stores LoRA on a MultiheadAttention in a layout of its own";

    /// <inheritdoc/>
    protected override Tensor? Bias => new AttentionParameters(attention).OutputBias;

    /// <inheritdoc/>
    protected override IDisposable Hook(ForwardHooks hooks, IOutputAdapter adapter) => hooks.OnAttention(attention, isOutput: true, adapter);
}

/// <summary>
/// Adapts the projections inside <c>torch.nn.MultiheadAttention</c>, where no hook reaches. While an adapter runs, a hook before the module
/// passes it one position only, which costs next to nothing, and a hook after it returns the result of the whole attention instead, computed
/// here with the module's own parameters and the factorized contributions. No part of the module is replaced. Other forward hooks on the
/// same module that are called after this one see the shortened inputs.
/// </summary>
internal sealed class AttentionHook
{
    private readonly MultiheadAttention _module;
    private readonly AttentionTraits _traits;
    private readonly Action _remove;
    private IOutputAdapter? _input;
    private IOutputAdapter? _output;
    private Call? _call;

    public AttentionHook(MultiheadAttention module)
    {
        _module = module;
        _traits = new(module);
        var before = module.register_forward_pre_hook((_, query, key, value, padding, needWeights, mask) => Before(query, key, value, padding, needWeights, mask));
        var after = module.register_forward_hook((_, _, _, _, _, _, _, result) => After(result)!);
        _remove = () =>
        {
            before.remove();
            after.remove();
        };
    }

    /// <summary>Whether no projection is adapted any more.</summary>
    public bool IsIdle => _input is null && _output is null;

    /// <summary>Sets what changes the output of one of the projections; null for nothing.</summary>
    public void Set(bool isOutput, IOutputAdapter? adapter)
    {
        if (isOutput)
        {
            _output = adapter;
        }
        else
        {
            _input = adapter;
        }
    }

    /// <summary>Removes the hooks.</summary>
    public void Remove() => _remove();

    private (Tensor, Tensor, Tensor, Tensor, bool, Tensor)? Before(Tensor query, Tensor key, Tensor value, Tensor? padding, bool needWeights, Tensor? mask)
    {
        _call = null;
        if (_input?.IsRunning != true && _output?.IsRunning != true)
        {
            return null;
        }

        if (query.dim() != 3 || key.dim() != 3 || value.dim() != 3)
        {
            // The module itself reports the wrong shape.
            return null;
        }

        // Probes run the module, so they come first.
        _ = _traits.Structure;
        _ = _module.training ? _traits.Dropout : 0;
        using DisposeScope scope = NewDisposeScope();
        Tensor[] first = [.. new[] { query, key, value }.Select(static tensor => tensor.detach().narrow(0, 0, 1).narrow(1, 0, 1).DetachFromDisposeScope())];
        _call = new(query, key, value, padding, needWeights, mask, first);
        return (first[0], first[1], first[2], null!, needWeights, null!);
    }

    private Tuple<Tensor, Tensor>? After(Tuple<Tensor, Tensor> result)
    {
        if (_call is not Call call)
        {
            return null;
        }

        _call = null;
        result.Item1.Dispose();
        foreach (Tensor tensor in call.First)
        {
            tensor.Dispose();
        }

        (Tensor output, Tensor? weights) = Attend(call);
        if (weights is null)
        {
            // An empty handle, as the module itself returns it.
            return Tuple.Create(output, result.Item2);
        }

        result.Item2.Dispose();
        return Tuple.Create(output, weights);
    }

    private (Tensor Output, Tensor? Weights) Attend(Call call)
    {
        using DisposeScope scope = NewDisposeScope();
        AttentionParameters parameters = new(_module);
        (long heads, bool addsZero) = _traits.Structure;
        (Tensor q, Tensor k, Tensor v) = Project(call, parameters);
        (long length, long batch, long embed) = (q.shape[0], q.shape[1], q.shape[2]);
        long extra = 0;
        if (parameters.ExtraKey is Parameter extraKey)
        {
            k = cat([k, extraKey.expand(1, batch, embed)]);
            v = cat([v, parameters.ExtraValue!.expand(1, batch, embed)]);
            extra++;
        }

        Tensor Split(Tensor tensor) => tensor.reshape(tensor.shape[0], batch * heads, embed / heads).transpose(0, 1);
        (q, k, v) = (Split(q * Math.Pow(embed / heads, -0.5)), Split(k), Split(v));
        if (addsZero)
        {
            Tensor zero = zeros([batch * heads, 1, embed / heads], k.dtype, k.device);
            (k, v) = (cat([k, zero], 1), cat([v, zero], 1));
            extra++;
        }

        Tensor scores = q.bmm(k.transpose(1, 2));
        if (call.Mask is Tensor mask)
        {
            scores = Hide(scores, Widen(mask, extra));
        }

        if (call.Padding is Tensor padding)
        {
            Tensor hidden = Widen(padding, extra).unsqueeze(1).unsqueeze(2);
            scores = Hide(scores.view(batch, heads, length, k.shape[1]), hidden).view(batch * heads, length, k.shape[1]);
        }

        Tensor weights = nn.functional.softmax(scores, -1);
        if (_module.training && _traits.Dropout > 0)
        {
            weights = nn.functional.dropout(weights, _traits.Dropout, training: true);
        }

        Tensor attended = weights.bmm(v).transpose(0, 1).reshape(length, batch, embed);
        Tensor output = Run(_output, attended, parameters.OutputWeight, parameters.OutputBias);
        Tensor? mean = call.NeedWeights ? weights.view(batch, heads, length, k.shape[1]).mean([1]) : null;
        return (output.MoveToOuterDisposeScope(), mean?.MoveToOuterDisposeScope());
    }

    /// <summary>Queries, keys and values after the fused projection. A tensor that is all three is projected once.</summary>
    private (Tensor Query, Tensor Key, Tensor Value) Project(Call call, AttentionParameters parameters)
    {
        Tensor[] inputs = [call.Query, call.Key, call.Value];
        long embed = parameters.InputWeight.shape[1];
        if (ReferenceEquals(call.Query, call.Key) && ReferenceEquals(call.Key, call.Value))
        {
            Tensor[] parts = Run(_input, call.Query, parameters.InputWeight, parameters.InputBias).chunk(3, -1);
            return (parts[0], parts[1], parts[2]);
        }

        Tensor Block(int index)
        {
            Tensor weight = parameters.InputWeight.narrow(0, index * embed, embed);
            Tensor? bias = parameters.InputBias?.narrow(0, index * embed, embed);
            return nn.functional.linear(inputs[index], weight, bias);
        }

        if (_input?.IsRunning != true)
        {
            return (Block(0), Block(1), Block(2));
        }

        // One pass for all, so that dropout is drawn once: rows of the input side by side, each with its own third of the output.
        Tensor flat = cat([.. inputs.Select(input => input.reshape(-1, embed))]);
        Tensor wide = cat([.. Enumerable.Range(0, 3).Select(index => nn.functional.pad(Block(index).reshape(-1, embed), [index * embed, (2 - index) * embed]))]);
        Tensor adapted = _input.Adapt(flat, wide)!;
        long first = 0;
        Tensor[] results = new Tensor[3];
        for (int i = 0; i < 3; i++)
        {
            long rows = inputs[i].numel() / embed;
            results[i] = adapted.narrow(0, first, rows).narrow(1, i * embed, embed).reshape(inputs[i].shape);
            first += rows;
        }

        return (results[0], results[1], results[2]);
    }

    private static Tensor Run(IOutputAdapter? adapter, Tensor x, Parameter weight, Parameter? bias)
    {
        Tensor y = nn.functional.linear(x, weight, bias);
        return adapter?.Adapt(x, y) ?? y;
    }

    /// <summary>A mask for the keys that were added, which are never hidden.</summary>
    private static Tensor Widen(Tensor mask, long extra) =>
        extra == 0 ? mask : cat([mask, zeros([.. mask.shape.AsSpan(0, (int)mask.dim() - 1), extra], mask.dtype, mask.device)], -1);

    private static Tensor Hide(Tensor scores, Tensor mask) =>
        mask.dtype == ScalarType.Bool ? scores.masked_fill(mask, double.NegativeInfinity) : scores + mask;

    private sealed record Call(Tensor Query, Tensor Key, Tensor Value, Tensor? Padding, bool NeedWeights, Tensor? Mask, Tensor[] First);
}
