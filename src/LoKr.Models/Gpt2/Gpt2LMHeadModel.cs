using LoKr.Models.Generation;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Gpt2;

/// <summary>
/// GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019) with output embeddings. Its linear layers are
/// <see cref="Core.Modeling.Conv1D"/>. Modules and parameters are named as in transformers.
/// </summary>
public sealed class Gpt2LMHeadModel : CausalLanguageModel
{
    private const string ClassName = "GPT2LMHeadModel";
    private const string HeadName = "lm_head";

    private static readonly Dictionary<string, string> _tied = new() { [HeadName + ".weight"] = "transformer.wte.weight" };

    [ComponentName(Name = "transformer")]
    private readonly Gpt2Model _model;

    [ComponentName(Name = HeadName)]
    private readonly Linear _head;

    private readonly int _layerCount;

    private Gpt2LMHeadModel(ModelConfig config, Gpt2Settings settings)
        : base(ClassName, config, settings.PositionCount, hasPositionTable: true, defaultEosId: 50256)
    {
        TiedParameters = settings.IsTied ? _tied : new Dictionary<string, string>();
        _layerCount = settings.LayerCount;
        _model = new Gpt2Model(settings);
        _head = nn.Linear(settings.HiddenSize, settings.VocabularySize, false, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override string? OutputEmbeddingsName => HeadName;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, string> TiedParameters { get; }

    internal static ModelArchitecture Registration { get; } = new(
        "gpt2",
        ClassName,
        (config, options) => new Gpt2LMHeadModel(config, new Gpt2Settings(config, options)),
        new CheckpointLayout
        {
            BasePrefix = "transformer.",

            // Causal masks, which the published checkpoints hold beside the weights.
            SkippedSuffixes = [".attn.bias", ".attn.masked_bias"],
        });

    /// <inheritdoc/>
    public override Tensor Project(Tensor hiddenStates) => _head.call(hiddenStates);

    private protected override KeyValueCache CreateCache() => new(new int?[_layerCount]);

    private protected override Tensor Run(Tensor inputIds, Tensor? attentionMask, KeyValueCache? cache) => _model.call(inputIds, attentionMask, cache);
}
