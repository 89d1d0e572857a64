using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>One resolution on the way up: residual blocks that take a feature map of the way down each, with a transformer or none, and doubling.</summary>
internal sealed class UNetUpBlock2D : nn.Module<Tensor, Tensor, Tensor, Stack<Tensor>, Tensor>
{
    [ComponentName(Name = "attentions")]
    private readonly ModuleList<Transformer2DModel>? _attentions;

    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    [ComponentName(Name = "upsamplers")]
    private readonly ModuleList<Upsample2D>? _upsamplers;

    /// <summary>Makes the block.</summary>
    /// <param name="settings">Of the UNet.</param>
    /// <param name="index">Index among the up blocks.</param>
    public UNetUpBlock2D(UNetSettings settings, int index)
        : base(settings.UpBlockTypes[index])
    {
        int last = settings.Channels.Count - 1;
        int level = last - index;
        int channels = settings.Channels[level];
        int before = settings.Channels[Math.Min(level + 1, last)];
        int below = settings.Channels[Math.Max(level - 1, 0)];
        int count = settings.LayerCounts[level] + 1;
        IEnumerable<int> layers = Enumerable.Range(0, count);
        _attentions = settings.UpBlockTypes[index] == "CrossAttnUpBlock2D"
            ? new ModuleList<Transformer2DModel>([.. layers.Select(_ => new Transformer2DModel(settings.Transformer(level, settings.OnlyCrossAttention[level])))])
            : null;

        // The last of the maps taken again is the one that entered this resolution on the way down.
        _resnets = new ModuleList<ResnetBlock2D>([.. layers.Select(layer => new ResnetBlock2D(settings.Resnet(
            (layer == 0 ? before : channels) + (layer == count - 1 ? below : channels), channels, settings.ResnetScale)))]);
        _upsamplers = level > 0 ? new ModuleList<Upsample2D>(new Upsample2D(channels, settings.Device, settings.DType)) : null;
        RegisterComponents();
    }

    /// <summary>
    /// Features [batch, channels before, height, width], the time and the text → [batch, channels, 2·height, 2·width], the same size in the last block.
    /// Takes the maps of the way down off their stack; the input and they are disposed.
    /// </summary>
    public override Tensor forward(Tensor input, Tensor time, Tensor context, Stack<Tensor> skips)
    {
        Tensor x = input;
        for (int i = 0; i < _resnets.Count; i++)
        {
            using Tensor before = x;
            using Tensor skip = skips.Pop();
            using Tensor both = cat([before, skip], 1);
            x = _resnets[i].call(both, time);
            if (_attentions is not null)
            {
                using Tensor plain = x;
                x = _attentions[i].call(plain, context);
            }
        }

        if (_upsamplers is null)
        {
            return x;
        }

        using Tensor small = x;
        long[] size = skips.Peek().shape;
        return _upsamplers[0].call(small, (size[2], size[3]));
    }
}
