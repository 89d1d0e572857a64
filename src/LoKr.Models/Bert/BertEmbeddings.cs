using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Bert;

/// <summary>Word, token type and position embeddings, summed and normalised. Every token has type 0: one text, no pair.</summary>
internal sealed class BertEmbeddings : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "word_embeddings")]
    private readonly Shared.Embedding _words;

    [ComponentName(Name = "token_type_embeddings")]
    private readonly Shared.Embedding _tokenTypes;

    [ComponentName(Name = "LayerNorm")]
    private readonly LayerNorm _norm;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    [ComponentName(Name = "position_embeddings")]
    private readonly Shared.Embedding _positions;

    private readonly Func<Tensor, Tensor> _positionIds;

    /// <summary>Makes the tables.</summary>
    /// <param name="settings">Sizes.</param>
    /// <param name="positionIds">Position ids of token ids: [batch, length], or [1, length] where they are the same for every row.</param>
    public BertEmbeddings(BertSettings settings, Func<Tensor, Tensor> positionIds)
        : base(nameof(BertEmbeddings))
    {
        _words = new Shared.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _tokenTypes = new Shared.Embedding(settings.TokenTypeCount, settings.HiddenSize, settings.Device, settings.DType);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.HiddenDropout);
        _positions = new Shared.Embedding(settings.PositionCount, settings.HiddenSize, settings.Device, settings.DType);
        _positionIds = positionIds;
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor types = zeros(1, 1, ScalarType.Int64, input.device);
        Tensor x = _words.call(input) + _tokenTypes.call(types) + _positions.call(_positionIds(input));
        return _dropout.call(_norm.call(x)).MoveToOuterDisposeScope();
    }
}
