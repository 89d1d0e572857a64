using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.ClipText;

/// <summary>Token and position embeddings, summed.</summary>
internal sealed class ClipTextEmbeddings : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "token_embedding")]
    private readonly Shared.Embedding _tokens;

    [ComponentName(Name = "position_embedding")]
    private readonly Shared.Embedding _positions;

    public ClipTextEmbeddings(ClipTextSettings settings)
        : base(nameof(ClipTextEmbeddings))
    {
        _tokens = new Shared.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _positions = new Shared.Embedding(settings.PositionCount, settings.HiddenSize, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor positions = arange(input.shape[1], ScalarType.Int64, input.device).unsqueeze(0);
        return (_tokens.call(input) + _positions.call(positions)).MoveToOuterDisposeScope();
    }
}
