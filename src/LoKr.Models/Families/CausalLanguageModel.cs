using System.Text.Json.Nodes;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// A decoder that predicts the next token: <c>call(inputIds, attentionMask)</c> gives the logits [batch, length, vocabulary]. Positions count
/// from the left, so padding goes to the right.
/// </summary>
public abstract class CausalLanguageModel : nn.Module<Tensor, Tensor?, Tensor>, ICachedLanguageModel
{
    private readonly int? _positionCount;

    /// <summary>Takes what all decoders share.</summary>
    /// <param name="architecture">Class name as transformers has it.</param>
    /// <param name="config">Configuration of the model.</param>
    /// <param name="maxSequenceLength">Longest sequence the model was made for.</param>
    /// <param name="hasPositionTable">Whether positions are a table, so that a longer sequence cannot be computed at all.</param>
    /// <param name="defaultEosId">End of text where neither configuration names it.</param>
    private protected CausalLanguageModel(string architecture, ModelConfig config, int maxSequenceLength, bool hasPositionTable, int? defaultEosId)
        : base(architecture)
    {
        Architecture = architecture;
        ModelType = config.ModelType;
        VocabularySize = config.GetSize("vocab_size");
        MaxSequenceLength = maxSequenceLength;
        EosIds = ReadEosIds(config, defaultEosId);
        Config = (JsonObject)config.Json.DeepClone();
        Config["architectures"] = new JsonArray(architecture);
        _positionCount = hasPositionTable ? maxSequenceLength : null;
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture { get; }

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public abstract string? OutputEmbeddingsName { get; }

    /// <inheritdoc/>
    public abstract IReadOnlyDictionary<string, string> TiedParameters { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength { get; }

    /// <summary>Number of token ids.</summary>
    public int VocabularySize { get; }

    /// <inheritdoc/>
    public IReadOnlyList<int> EosIds { get; }

    /// <inheritdoc/>
    public Tensor Logits(Tensor inputIds, Tensor? attentionMask = null) => call(inputIds, attentionMask);

    /// <inheritdoc/>
    public Tensor HiddenStates(Tensor inputIds, Tensor? attentionMask = null)
    {
        TokenInput.Check(Architecture, inputIds, attentionMask, VocabularySize, _positionCount);
        return Run(inputIds, attentionMask, null);
    }

    /// <inheritdoc/>
    public abstract Tensor Project(Tensor hiddenStates);

    /// <inheritdoc/>
    public IReadOnlyList<int> Generate(IReadOnlyList<int> promptIds, GenerationOptions options, CancellationToken cancellationToken = default) =>
        TextGenerator.Generate(this, promptIds, options, cancellationToken);

    /// <summary>Logits [batch, length, vocabulary] of token ids and their padding mask (or null), both int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor? attentionMask)
    {
        using DisposeScope scope = NewDisposeScope();
        return Project(HiddenStates(inputIds, attentionMask)).MoveToOuterDisposeScope();
    }

    /// <summary>Moves the parameters; a tied weight stays one.</summary>
    protected override void _toEpilog(ScalarType? dtype, Device? device, bool non_blocking)
    {
        ModuleParameters.Untie(this, TiedParameters);
        base._toEpilog(dtype, device, non_blocking);
        ModuleParameters.Tie(this, TiedParameters);
    }

    /// <inheritdoc/>
    KeyValueCache ICachedLanguageModel.CreateCache() => CreateCache();

    /// <inheritdoc/>
    Tensor ICachedLanguageModel.HiddenStates(Tensor inputIds, KeyValueCache cache) => Run(inputIds, null, cache);

    /// <summary>An empty cache for one sequence.</summary>
    private protected abstract KeyValueCache CreateCache();

    /// <summary>Runs everything but the output embeddings.</summary>
    /// <param name="inputIds">Token ids [batch, length]; with a cache, those that follow what it holds.</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length], or null.</param>
    /// <param name="cache">Keys and values of earlier positions, to which those of the input are added; or null.</param>
    /// <returns>Hidden states [batch, length, hidden].</returns>
    private protected abstract Tensor Run(Tensor inputIds, Tensor? attentionMask, KeyValueCache? cache);

    private static IReadOnlyList<int> ReadEosIds(ModelConfig config, int? defaultId)
    {
        const string key = "eos_token_id";
        return config.Generation?.Has(key) == true ? config.Generation.GetInts(key)
            : config.Json.ContainsKey(key) ? config.GetInts(key)
            : defaultId is int id ? [id] : [];
    }
}
