using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.DistilBert;

/// <summary>Word and position embeddings, summed and normalised.</summary>
internal sealed class DistilBertEmbeddings : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "word_embeddings")]
    private readonly Shared.Embedding _words;

    [ComponentName(Name = "position_embeddings")]
    private readonly Shared.Embedding _positions;

    [ComponentName(Name = "LayerNorm")]
    private readonly LayerNorm _norm;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    public DistilBertEmbeddings(DistilBertSettings settings)
        : base(nameof(DistilBertEmbeddings))
    {
        _words = new Shared.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _positions = new Shared.Embedding(settings.PositionCount, settings.HiddenSize, settings.Device, settings.DType);
        _norm = nn.LayerNorm([settings.HiddenSize], DistilBertSettings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.HiddenDropout);
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor positions = arange(input.shape[1], ScalarType.Int64, input.device).unsqueeze(0);
        Tensor x = _words.call(input) + _positions.call(positions);
        return _dropout.call(_norm.call(x)).MoveToOuterDisposeScope();
    }
}
