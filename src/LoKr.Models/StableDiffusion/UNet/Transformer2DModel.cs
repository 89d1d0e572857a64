using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>A transformer over the pixels of a feature map, added to it.</summary>
internal sealed class Transformer2DModel : nn.Module<Tensor, Tensor, Tensor>
{
    private const double Epsilon = 1e-6;

    [ComponentName(Name = "norm")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "proj_in")]
    private readonly nn.Module<Tensor, Tensor> _in;

    [ComponentName(Name = "transformer_blocks")]
    private readonly ModuleList<BasicTransformerBlock> _blocks;

    [ComponentName(Name = "proj_out")]
    private readonly nn.Module<Tensor, Tensor> _out;

    private readonly bool _linear;

    public Transformer2DModel(TransformerSettings settings)
        : base(nameof(Transformer2DModel))
    {
        _linear = settings.HasLinearProjection;
        _norm = nn.GroupNorm(settings.GroupCount, settings.Channels, Epsilon, device: settings.Device, dtype: settings.DType);
        _in = Project();
        _blocks = new ModuleList<BasicTransformerBlock>([.. Enumerable.Range(0, settings.Depth).Select(_ => new BasicTransformerBlock(settings))]);
        _out = Project();
        RegisterComponents();

        nn.Module<Tensor, Tensor> Project() => _linear
            ? nn.Linear(settings.Channels, settings.Channels, device: settings.Device, dtype: settings.DType)
            : nn.Conv2d(settings.Channels, settings.Channels, 1, device: settings.Device, dtype: settings.DType);
    }

    /// <summary>Features [batch, channels, height, width] and the text's hidden states [batch, length, width] → features of the same shape.</summary>
    public override Tensor forward(Tensor input, Tensor context)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _norm.call(input);
        x = _linear ? _in.call(Rows(x)) : Rows(_in.call(x));
        foreach (BasicTransformerBlock block in _blocks)
        {
            Tensor next = block.call(x, context);
            x.Dispose();
            x = next;
        }

        x = _linear ? Map(_out.call(x), input.shape) : _out.call(Map(x, input.shape));
        return (x + input).MoveToOuterDisposeScope();
    }

    private static Tensor Rows(Tensor map) => map.flatten(2).transpose(1, 2);

    private static Tensor Map(Tensor rows, long[] shape) => rows.transpose(1, 2).reshape(shape);
}
