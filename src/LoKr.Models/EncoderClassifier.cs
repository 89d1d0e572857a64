using System.Text.Json.Nodes;
using LoKr.Core;
using LoKr.Core.Modeling;
using LoKr.Models.Shared;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models;

/// <summary>
/// A bidirectional text encoder with a classification head: <c>call(inputIds, attentionMask)</c> gives the logits [batch, labels],
/// <see cref="LastHiddenState"/> and <see cref="Embed"/> what the encoder makes of the text.
/// </summary>
public abstract class EncoderClassifier : nn.Module<Tensor, Tensor, Tensor>, ISequenceClassifier
{
    private readonly int _vocabularySize;

    /// <summary>Takes what all encoders share.</summary>
    /// <param name="architecture">Class name as transformers has it.</param>
    /// <param name="config">Configuration of the model.</param>
    /// <param name="labels">Labels the user gave, or null for those of the configuration.</param>
    /// <param name="maxSequenceLength">Longest sequence the position embeddings allow.</param>
    protected EncoderClassifier(string architecture, ModelConfig config, IReadOnlyList<string>? labels, int maxSequenceLength)
        : base(architecture)
    {
        ArgumentNullException.ThrowIfNull(config);
        Architecture = architecture;
        ModelType = config.ModelType;
        MaxSequenceLength = maxSequenceLength;
        _vocabularySize = config.GetSize("vocab_size");
        Labels = ClassificationLabels.Resolve(config, labels, headRows: null);
        Config = (JsonObject)config.Json.DeepClone();
        Config["architectures"] = new JsonArray(architecture);
        ClassificationLabels.Write(Config, Labels);
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture { get; }

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => null;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; } = new Dictionary<string, string>();

    /// <inheritdoc/>
    public IReadOnlyList<string> Labels { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength { get; }

    /// <summary>Hidden states of the last layer.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding, int64 [batch, length]; null when nothing is padded.</param>
    /// <returns>Hidden states [batch, length, hidden].</returns>
    public Tensor LastHiddenState(Tensor inputIds, Tensor? attentionMask = null)
    {
        CheckInput(inputIds, attentionMask);
        using DisposeScope scope = NewDisposeScope();
        return Encode(inputIds, Attention.PaddingMask(attentionMask)).MoveToOuterDisposeScope();
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
        CheckInput(inputIds, attentionMask);
        using DisposeScope scope = NewDisposeScope();
        return Head(Encode(inputIds, Attention.PaddingMask(attentionMask))).MoveToOuterDisposeScope();
    }

    /// <summary>Runs the encoder.</summary>
    /// <param name="inputIds">Token ids [batch, length].</param>
    /// <param name="mask">Boolean [batch, 1, 1, length], or null.</param>
    /// <returns>Hidden states [batch, length, hidden].</returns>
    protected abstract Tensor Encode(Tensor inputIds, Tensor? mask);

    /// <summary>Turns hidden states [batch, length, hidden] into logits [batch, labels].</summary>
    protected abstract Tensor Head(Tensor hiddenStates);

    private void CheckInput(Tensor inputIds, Tensor? attentionMask) =>
        TokenInput.Check(Architecture, inputIds, attentionMask, _vocabularySize, MaxSequenceLength);
}
