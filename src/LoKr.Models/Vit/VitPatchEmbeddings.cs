using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Vit;

/// <summary>One vector a patch: a convolution whose kernel and stride are the patch.</summary>
internal sealed class VitPatchEmbeddings : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "projection")]
    private readonly Conv2d _projection;

    public VitPatchEmbeddings(VitSettings settings)
        : base(nameof(VitPatchEmbeddings))
    {
        (long, long) patch = (settings.PatchHeight, settings.PatchWidth);
        _projection = nn.Conv2d(settings.ChannelCount, settings.HiddenSize, patch, stride: patch, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Images [batch, channels, height, width] in any floating-point type → [batch, patches, hidden] in the model's.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _projection.call(input.to(_projection.weight.dtype)).flatten(2).transpose(1, 2).MoveToOuterDisposeScope();
    }
}
