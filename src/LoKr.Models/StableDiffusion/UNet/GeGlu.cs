using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>A linear layer of twice the width, one half of which gates the other (Shazeer, arXiv:2002.05202).</summary>
internal sealed class GeGlu : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "proj")]
    private readonly Linear _projection;

    public GeGlu(TransformerSettings settings, int width)
        : base("GEGLU")
    {
        _projection = nn.Linear(settings.Channels, width * 2, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>[batch, pixels, channels] → [batch, pixels, width].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] parts = _projection.call(input).chunk(2, -1);
        return (parts[0] * nn.functional.gelu(parts[1])).MoveToOuterDisposeScope();
    }
}
