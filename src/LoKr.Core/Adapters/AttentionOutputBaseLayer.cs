using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>The projection of the result in <c>torch.nn.MultiheadAttention</c>. PyTorch has it as a module <c>out_proj</c> that never runs by itself; here it is none, and has its name all the same.</summary>
internal sealed class AttentionOutputBaseLayer(string name, MultiheadAttention attention) : LinearKindBaseLayer(name, attention)
{
    /// <inheritdoc/>
    public override string TypeName => nameof(Linear);

    /// <inheritdoc/>
    public override Parameter Weight => new AttentionParameters(attention).OutputWeight;

    /// <inheritdoc/>
    public override string? LoraObstacle => "PEFT keeps LoRA on a MultiheadAttention in a layout of its own";

    /// <inheritdoc/>
    protected override Tensor? Bias => new AttentionParameters(attention).OutputBias;

    /// <inheritdoc/>
    protected override IDisposable Hook(ForwardHooks hooks, LayerHost host) => hooks.OnAttention(attention, isOutput: true, host);
}
