using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>One resolution on the way down: residual blocks, each with a transformer or none, and a convolution that halves the picture.</summary>
internal sealed class UNetDownBlock2D : nn.Module<Tensor, Tensor, Tensor, List<Tensor>, Tensor>
{
    [ComponentName(Name = "attentions")]
    private readonly ModuleList<Transformer2DModel>? _attentions;

    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    [ComponentName(Name = "downsamplers")]
    private readonly ModuleList<Downsample2D>? _downsamplers;

    public UNetDownBlock2D(UNetSettings settings, int index)
        : base(settings.DownBlockTypes[index])
    {
        int channels = settings.Channels[index];
        IEnumerable<int> layers = Enumerable.Range(0, settings.LayerCounts[index]);
        _attentions = settings.DownBlockTypes[index] == "CrossAttnDownBlock2D"
            ? new ModuleList<Transformer2DModel>([.. layers.Select(_ => new Transformer2DModel(settings.Transformer(index, settings.OnlyCrossAttention[index])))])
            : null;
        _resnets = new ModuleList<ResnetBlock2D>([.. layers.Select(layer =>
            new ResnetBlock2D(settings.Resnet(layer > 0 ? channels : settings.Channels[Math.Max(index - 1, 0)], channels, settings.ResnetScale)))]);
        _downsamplers = index < settings.Channels.Count - 1
            ? new ModuleList<Downsample2D>(new Downsample2D(channels, settings.DownsamplePadding, settings.Device, settings.DType))
            : null;
        RegisterComponents();
    }

    /// <summary>
    /// Features [batch, channels in, height, width], the time and the text → [batch, channels, height/2, width/2], the same size in the last block.
    /// Every layer's output is added to the list of those that the way up takes again; the list owns them.
    /// </summary>
    public override Tensor forward(Tensor input, Tensor time, Tensor context, List<Tensor> skips)
    {
        Tensor x = input;
        for (int i = 0; i < _resnets.Count; i++)
        {
            Tensor next = _resnets[i].call(x, time);
            if (_attentions is not null)
            {
                using Tensor plain = next;
                next = _attentions[i].call(plain, context);
            }

            skips.Add(x = next);
        }

        if (_downsamplers is not null)
        {
            skips.Add(x = _downsamplers[0].call(x));
        }

        return x;
    }
}
