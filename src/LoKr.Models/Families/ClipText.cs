using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// The text encoder of CLIP (Radford et al., arXiv:2103.00020), as in Stable Diffusion, <c>CLIPTextModel</c> in transformers: pre-norm, a table
/// of positions, attention that only looks back. <c>call(inputIds, attentionMask)</c> returns the last hidden state [batch, length, hidden].
/// Modules are named as in transformers 5; checkpoints and adapters may have the older, published names, which begin with <c>text_model.</c>
/// </summary>
public sealed class ClipTextModel : nn.Module<Tensor, Tensor?, Tensor>, ITextEncoder, IPublishedNames
{
    private const string ClassName = "CLIPTextModel";

    // Before version 4.24 transformers wrote 2 into every configuration, whatever the id that ends a text was: the largest one.
    private const int LegacyEosId = 2;

    private static readonly PublishedNames s_names = new(
        ("text_model.embeddings", "embeddings"), ("text_model.encoder", "encoder"), ("text_model.final_layer_norm", "final_layer_norm"));

    private readonly TokenEmbeddings _embeddings;
    private readonly TransformerStack _stack;
    private readonly nn.Module<Tensor, Tensor> _norm;
    private readonly int _vocabularySize;
    private readonly int _eosId;

    internal ClipTextModel(ModelConfig config, ModelBuildOptions options)
        : base(ClassName)
    {
        ModelType = config.ModelType;
        Config = ModelArchitecture.Describe(config, ClassName);
        MaxSequenceLength = config.GetSize("max_position_embeddings", 77);
        (_vocabularySize, _eosId) = (config.GetSize("vocab_size"), config.GetInt("eos_token_id", 49407));
        StackSettings stack = ReadStack(config, options);
        _embeddings = new TokenEmbeddings(this, new()
        {
            Parts = [(EmbeddingPart.Tokens, "embeddings.token_embedding"), (EmbeddingPart.Positions, "embeddings.position_embedding")],
            VocabularySize = _vocabularySize,
            HiddenSize = stack.HiddenSize,
            PositionCount = MaxSequenceLength,
            Options = options,
        });
        _stack = this.Place(stack.Name, new TransformerStack(stack));
        _norm = this.Place("final_layer_norm", stack.CreateNorm(stack.HiddenSize));
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength { get; }

    /// <inheritdoc/>
    bool IPublishedNames.SavesPublishedNames { get; set; }

    internal static ModelArchitecture Registration { get; } = new(
        "clip_text_model",
        ClassName,
        static (config, options) => new ClipTextModel(config, options),
        new CheckpointLayout
        {
            // A whole CLIP and a text encoder with a projection have these beside the encoder.
            SkippedPrefixes = ["text_projection.", "vision_model.", "visual_projection.", "logit_scale"],
            SkippedSuffixes = [".position_ids"],
            Names = s_names,
        });

    /// <inheritdoc/>
    public string Canonical(string name) => s_names.Canonical(name);

    /// <inheritdoc/>
    public string Published(string name) => s_names.Published(name);

    /// <inheritdoc/>
    public TextEncoderOutput Encode(Tensor inputIds, Tensor? attentionMask = null, bool withPenultimate = false)
    {
        if (!withPenultimate)
        {
            Tensor hidden = call(inputIds, attentionMask);
            return new TextEncoderOutput(hidden, Pool(inputIds, hidden));
        }

        using DisposeScope scope = NewDisposeScope();
        (Tensor embedded, AttentionPass pass) = Start(inputIds, attentionMask);
        (Tensor last, Tensor penultimate) = _stack.RunWithPenultimate(embedded, pass);
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
        (Tensor embedded, AttentionPass pass) = Start(inputIds, attentionMask);
        return _norm.call(_stack.call(embedded, pass)).MoveToOuterDisposeScope();
    }

    /// <summary>The names are the checkpoint's, not those of the fields: everything is registered by the constructor.</summary>
    protected override void RegisterComponents()
    {
    }

    private (Tensor Embedded, AttentionPass Pass) Start(Tensor inputIds, Tensor? attentionMask)
    {
        TokenInput.Check(Architecture, inputIds, attentionMask, _vocabularySize, MaxSequenceLength);
        return (_embeddings.Run(inputIds, 0, training), AttentionPass.Causal(attentionMask, inputIds.shape[1], inputIds.device, [null]));
    }

    /// <summary>The hidden state [batch, hidden] of the token that ends each text; the first one where there are several, or none.</summary>
    private Tensor Pool(Tensor inputIds, Tensor hidden)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor ids = _eosId == LegacyEosId ? inputIds : inputIds.eq(_eosId).to(ScalarType.Int32);
        Tensor rows = arange(inputIds.shape[0], ScalarType.Int64, inputIds.device);
        return hidden[TensorIndex.Tensor(rows), TensorIndex.Tensor(ids.argmax(-1))].MoveToOuterDisposeScope();
    }

    // The order of the modules is transformers', in which adapters list their layers.
    private static StackSettings ReadStack(ModelConfig config, ModelBuildOptions options) => StackSettings.Read(config, options, "encoder.layers",
    [
        (LayerPart.Key, "self_attn.k_proj"),
        (LayerPart.Value, "self_attn.v_proj"),
        (LayerPart.Query, "self_attn.q_proj"),
        (LayerPart.AttentionOutput, "self_attn.out_proj"),
        (LayerPart.AttentionInputNorm, "layer_norm1"),
        (LayerPart.Up, "mlp.fc1"),
        (LayerPart.Down, "mlp.fc2"),
        (LayerPart.MlpInputNorm, "layer_norm2"),
    ], activation: "quick_gelu", normEpsilon: 1e-5) with
    {
        AttentionDropout = config.GetProbability("attention_dropout", 0),
    };
}

/// <summary>
/// <see cref="ClipTextModel"/> with a projection of the pooled vector, <c>CLIPTextModelWithProjection</c> in transformers, as the second text
/// encoder of Stable Diffusion XL. Published names are those of the module tree here.
/// </summary>
public sealed class ClipTextModelWithProjection : nn.Module<Tensor, Tensor?, Tensor>, ITextEncoder
{
    private const string ClassName = "CLIPTextModelWithProjection";

    [ComponentName(Name = "text_model")]
    private readonly ClipTextModel _model;

    [ComponentName(Name = "text_projection")]
    private readonly Linear _projection;

    private ClipTextModelWithProjection(ModelConfig config, ModelBuildOptions options)
        : base(ClassName)
    {
        Config = ModelArchitecture.Describe(config, ClassName);
        _model = new ClipTextModel(config, options);
        _projection = nn.Linear(config.GetSize("hidden_size"), config.GetSize("projection_dim", 512), hasBias: false, options.Device, options.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public string ModelType => _model.ModelType;

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength => _model.MaxSequenceLength;

    internal static ModelArchitecture Registration { get; } = new(
        "clip_text_model",
        ClassName,
        static (config, options) => new ClipTextModelWithProjection(config, options),
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
