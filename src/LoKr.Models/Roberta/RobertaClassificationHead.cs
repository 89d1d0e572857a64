using LoKr.Models.Bert;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Roberta;

/// <summary>Two layers on the first token's hidden state.</summary>
internal sealed class RobertaClassificationHead : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "dense")]
    private readonly Linear _dense;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    [ComponentName(Name = "out_proj")]
    private readonly Linear _output;

    public RobertaClassificationHead(BertSettings settings, int labels)
        : base(nameof(RobertaClassificationHead))
    {
        _dense = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.ClassifierDropout);
        _output = nn.Linear(settings.HiddenSize, labels, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] → logits [batch, labels].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _dense.call(_dropout.call(input.select(1, 0))).tanh();
        return _output.call(_dropout.call(x)).MoveToOuterDisposeScope();
    }
}
