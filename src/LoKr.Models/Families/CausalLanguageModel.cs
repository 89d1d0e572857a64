using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// A <see cref="Decoder"/> that predicts the next token: <c>call(inputIds, attentionMask)</c> returns the logits [batch, length, vocabulary].
/// Positions count from the left, so padding goes to the right. Modules and parameters are named as in transformers.
/// </summary>
public sealed class CausalLanguageModel : nn.Module<Tensor, Tensor?, Tensor>, ICachedLanguageModel, IPackedLanguageModel
{
    private readonly DecoderSettings _settings;
    private readonly ModelConfig? _generation;
    private readonly Decoder _decoder;
    private readonly Linear _head;

    /// <summary>Creates the modules.</summary>
    /// <param name="config">Configuration of the model.</param>
    /// <param name="settings">The family, with the sizes of the configuration.</param>
    internal CausalLanguageModel(ModelConfig config, DecoderSettings settings)
        : base(settings.ClassName)
    {
        _settings = settings;
        _generation = config.Generation;
        ModelType = config.ModelType;
        EosIds = ReadEosIds(config, settings.DefaultEosId);
        Config = ModelArchitecture.Describe(config, settings.ClassName);
        settings.WriteSpellings(Config);
        TiedParameters = settings.IsTied
            ? new Dictionary<string, string> { [$"{settings.HeadName}.weight"] = $"{settings.Embeddings.NameOf(EmbeddingPart.Tokens)}.weight" }
            : [];
        ModelBuildOptions options = settings.Stack.Options;
        _decoder = new Decoder(this, settings);
        _head = this.Place(settings.HeadName, nn.Linear(settings.Stack.HiddenSize, VocabularySize, false, options.Device, options.DType));
    }

    /// <summary>The family as data.</summary>
    internal DecoderSettings Settings => _settings;

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture => _settings.ClassName;

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => _settings.HeadName;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength => _settings.MaxSequenceLength;

    /// <summary>Number of token ids; an adapter whose vocabulary has grown brings more.</summary>
    public int VocabularySize => _decoder.VocabularySize;

    /// <inheritdoc/>
    public IReadOnlyList<int> EosIds { get; }

    /// <inheritdoc/>
    public GenerationSettings ReadGenerationSettings() => _generation is null ? new() : GenerationConfig.Read(_generation);

    /// <inheritdoc/>
    public Tensor Logits(Tensor inputIds, Tensor? attentionMask = null) => call(inputIds, attentionMask);

    /// <inheritdoc/>
    public Tensor HiddenStates(Tensor inputIds, Tensor? attentionMask = null, Tensor? places = null)
    {
        _decoder.Check(inputIds, attentionMask);
        TokenInput.CheckPlaces(Architecture, inputIds, places);
        return _decoder.Run(inputIds, attentionMask, null, training, places);
    }

    /// <inheritdoc/>
    public Tensor PackedHiddenStates(Tensor inputIds, Tensor positionIds, Tensor? places = null)
    {
        ArgumentNullException.ThrowIfNull(positionIds);
        _decoder.Check(inputIds, null);
        TokenInput.CheckPositions(Architecture, inputIds, positionIds);
        TokenInput.CheckPlaces(Architecture, inputIds, places);
        return _decoder.RunPacked(inputIds, positionIds, training, places);
    }

    /// <inheritdoc/>
    public Tensor Project(Tensor hiddenStates)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor logits = _head.call(hiddenStates);
        logits = _settings.LogitScale == 1 ? logits : logits * _settings.LogitScale;
        logits = _settings.LogitCap is double cap ? (logits / cap).tanh() * cap : logits;
        return logits.MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public IReadOnlyList<int> Generate(IReadOnlyList<int> promptIds, GenerationOptions options, CancellationToken cancellationToken = default) =>
        TextGenerator.Generate(this, promptIds, options, cancellationToken);

    /// <summary>Logits [batch, length, vocabulary] of token ids and their padding mask (or null), both int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor? attentionMask)
    {
        using DisposeScope scope = NewDisposeScope();
        return Project(HiddenStates(inputIds, attentionMask)).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    KeyValueCache ICachedLanguageModel.CreateCache() => _decoder.CreateCache();

    /// <inheritdoc/>
    bool ICachedLanguageModel.Holds(KeyValueCache cache) => _settings.CacheLimit is not int limit || cache.Length != limit;

    /// <inheritdoc/>
    Tensor ICachedLanguageModel.HiddenStates(Tensor inputIds, KeyValueCache cache, Tensor? places) => _decoder.Run(inputIds, null, cache, training, places);

    /// <summary>The names are the family's, not those of the fields: everything is registered by the constructor.</summary>
    protected override void RegisterComponents()
    {
    }

    /// <summary>Moves the parameters; a tied weight stays one.</summary>
    protected override void _toEpilog(ScalarType? dtype, Device? device, bool non_blocking)
    {
        ModuleParameters.Untie(this, TiedParameters);
        base._toEpilog(dtype, device, non_blocking);
        ModuleParameters.Tie(this, TiedParameters);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _decoder.Dispose();
        }

        base.Dispose(disposing);
    }

    private static IReadOnlyList<int> ReadEosIds(ModelConfig config, int? defaultId)
    {
        const string key = "eos_token_id";
        return config.Generation?.Has(key) == true ? config.Generation.GetInts(key)
            : config.Contains(key) ? config.GetInts(key)
            : defaultId is int id ? [id] : [];
    }
}
