using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Bert;

/// <summary>Projection back to the hidden size, residual and normalisation: the end of the attention and of the feed-forward block.</summary>
internal sealed class BertOutput : nn.Module<Tensor, Tensor, Tensor>
{
    [ComponentName(Name = "dense")]
    private readonly Linear _dense;

    [ComponentName(Name = "LayerNorm")]
    private readonly LayerNorm _norm;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    public BertOutput(BertSettings settings, long inputSize)
        : base(nameof(BertOutput))
    {
        _dense = nn.Linear(inputSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.HiddenDropout);
        RegisterComponents();
    }

    /// <summary>Block output [batch, length, input] and residual [batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor residual)
    {
        using DisposeScope scope = NewDisposeScope();
        return _norm.call(_dropout.call(_dense.call(input)) + residual).MoveToOuterDisposeScope();
    }
}
