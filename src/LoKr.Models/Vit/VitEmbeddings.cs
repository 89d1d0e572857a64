using LoKr.Core.Modeling;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Vit;

/// <summary>Patch embeddings behind the class token, plus position embeddings.</summary>
internal sealed class VitEmbeddings : nn.Module<Tensor, Tensor>, IParameterOwner
{
    [ComponentName(Name = "cls_token")]
    private Parameter _classToken;

    [ComponentName(Name = "position_embeddings")]
    private Parameter _positions;

    [ComponentName(Name = "patch_embeddings")]
    private readonly VitPatchEmbeddings _patches;

    private readonly double _dropout;

    public VitEmbeddings(VitSettings settings)
        : base(nameof(VitEmbeddings))
    {
        _classToken = Make(1);
        _positions = Make(settings.PatchCount + 1);
        _patches = new VitPatchEmbeddings(settings);
        _dropout = settings.HiddenDropout;
        RegisterComponents();

        Parameter Make(long count) => (Parameter)nn.Parameter(
            empty(1, count, settings.HiddenSize, device: settings.Device, dtype: settings.DType)).DetachFromDisposeScope();
    }

    /// <summary>Images [batch, channels, height, width] → [batch, patches + 1, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor patches = _patches.call(input);
        Tensor x = cat([_classToken.expand(patches.shape[0], -1, -1), patches], 1) + _positions;
        return nn.functional.dropout(x, _dropout, training).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void SetParameter(string name, Parameter parameter)
    {
        switch (name)
        {
            case "cls_token":
                Replace(ref _classToken, name, parameter);
                break;
            case "position_embeddings":
                Replace(ref _positions, name, parameter);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(name), name, "The embeddings have a cls_token and position_embeddings.");
        }
    }

    private void Replace(ref Parameter place, string name, Parameter parameter)
    {
        if (!ReferenceEquals(place, parameter))
        {
            place.Dispose();
            place = (Parameter)parameter.DetachFromDisposeScope();
            ConditionallyRegisterParameter(name, place);
        }
    }
}
