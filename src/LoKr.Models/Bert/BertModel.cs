using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Bert;

/// <summary>Embeddings, encoder and, for BERT but not RoBERTa, the pooler.</summary>
internal sealed class BertModel : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "embeddings")]
    private readonly BertEmbeddings _embeddings;

    [ComponentName(Name = "encoder")]
    private readonly BertEncoder _encoder;

    [ComponentName(Name = "pooler")]
    private readonly BertPooler? _pooler;

    /// <summary>Makes the model.</summary>
    /// <param name="name">Class name, BertModel or RobertaModel.</param>
    /// <param name="settings">Sizes.</param>
    /// <param name="positionIds">Position ids of token ids.</param>
    /// <param name="withPooler">Whether there is a pooler.</param>
    public BertModel(string name, BertSettings settings, Func<Tensor, Tensor> positionIds, bool withPooler)
        : base(name)
    {
        _embeddings = new BertEmbeddings(settings, positionIds);
        _encoder = new BertEncoder(settings);
        _pooler = withPooler ? new BertPooler(settings) : null;
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] and a boolean mask or null → hidden states [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        return _encoder.call(_embeddings.call(input), mask).MoveToOuterDisposeScope();
    }

    /// <summary>Hidden states [batch, length, hidden] → [batch, hidden].</summary>
    public Tensor Pool(Tensor hiddenStates) =>
        (_pooler ?? throw new InvalidOperationException($"{GetName()} has no pooler.")).call(hiddenStates);
}
