using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>The fused projection of queries, keys and values in <c>torch.nn.MultiheadAttention</c>: one linear layer of three times the width.</summary>
internal sealed class AttentionInputBaseLayer(string name, MultiheadAttention attention) : LinearKindBaseLayer(name, attention)
{
    /// <inheritdoc/>
    public override Parameter Weight => new AttentionParameters(attention).InputWeight;

    /// <inheritdoc/>
    public override string? LoraObstacle => "PEFT keeps LoRA on a MultiheadAttention in a layout of its own";

    /// <inheritdoc/>
    protected override Tensor? Bias => new AttentionParameters(attention).InputBias;

    /// <inheritdoc/>
    protected override IDisposable Hook(ForwardHooks hooks, LayerHost host) => hooks.OnAttention(attention, isOutput: false, host);
}
