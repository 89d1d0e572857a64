using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>A family of decoders as data.</summary>
internal sealed record DecoderSettings
{
    /// <summary>Class name in transformers.</summary>
    public required string ClassName { get; init; }

    /// <summary>Embeddings of tokens and, without rotary positions, of positions.</summary>
    public required EmbeddingSettings Embeddings { get; init; }

    /// <summary>The layers.</summary>
    public required StackSettings Stack { get; init; }

    /// <summary>Full name of the norm after the last layer.</summary>
    public required string NormName { get; init; }

    /// <summary>Full name of the output embeddings.</summary>
    public string HeadName { get; init; } = "lm_head";

    /// <summary>Whether the output embeddings are the token embeddings.</summary>
    public required bool IsTied { get; init; }

    /// <summary>Rotary positions; null where positions are a table, so that a longer sequence cannot be computed at all.</summary>
    public RopeSettings? Rope { get; init; }

    /// <summary>Longest sequence the model is made for.</summary>
    public int MaxSequenceLength => Rope?.LongestSequence ?? Embeddings.PositionCount;

    /// <summary>Id of the end of text where neither configuration names it.</summary>
    public int? DefaultEosId { get; init; }
}

/// <summary>
/// A decoder that predicts the next token: <c>call(inputIds, attentionMask)</c> returns the logits [batch, length, vocabulary]. Positions
/// count from the left, so padding goes to the right. Modules and parameters are named as in transformers.
/// </summary>
public sealed class CausalLanguageModel : nn.Module<Tensor, Tensor?, Tensor>, ICachedLanguageModel
{
    private readonly DecoderSettings _settings;
    private readonly TokenEmbeddings _embeddings;
    private readonly TransformerStack _stack;
    private readonly nn.Module<Tensor, Tensor> _norm;
    private readonly Linear _head;
    private readonly RotaryEmbedding? _rotary;

    /// <summary>Creates the modules.</summary>
    /// <param name="config">Configuration of the model.</param>
    /// <param name="settings">The family, with the sizes of the configuration.</param>
    internal CausalLanguageModel(ModelConfig config, DecoderSettings settings)
        : base(settings.ClassName)
    {
        _settings = settings;
        ModelType = config.ModelType;
        EosIds = ReadEosIds(config, settings.DefaultEosId);
        Config = ModelArchitecture.Describe(config, settings.ClassName);
        TiedParameters = settings.IsTied
            ? new Dictionary<string, string> { [$"{settings.HeadName}.weight"] = $"{settings.Embeddings.NameOf(EmbeddingPart.Tokens)}.weight" }
            : [];
        ModelBuildOptions options = settings.Stack.Options;
        _embeddings = new TokenEmbeddings(this, settings.Embeddings);
        _stack = this.Place(settings.Stack.Name, new TransformerStack(settings.Stack));
        _norm = this.Place(settings.NormName, settings.Stack.CreateNorm(settings.Stack.HiddenSize));
        _head = this.Place(settings.HeadName, nn.Linear(settings.Stack.HiddenSize, VocabularySize, false, options.Device, options.DType));
        _rotary = settings.Rope is null ? null : new RotaryEmbedding(settings.Rope);
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
    public string? OutputEmbeddingsName => _settings.HeadName;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength => _settings.MaxSequenceLength;

    /// <summary>Number of token ids; an adapter whose vocabulary has grown brings more.</summary>
    public int VocabularySize => _embeddings.Count;

    /// <inheritdoc/>
    public IReadOnlyList<int> EosIds { get; }

    /// <inheritdoc/>
    public Tensor Logits(Tensor inputIds, Tensor? attentionMask = null) => call(inputIds, attentionMask);

    /// <inheritdoc/>
    public Tensor HiddenStates(Tensor inputIds, Tensor? attentionMask = null)
    {
        TokenInput.Check(Architecture, inputIds, attentionMask, VocabularySize, _rotary is null ? MaxSequenceLength : null);
        return Run(inputIds, attentionMask, null);
    }

    /// <inheritdoc/>
    public Tensor Project(Tensor hiddenStates) => _head.call(hiddenStates);

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
    KeyValueCache ICachedLanguageModel.CreateCache() => new(_settings.Stack.Windows);

    /// <inheritdoc/>
    Tensor ICachedLanguageModel.HiddenStates(Tensor inputIds, KeyValueCache cache) => Run(inputIds, null, cache);

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
            _rotary?.Dispose();
        }

        base.Dispose(disposing);
    }

    /// <summary>Everything but the output embeddings: token ids [batch, length] → hidden states [batch, length, hidden].</summary>
    /// <param name="inputIds">Token ids; with a cache, those that follow what it holds.</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length], or null.</param>
    /// <param name="cache">Keys and values of earlier positions, to which those of the input are added; or null.</param>
    private Tensor Run(Tensor inputIds, Tensor? attentionMask, KeyValueCache? cache)
    {
        using DisposeScope scope = NewDisposeScope();
        (long start, long length) = (cache?.Length ?? 0, inputIds.shape[1]);
        Tensor x = _embeddings.Run(inputIds, start, training);
        Rotation? rotation = _rotary?.Get(start, length, x.device, x.dtype);
        x = _stack.call(x, AttentionPass.Causal(attentionMask, length, x.device, _settings.Stack.Windows, rotation, cache));
        cache?.Advance(length);
        return _norm.call(x).MoveToOuterDisposeScope();
    }

    private static IReadOnlyList<int> ReadEosIds(ModelConfig config, int? defaultId)
    {
        const string key = "eos_token_id";
        return config.Generation?.Has(key) == true ? config.Generation.GetInts(key)
            : config.Contains(key) ? config.GetInts(key)
            : defaultId is int id ? [id] : [];
    }
}
