using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.DistilBert;

/// <summary>One encoder layer: attention block, feed-forward block.</summary>
internal sealed class DistilBertLayer : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "attention")]
    private readonly DistilBertAttention _attention;

    [ComponentName(Name = "sa_layer_norm")]
    private readonly LayerNorm _attentionNorm;

    [ComponentName(Name = "ffn")]
    private readonly DistilBertFeedForward _feedForward;

    [ComponentName(Name = "output_layer_norm")]
    private readonly LayerNorm _outputNorm;

    public DistilBertLayer(DistilBertSettings settings)
        : base(nameof(DistilBertLayer))
    {
        _attention = new DistilBertAttention(settings);
        _attentionNorm = nn.LayerNorm([settings.HiddenSize], DistilBertSettings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _feedForward = new DistilBertFeedForward(settings);
        _outputNorm = nn.LayerNorm([settings.HiddenSize], DistilBertSettings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor attended = _attentionNorm.call(_attention.call(input, mask) + input);
        return _outputNorm.call(_feedForward.call(attended) + attended).MoveToOuterDisposeScope();
    }
}
