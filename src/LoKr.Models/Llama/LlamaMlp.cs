using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Llama;

/// <summary>The gated feed-forward layers (SwiGLU, Shazeer, arXiv:2002.05202).</summary>
internal sealed class LlamaMlp : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "gate_proj")]
    private readonly Linear _gate;

    [ComponentName(Name = "up_proj")]
    private readonly Linear _up;

    [ComponentName(Name = "down_proj")]
    private readonly Linear _down;

    private readonly Func<Tensor, Tensor> _activation;

    public LlamaMlp(LlamaSettings settings)
        : base(nameof(LlamaMlp))
    {
        _gate = nn.Linear(settings.HiddenSize, settings.IntermediateSize, settings.HasMlpBias, settings.Device, settings.DType);
        _up = nn.Linear(settings.HiddenSize, settings.IntermediateSize, settings.HasMlpBias, settings.Device, settings.DType);
        _down = nn.Linear(settings.IntermediateSize, settings.HiddenSize, settings.HasMlpBias, settings.Device, settings.DType);
        _activation = settings.Activation;
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _down.call(_activation(_gate.call(input)) * _up.call(input)).MoveToOuterDisposeScope();
    }
}
