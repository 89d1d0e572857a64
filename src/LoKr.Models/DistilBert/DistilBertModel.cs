using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.DistilBert;

/// <summary>Embeddings and layers.</summary>
internal sealed class DistilBertModel : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "embeddings")]
    private readonly DistilBertEmbeddings _embeddings;

    [ComponentName(Name = "transformer")]
    private readonly DistilBertTransformer _transformer;

    public DistilBertModel(DistilBertSettings settings)
        : base(nameof(DistilBertModel))
    {
        _embeddings = new DistilBertEmbeddings(settings);
        _transformer = new DistilBertTransformer(settings);
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] and a boolean mask or null → hidden states [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        return _transformer.call(_embeddings.call(input), mask).MoveToOuterDisposeScope();
    }
}
