using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>A family of bidirectional encoders as data.</summary>
internal sealed record EncoderSettings
{
    /// <summary>Class name in transformers, with the classification head.</summary>
    public required string ClassName { get; init; }

    /// <summary>Embeddings of tokens and positions.</summary>
    public required EmbeddingSettings Embeddings { get; init; }

    /// <summary>The layers.</summary>
    public required StackSettings Stack { get; init; }

    /// <summary>Longest sequence that has positions, special tokens included.</summary>
    public required int MaxSequenceLength { get; init; }

    /// <summary>Dropout of the classification head.</summary>
    public required double ClassifierDropout { get; init; }
}

/// <summary>
/// A bidirectional text encoder with a classification head: <c>call(inputIds, attentionMask)</c> returns the logits [batch, labels],
/// <see cref="LastHiddenState"/> and <see cref="Embed"/> return vectors of the tokens and of the text. Modules and parameters are named as in
/// transformers.
/// </summary>
public abstract class EncoderClassifier : nn.Module<Tensor, Tensor, Tensor>, ISequenceClassifier
{
    private readonly EncoderSettings _settings;
    private readonly TokenEmbeddings _embeddings;
    private readonly TransformerStack _stack;

    /// <summary>Creates the encoder; the head is the derived class's.</summary>
    /// <param name="config">Configuration of the model.</param>
    /// <param name="labels">Labels in the order of the logits; null for those of the configuration.</param>
    /// <param name="settings">The family, with the sizes of the configuration.</param>
    private protected EncoderClassifier(ModelConfig config, IReadOnlyList<string>? labels, EncoderSettings settings)
        : base(settings.ClassName)
    {
        _settings = settings;
        ModelType = config.ModelType;
        Labels = ClassificationLabels.Resolve(config, labels, headRows: null);
        Config = ModelArchitecture.Describe(config, settings.ClassName);
        ModelLabels.Write(Config, Labels);
        _embeddings = new TokenEmbeddings(this, settings.Embeddings);
        _stack = this.Place(settings.Stack.Name, new TransformerStack(settings.Stack));
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture => _settings.ClassName;

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => null;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; } = new Dictionary<string, string>();

    /// <inheritdoc/>
    public IReadOnlyList<string> Labels { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength => _settings.MaxSequenceLength;

    /// <summary>Hidden states of the last layer.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding, int64 [batch, length]; null when nothing is padded.</param>
    /// <returns>Hidden states [batch, length, hidden].</returns>
    public Tensor LastHiddenState(Tensor inputIds, Tensor? attentionMask = null)
    {
        TokenInput.Check(Architecture, inputIds, attentionMask, _embeddings.Count, MaxSequenceLength);
        using DisposeScope scope = NewDisposeScope();
        return _stack.call(_embeddings.Run(inputIds, 0, training), AttentionPass.Bidirectional(attentionMask)).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Sentence embeddings: hidden states averaged over the tokens and scaled to length one, as sentence-transformers' mean pooling.
    /// </summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding, int64 [batch, length].</param>
    /// <returns>Embeddings [batch, hidden].</returns>
    public Tensor Embed(Tensor inputIds, Tensor attentionMask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor hidden = LastHiddenState(inputIds, attentionMask);
        Tensor weights = attentionMask.to_type(hidden.dtype).unsqueeze(-1);
        Tensor mean = (hidden * weights).sum(dim: 1L) / weights.sum(dim: 1L).clamp_min(1e-9);
        return nn.functional.normalize(mean, 2, 1).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public Tensor Classify(Tensor inputIds, Tensor attentionMask) => call(inputIds, attentionMask);

    /// <summary>Logits [batch, labels] of token ids and their padding mask, both int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor attentionMask)
    {
        using DisposeScope scope = NewDisposeScope();
        return Head(LastHiddenState(inputIds, attentionMask).select(1, 0)).MoveToOuterDisposeScope();
    }

    /// <summary>The names are the family's, not those of the fields: everything is registered by the constructor.</summary>
    protected sealed override void RegisterComponents()
    {
    }

    /// <summary>Hidden states of the first token [batch, hidden] → logits [batch, labels].</summary>
    private protected abstract Tensor Head(Tensor first);

    /// <summary>Creates a linear layer of the head in the model's type.</summary>
    /// <param name="name">Full name of the layer.</param>
    /// <param name="outputs">Output size; the input size is the hidden size.</param>
    private protected Linear PlaceLinear(string name, long outputs)
    {
        StackSettings stack = _settings.Stack;
        return this.Place(name, nn.Linear(stack.HiddenSize, outputs, device: stack.Options.Device, dtype: stack.Options.DType));
    }

    /// <summary>Dropout of the head.</summary>
    private protected Tensor DropOut(Tensor x) => x.WithDropout(_settings.ClassifierDropout, training);
}
