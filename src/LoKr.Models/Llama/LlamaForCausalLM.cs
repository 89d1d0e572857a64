using System.Text.Json.Nodes;
using LoKr.Core.Modeling;
using LoKr.Models.Generation;
using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Llama;

/// <summary>
/// The Llama family of decoders (Llama, Mistral, Qwen2, Qwen3) that predict the next token: <c>call(inputIds, attentionMask)</c> gives the
/// logits [batch, length, vocabulary]. Modules and parameters are named as in transformers. Positions count from the left, so padding goes
/// to the right.
/// </summary>
public sealed class LlamaForCausalLM : nn.Module<Tensor, Tensor?, Tensor>, ICachedLanguageModel
{
    private const string HeadName = "lm_head";

    private static readonly Dictionary<string, string> _tied = new() { [HeadName + ".weight"] = "model.embed_tokens.weight" };

    [ComponentName(Name = "model")]
    private readonly LlamaModel _model;

    [ComponentName(Name = HeadName)]
    private readonly Linear _head;

    private readonly IReadOnlyList<int?> _windows;

    private LlamaForCausalLM(ModelConfig config, LlamaSettings settings, LlamaFamily family)
        : base(family.Name)
    {
        ModelType = family.ModelType;
        Architecture = family.Name;
        MaxSequenceLength = settings.Rope.LongestSequence;
        VocabularySize = settings.VocabularySize;
        EosIds = ReadEosIds(config, family);
        TiedParameters = settings.IsTied ? _tied : new Dictionary<string, string>();
        Config = (JsonObject)config.Json.DeepClone();
        Config["architectures"] = new JsonArray(Architecture);
        _windows = settings.Windows;
        _model = new LlamaModel(settings);
        _head = nn.Linear(settings.HiddenSize, settings.VocabularySize, false, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture { get; }

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => HeadName;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; }

    /// <summary>
    /// Longest sequence the model was made for: <c>max_position_embeddings</c>, times the factor of linear and dynamic rotary scaling;
    /// with YaRN, its original length times the factor.
    /// </summary>
    public int MaxSequenceLength { get; }

    /// <inheritdoc/>
    public int VocabularySize { get; }

    /// <inheritdoc/>
    public IReadOnlyList<int> EosIds { get; }

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } =
    [
        Register(LlamaFamily.Llama),
        Register(LlamaFamily.Mistral),
        Register(LlamaFamily.Qwen2),
        Register(LlamaFamily.Qwen3),
    ];

    /// <inheritdoc/>
    public Tensor Logits(Tensor inputIds, Tensor? attentionMask = null) => call(inputIds, attentionMask);

    /// <inheritdoc/>
    public Tensor HiddenStates(Tensor inputIds, Tensor? attentionMask = null)
    {
        TokenInput.Check(Architecture, inputIds, attentionMask, VocabularySize);
        return _model.call(inputIds, attentionMask, null);
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

    /// <summary>Moves the parameters; a tied weight stays one.</summary>
    protected override void _toEpilog(ScalarType? dtype, Device? device, bool non_blocking)
    {
        ModuleParameters.Untie(this, TiedParameters);
        base._toEpilog(dtype, device, non_blocking);
        ModuleParameters.Tie(this, TiedParameters);
    }

    /// <inheritdoc/>
    KeyValueCache ICachedLanguageModel.CreateCache() => new(_windows);

    /// <inheritdoc/>
    Tensor ICachedLanguageModel.HiddenStates(Tensor inputIds, KeyValueCache cache) => _model.call(inputIds, null, cache);

    private static ModelArchitecture Register(LlamaFamily family) => new(
        family.ModelType,
        family.Name,
        (config, options) => new LlamaForCausalLM(config, new LlamaSettings(config, options, family), family),
        new CheckpointLayout
        {
            BasePrefix = "model.",

            // Frequencies that releases before 4.31 saved; they follow from the configuration.
            SkippedSuffixes = [".rotary_emb.inv_freq"],
        });

    private static IReadOnlyList<int> ReadEosIds(ModelConfig config, LlamaFamily family)
    {
        const string key = "eos_token_id";
        return config.Generation?.Has(key) == true ? config.Generation.GetInts(key)
            : config.Json.ContainsKey(key) ? config.GetInts(key)
            : family.DefaultEosId is int id ? [id] : [];
    }
}
