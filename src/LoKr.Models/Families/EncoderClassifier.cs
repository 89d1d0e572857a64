using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>A family of bidirectional encoders as data.</summary>
internal sealed record EncoderSettings
{
    /// <summary>Class name in transformers, with the head.</summary>
    public required string ClassName { get; init; }

    /// <summary>Embeddings of tokens and positions.</summary>
    public required EmbeddingSettings Embeddings { get; init; }

    /// <summary>The layers.</summary>
    public required StackSettings Stack { get; init; }

    /// <summary>Creates what scores the distances of positions, in the tree of the model; null where nothing does.</summary>
    public Func<nn.Module, IRelativePositions>? CreatePositions { get; init; }

    /// <summary>Creates what the first layer ends with, in the tree of the model; null where it ends as the others.</summary>
    public Func<nn.Module, ILayerEnding>? CreateEnding { get; init; }

    /// <summary>Full name of the norm after the last layer; null where there is none.</summary>
    public string? NormName { get; init; }

    /// <summary>Longest sequence that has positions, special tokens included.</summary>
    public required int MaxSequenceLength { get; init; }

    /// <summary>The head that scores texts.</summary>
    public required HeadSettings Head { get; init; }

    /// <summary>The head that scores tokens.</summary>
    public required HeadSettings TokenHead { get; init; }

    /// <summary>Completes a configuration by the keys that other releases of transformers have for the same.</summary>
    public Action<JsonObject> WriteSpellings { get; init; } = static _ => { };
}

/// <summary>The part of a text model before its head.</summary>
internal interface ITextBody : IDisposable
{
    /// <summary>Longest sequence, special tokens included.</summary>
    int MaxSequenceLength { get; }

    /// <summary>Number of segments that are told apart.</summary>
    int TokenTypeCount { get; }

    /// <summary>Refuses a batch that does not fit the model with <see cref="Core.Errors.ErrorIds.ModelInputInvalid"/>.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length]; null when nothing is padded.</param>
    /// <param name="tokenTypeIds">Segment of each token [batch, length]; null for segment 0.</param>
    void Check(Tensor inputIds, Tensor? attentionMask, Tensor? tokenTypeIds = null);

    /// <summary>Computes hidden states of a batch that <see cref="Check"/> lets pass.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length]; null when nothing is padded.</param>
    /// <param name="tokenTypeIds">Segment of each token [batch, length]; null for segment 0.</param>
    /// <param name="training">Whether dropout applies.</param>
    /// <param name="places">Places that are read, int64 [count], counted as <see cref="BatchPlaces"/> does; null for all.</param>
    /// <returns>Hidden states [batch, length, hidden], or [count, hidden] of the places.</returns>
    Tensor Run(Tensor inputIds, Tensor? attentionMask, Tensor? tokenTypeIds, bool training, Tensor? places = null);
}

/// <summary>The part of every bidirectional encoder before its head: embeddings and layers. Modules and parameters are named as in transformers.</summary>
internal sealed class Encoder : ITextBody
{
    private readonly EncoderSettings _settings;
    private readonly TokenEmbeddings _embeddings;
    private readonly TransformerStack _stack;
    private readonly IRelativePositions? _positions;
    private readonly nn.Module<Tensor, Tensor>? _norm;
    private readonly LayerRotations _rotations;

    /// <summary>Creates the modules in the tree of a model.</summary>
    public Encoder(nn.Module root, EncoderSettings settings)
    {
        _settings = settings;
        _embeddings = new TokenEmbeddings(root, settings.Embeddings);
        _stack = root.Place(settings.Stack.Name, new TransformerStack(settings.Stack, settings.CreateEnding?.Invoke(root)));
        _positions = settings.CreatePositions?.Invoke(root);
        _norm = settings.NormName is null ? null : root.Place(settings.NormName, settings.Stack.CreateNorm(settings.Stack.HiddenSize));
        _rotations = new LayerRotations(settings.Stack.Ropes);
    }

    /// <inheritdoc/>
    public int MaxSequenceLength => _settings.MaxSequenceLength;

    /// <inheritdoc/>
    public int TokenTypeCount => _settings.Embeddings.TypeCount;

    /// <inheritdoc/>
    public void Check(Tensor inputIds, Tensor? attentionMask, Tensor? tokenTypeIds = null)
    {
        // Only a table of positions ends; the others merely were not trained beyond.
        int? longest = _settings.Embeddings.Has(EmbeddingPart.Positions) ? _settings.MaxSequenceLength : null;
        TokenInput.Check(_settings.ClassName, inputIds, attentionMask, _embeddings.Count, longest);
        TokenInput.CheckTypes(_settings.ClassName, inputIds, tokenTypeIds, _settings.Embeddings.TypeCount);
    }

    /// <inheritdoc/>
    public Tensor Run(Tensor inputIds, Tensor? attentionMask, Tensor? tokenTypeIds, bool training, Tensor? places = null)
    {
        using DisposeScope scope = NewDisposeScope();
        long length = inputIds.shape[1];
        Tensor x = _embeddings.Run(inputIds, 0, training, tokenTypeIds, attentionMask);
        AttentionPass pass = AttentionPass.Bidirectional(
            attentionMask, length, x.device, _settings.Stack.Windows, _rotations.Get(0, length, x.device, x.dtype), _positions?.Start(length, x.device, training));
        x = _stack.call(x, pass.Reading(places));
        return (_norm is null ? x : _norm.call(x)).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void Dispose() => _rotations.Dispose();
}

/// <summary>
/// A bidirectional text encoder with a classification head: <c>call(inputIds, attentionMask, tokenTypeIds)</c> returns the logits
/// [batch, labels], <see cref="LastHiddenState"/> and <see cref="Embed"/> return vectors of the tokens and of the text. Modules and parameters
/// are named as in transformers.
/// </summary>
public sealed class EncoderClassifier : nn.Module<Tensor, Tensor, Tensor?, Tensor>, ISequenceClassifier
{
    private readonly EncoderSettings _settings;
    private readonly Encoder _encoder;
    private readonly ClassificationHead _head;

    /// <summary>Creates the encoder and its head.</summary>
    /// <param name="config">Configuration of the model.</param>
    /// <param name="labels">Labels in the order of the logits; null for those of the configuration.</param>
    /// <param name="settings">The family, with the sizes of the configuration.</param>
    internal EncoderClassifier(ModelConfig config, IReadOnlyList<string>? labels, EncoderSettings settings)
        : base(settings.ClassName)
    {
        _settings = settings;
        ModelType = config.ModelType;
        Labels = ClassificationLabels.Resolve(config, labels, headRows: null);
        Config = ModelArchitecture.Describe(config, settings.ClassName);
        ModelLabels.Write(Config, Labels);
        settings.WriteSpellings(Config);
        _encoder = new Encoder(this, settings);
        _head = new ClassificationHead(this, settings.Head, settings.Stack, Labels.Count);
    }

    /// <summary>The family as data.</summary>
    internal EncoderSettings Settings => _settings;

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture => _settings.ClassName;

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public IReadOnlyList<string> Labels { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength => _encoder.MaxSequenceLength;

    /// <inheritdoc/>
    public int TokenTypeCount => _encoder.TokenTypeCount;

    /// <summary>Hidden states of the last layer.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding, int64 [batch, length]; null when nothing is padded.</param>
    /// <param name="tokenTypeIds">Segment of each token, int64 [batch, length]; null for segment 0.</param>
    /// <returns>Hidden states [batch, length, hidden].</returns>
    public Tensor LastHiddenState(Tensor inputIds, Tensor? attentionMask = null, Tensor? tokenTypeIds = null)
    {
        _encoder.Check(inputIds, attentionMask, tokenTypeIds);
        return _encoder.Run(inputIds, attentionMask, tokenTypeIds, training);
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
        Tensor mean = ClassificationHead.Mean(LastHiddenState(inputIds, attentionMask), attentionMask);
        return nn.functional.normalize(mean, 2, 1).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public Tensor Classify(Tensor inputIds, Tensor attentionMask, Tensor? tokenTypeIds = null) => call(inputIds, attentionMask, tokenTypeIds);

    /// <summary>Logits [batch, labels] of token ids, their padding mask and their segments (or null), all int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor attentionMask, Tensor? tokenTypeIds)
    {
        _encoder.Check(inputIds, attentionMask, tokenTypeIds);
        using DisposeScope scope = NewDisposeScope();
        Tensor hidden = _encoder.Run(inputIds, attentionMask, tokenTypeIds, training, _head.Places(inputIds));
        return _head.Run(hidden, attentionMask, training).MoveToOuterDisposeScope();
    }

    /// <summary>The names are the family's, not those of the fields: everything is registered by the constructor.</summary>
    protected override void RegisterComponents()
    {
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _encoder.Dispose();
        }

        base.Dispose(disposing);
    }
}
