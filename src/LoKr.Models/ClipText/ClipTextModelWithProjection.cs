using System.Text.Json.Nodes;
using LoKr.Core.Modeling;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.ClipText;

/// <summary>
/// <see cref="ClipTextModel"/> with a projection of the pooled vector, as the second text encoder of Stable Diffusion XL. Published names
/// are those of the module tree here.
/// </summary>
public sealed class ClipTextModelWithProjection : nn.Module<Tensor, Tensor?, Tensor>, ITextEncoder
{
    private const string ClassName = "CLIPTextModelWithProjection";

    [ComponentName(Name = "text_model")]
    private readonly ClipTextModel _model;

    [ComponentName(Name = "text_projection")]
    private readonly Linear _projection;

    private ClipTextModelWithProjection(ModelConfig config, ClipTextSettings settings)
        : base(ClassName)
    {
        Config = (JsonObject)config.Json.DeepClone();
        Config["architectures"] = new JsonArray(ClassName);
        _model = new ClipTextModel(config, settings);
        _projection = nn.Linear(settings.HiddenSize, config.GetSize("projection_dim", 512), hasBias: false, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public string ModelType => _model.ModelType;

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => null;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters => _model.TiedParameters;

    /// <inheritdoc/>
    public int MaxSequenceLength => _model.MaxSequenceLength;

    internal static ModelArchitecture Registration { get; } = new(
        "clip_text_model",
        ClassName,
        (config, options) => new ClipTextModelWithProjection(config, new ClipTextSettings(config, options)),
        new CheckpointLayout { BasePrefix = "text_model.", SkippedPrefixes = ["vision_model.", "visual_projection.", "logit_scale"], SkippedSuffixes = [".position_ids"] });

    /// <inheritdoc/>
    public TextEncoderOutput Encode(Tensor inputIds, Tensor? attentionMask = null, bool withPenultimate = false)
    {
        using DisposeScope scope = NewDisposeScope();
        TextEncoderOutput output = _model.Encode(inputIds, attentionMask, withPenultimate);
        return new TextEncoderOutput(output.LastHiddenState.MoveToOuterDisposeScope(), _projection.call(output.Pooled).MoveToOuterDisposeScope())
        {
            Penultimate = output.Penultimate?.MoveToOuterDisposeScope(),
        };
    }

    /// <summary>Last hidden state [batch, length, hidden] of token ids and their padding mask (or null), both int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor? attentionMask) => _model.call(inputIds, attentionMask);
}
