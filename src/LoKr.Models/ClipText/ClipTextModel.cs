using System.Text.Json.Nodes;
using LoKr.Core.Modeling;
using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.ClipText;

/// <summary>
/// The text encoder of CLIP (Radford et al., arXiv:2103.00020), as in Stable Diffusion: <c>call(inputIds, attentionMask)</c> gives the last
/// hidden state [batch, length, hidden]. Modules are named as in transformers 5; checkpoints and adapters may have the older, published
/// names, which begin with <c>text_model.</c>
/// </summary>
public sealed class ClipTextModel : nn.Module<Tensor, Tensor?, Tensor>, ITextEncoder, IPublishedNames
{
    private const string ClassName = "CLIPTextModel";

    // Before version 4.24 transformers wrote 2 into every configuration, whatever the id that ends a text was: the largest one.
    private const int LegacyEosId = 2;

    private static readonly PublishedNames _names = new(
        ("text_model.embeddings", "embeddings"), ("text_model.encoder", "encoder"), ("text_model.final_layer_norm", "final_layer_norm"));

    [ComponentName(Name = "embeddings")]
    private readonly ClipTextEmbeddings _embeddings;

    [ComponentName(Name = "encoder")]
    private readonly ClipTextEncoder _encoder;

    [ComponentName(Name = "final_layer_norm")]
    private readonly LayerNorm _norm;

    private readonly int _eosId;
    private readonly int _vocabularySize;

    internal ClipTextModel(ModelConfig config, ClipTextSettings settings)
        : base(ClassName)
    {
        ModelType = config.ModelType;
        Config = (JsonObject)config.Json.DeepClone();
        Config["architectures"] = new JsonArray(ClassName);
        MaxSequenceLength = settings.PositionCount;
        (_eosId, _vocabularySize) = (settings.EosId, settings.VocabularySize);
        _embeddings = new ClipTextEmbeddings(settings);
        _encoder = new ClipTextEncoder(settings);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => null;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; } = new Dictionary<string, string>();

    /// <inheritdoc/>
    public int MaxSequenceLength { get; }

    /// <inheritdoc/>
    bool IPublishedNames.SavesPublishedNames { get; set; }

    internal static ModelArchitecture Registration { get; } = new(
        "clip_text_model",
        ClassName,
        (config, options) => new ClipTextModel(config, new ClipTextSettings(config, options)),
        new CheckpointLayout
        {
            // What a whole CLIP and a text encoder with a projection have beside the encoder.
            SkippedPrefixes = ["text_projection.", "vision_model.", "visual_projection.", "logit_scale"],
            SkippedSuffixes = [".position_ids"],
            Names = _names,
        });

    /// <inheritdoc/>
    public string Canonical(string name) => _names.Canonical(name);

    /// <inheritdoc/>
    public string Published(string name) => _names.Published(name);

    /// <inheritdoc/>
    public TextEncoderOutput Encode(Tensor inputIds, Tensor? attentionMask = null, bool withPenultimate = false)
    {
        if (!withPenultimate)
        {
            Tensor hidden = call(inputIds, attentionMask);
            return new TextEncoderOutput(hidden, Pool(inputIds, hidden));
        }

        using DisposeScope scope = NewDisposeScope();
        (Tensor embedded, Tensor? mask) = Embed(inputIds, attentionMask);
        (Tensor last, Tensor penultimate) = _encoder.WithPenultimate(embedded, mask);
        last = _norm.call(last);
        return new TextEncoderOutput(last.MoveToOuterDisposeScope(), Pool(inputIds, last).MoveToOuterDisposeScope())
        {
            Penultimate = penultimate.MoveToOuterDisposeScope(),
        };
    }

    /// <summary>Last hidden state [batch, length, hidden] of token ids and their padding mask (or null), both int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor? attentionMask)
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor embedded, Tensor? mask) = Embed(inputIds, attentionMask);
        return _norm.call(_encoder.call(embedded, mask)).MoveToOuterDisposeScope();
    }

    private (Tensor Embedded, Tensor? Mask) Embed(Tensor inputIds, Tensor? attentionMask)
    {
        TokenInput.Check(Architecture, inputIds, attentionMask, _vocabularySize, MaxSequenceLength);
        Tensor? mask = CausalMask.Create(Attention.PaddingMask(attentionMask), inputIds.shape[1], window: null, inputIds.device);
        return (_embeddings.call(inputIds), mask);
    }

    /// <summary>The hidden state [batch, hidden] of the token that ends each text; the first one where there are several, or none.</summary>
    private Tensor Pool(Tensor inputIds, Tensor hidden)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor ids = _eosId == LegacyEosId ? inputIds : inputIds.eq(_eosId).to(ScalarType.Int32);
        Tensor rows = arange(inputIds.shape[0], ScalarType.Int64, inputIds.device);
        return hidden[TensorIndex.Tensor(rows), TensorIndex.Tensor(ids.argmax(-1))].MoveToOuterDisposeScope();
    }
}
