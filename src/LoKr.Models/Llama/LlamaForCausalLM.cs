using LoKr.Models.Generation;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Llama;

/// <summary>The Llama family of decoders: Llama, Mistral, Qwen2, Qwen3. Modules and parameters are named as in transformers.</summary>
public sealed class LlamaForCausalLM : CausalLanguageModel
{
    private const string HeadName = "lm_head";

    private static readonly Dictionary<string, string> _tied = new() { [HeadName + ".weight"] = "model.embed_tokens.weight" };

    [ComponentName(Name = "model")]
    private readonly LlamaModel _model;

    [ComponentName(Name = HeadName)]
    private readonly Linear _head;

    private readonly IReadOnlyList<int?> _windows;

    // Longest sequence: max_position_embeddings, times the factor of linear and dynamic rotary scaling; with YaRN, its original length times
    // the factor. Rotary positions are no table: a longer sequence can be computed.
    private LlamaForCausalLM(ModelConfig config, LlamaSettings settings, LlamaFamily family)
        : base(family.Name, config, settings.Rope.LongestSequence, hasPositionTable: false, family.DefaultEosId)
    {
        TiedParameters = settings.IsTied ? _tied : new Dictionary<string, string>();
        _windows = settings.Windows;
        _model = new LlamaModel(settings);
        _head = nn.Linear(settings.HiddenSize, settings.VocabularySize, false, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override string? OutputEmbeddingsName => HeadName;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, string> TiedParameters { get; }

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } =
    [
        Register(LlamaFamily.Llama),
        Register(LlamaFamily.Mistral),
        Register(LlamaFamily.Qwen2),
        Register(LlamaFamily.Qwen3),
    ];

    /// <inheritdoc/>
    public override Tensor Project(Tensor hiddenStates) => _head.call(hiddenStates);

    private protected override KeyValueCache CreateCache() => new(_windows);

    private protected override Tensor Run(Tensor inputIds, Tensor? attentionMask, KeyValueCache? cache) => _model.call(inputIds, attentionMask, cache);

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
}
