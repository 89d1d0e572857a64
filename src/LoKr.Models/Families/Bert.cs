using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>The sizes of a BERT or RoBERTa encoder, checked.</summary>
internal sealed record BertSettings
{
    /// <summary>Reads and checks a configuration.</summary>
    public BertSettings(ModelConfig config, ModelBuildOptions options)
    {
        VocabularySize = config.GetSize("vocab_size");
        HiddenSize = config.GetSize("hidden_size");
        LayerCount = config.GetSize("num_hidden_layers");
        HeadCount = config.GetSize("num_attention_heads");
        IntermediateSize = config.GetSize("intermediate_size");
        PositionCount = config.GetSize("max_position_embeddings", 512);
        TokenTypeCount = config.GetSize("type_vocab_size", 2);
        LayerNormEpsilon = config.GetDouble("layer_norm_eps", 1e-12);
        HiddenDropout = config.GetProbability("hidden_dropout_prob", 0.1);
        AttentionDropout = config.GetProbability("attention_probs_dropout_prob", 0.1);
        ClassifierDropout = config.GetProbability("classifier_dropout", HiddenDropout);
        Activation = Families.Activation.Get(config, "hidden_act", "gelu");
        Device = options.Device;
        DType = options.DType;

        if (HiddenSize % HeadCount != 0)
        {
            throw config.Invalid("num_attention_heads", $"is {HeadCount}, which does not divide the hidden_size {HiddenSize}");
        }

        if (config.GetBool("is_decoder", false) || config.GetBool("add_cross_attention", false))
        {
            throw config.Unsupported("is_decoder", "makes the encoder a decoder, which is not built");
        }

        if (config.GetString("position_embedding_type", "absolute") is not "absolute" and string other)
        {
            throw config.Unsupported("position_embedding_type", $"is '{other}'; only 'absolute' is built");
        }
    }

    public int VocabularySize { get; }

    public int HiddenSize { get; }

    public int LayerCount { get; }

    public int HeadCount { get; }

    public int IntermediateSize { get; }

    public int PositionCount { get; }

    public int TokenTypeCount { get; }

    public double LayerNormEpsilon { get; }

    public double HiddenDropout { get; }

    public double AttentionDropout { get; }

    public double ClassifierDropout { get; }

    public Func<Tensor, Tensor> Activation { get; }

    public Device Device { get; }

    public ScalarType DType { get; }
}

/// <summary>Word, token type and position embeddings, summed and normalized. Every token has type 0: one text, no pair.</summary>
internal sealed class BertEmbeddings : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "word_embeddings")]
    private readonly Core.Nn.Embedding _words;

    [ComponentName(Name = "token_type_embeddings")]
    private readonly Core.Nn.Embedding _tokenTypes;

    [ComponentName(Name = "LayerNorm")]
    private readonly LayerNorm _norm;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    [ComponentName(Name = "position_embeddings")]
    private readonly Core.Nn.Embedding _positions;

    private readonly Func<Tensor, Tensor> _positionIds;

    /// <summary>Makes the tables.</summary>
    /// <param name="settings">Sizes.</param>
    /// <param name="positionIds">Position ids of token ids: [batch, length], or [1, length] where they are the same for every row.</param>
    public BertEmbeddings(BertSettings settings, Func<Tensor, Tensor> positionIds)
        : base(nameof(BertEmbeddings))
    {
        _words = new Core.Nn.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _tokenTypes = new Core.Nn.Embedding(settings.TokenTypeCount, settings.HiddenSize, settings.Device, settings.DType);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.HiddenDropout);
        _positions = new Core.Nn.Embedding(settings.PositionCount, settings.HiddenSize, settings.Device, settings.DType);
        _positionIds = positionIds;
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor types = zeros(1, 1, ScalarType.Int64, input.device);
        Tensor x = _words.call(input) + _tokenTypes.call(types) + _positions.call(_positionIds(input));
        return _dropout.call(_norm.call(x)).MoveToOuterDisposeScope();
    }
}

/// <summary>Multi-head self-attention without its output projection.</summary>
internal sealed class BertSelfAttention : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "query")]
    private readonly Linear _query;

    [ComponentName(Name = "key")]
    private readonly Linear _key;

    [ComponentName(Name = "value")]
    private readonly Linear _value;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    private readonly int _heads;

    public BertSelfAttention(BertSettings settings)
        : base(nameof(BertSelfAttention))
    {
        _query = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _key = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _value = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.AttentionDropout);
        _heads = settings.HeadCount;
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor context = Attention.ScaledDotProduct(
            Attention.SplitHeads(_query.call(input), _heads),
            Attention.SplitHeads(_key.call(input), _heads),
            Attention.SplitHeads(_value.call(input), _heads),
            mask,
            dropout: training ? _dropout.p : 0);
        return Attention.MergeHeads(context).MoveToOuterDisposeScope();
    }
}

/// <summary>Self-attention with its output projection, residual and normalization.</summary>
internal sealed class BertAttention : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "self")]
    private readonly BertSelfAttention _self;

    [ComponentName(Name = "output")]
    private readonly BertOutput _output;

    public BertAttention(BertSettings settings)
        : base(nameof(BertAttention))
    {
        _self = new BertSelfAttention(settings);
        _output = new BertOutput(settings, settings.HiddenSize);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        return _output.call(_self.call(input, mask), input).MoveToOuterDisposeScope();
    }
}

/// <summary>First half of the feed-forward block: projection and activation.</summary>
internal sealed class BertIntermediate : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "dense")]
    private readonly Linear _dense;

    private readonly Func<Tensor, Tensor> _activation;

    public BertIntermediate(BertSettings settings)
        : base(nameof(BertIntermediate))
    {
        _dense = nn.Linear(settings.HiddenSize, settings.IntermediateSize, device: settings.Device, dtype: settings.DType);
        _activation = settings.Activation;
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, intermediate].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _activation(_dense.call(input)).MoveToOuterDisposeScope();
    }
}

/// <summary>Projection back to the hidden size, residual and normalization: the end of the attention and of the feed-forward block.</summary>
internal sealed class BertOutput : nn.Module<Tensor, Tensor, Tensor>
{
    [ComponentName(Name = "dense")]
    private readonly Linear _dense;

    [ComponentName(Name = "LayerNorm")]
    private readonly LayerNorm _norm;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    public BertOutput(BertSettings settings, long inputSize)
        : base(nameof(BertOutput))
    {
        _dense = nn.Linear(inputSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.HiddenDropout);
        RegisterComponents();
    }

    /// <summary>Block output [batch, length, input] and residual [batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor residual)
    {
        using DisposeScope scope = NewDisposeScope();
        return _norm.call(_dropout.call(_dense.call(input)) + residual).MoveToOuterDisposeScope();
    }
}

/// <summary>One encoder layer: attention block, feed-forward block.</summary>
internal sealed class BertLayer : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "attention")]
    private readonly BertAttention _attention;

    [ComponentName(Name = "intermediate")]
    private readonly BertIntermediate _intermediate;

    [ComponentName(Name = "output")]
    private readonly BertOutput _output;

    public BertLayer(BertSettings settings)
        : base(nameof(BertLayer))
    {
        _attention = new BertAttention(settings);
        _intermediate = new BertIntermediate(settings);
        _output = new BertOutput(settings, settings.IntermediateSize);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor attended = _attention.call(input, mask);
        return _output.call(_intermediate.call(attended), attended).MoveToOuterDisposeScope();
    }
}

/// <summary>The stack of layers.</summary>
internal sealed class BertEncoder : nn.Module<Tensor, Tensor?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "layer")]
    private readonly ModuleList<BertLayer> _layers;

    public BertEncoder(BertSettings settings)
        : base(nameof(BertEncoder))
    {
        _layers = new ModuleList<BertLayer>([.. Enumerable.Range(0, settings.LayerCount).Select(_ => new BertLayer(settings))]);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public ActivationCheckpoints? Checkpoints { get; set; }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input;
        Tensor? kept = Checkpoints?.Keep(mask);
        foreach (BertLayer layer in _layers)
        {
            x = Checkpoints is null ? layer.call(x, mask) : Checkpoints.Run(layer, x, given => layer.call(given, kept));
        }

        return x.MoveToOuterDisposeScope();
    }
}

/// <summary>The first token's hidden state through a layer and tanh.</summary>
internal sealed class BertPooler : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "dense")]
    private readonly Linear _dense;

    public BertPooler(BertSettings settings)
        : base(nameof(BertPooler))
    {
        _dense = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] → [batch, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _dense.call(input.select(1, 0)).tanh().MoveToOuterDisposeScope();
    }
}

/// <summary>Embeddings, encoder and, for BERT but not RoBERTa, the pooler.</summary>
internal sealed class BertModel : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "embeddings")]
    private readonly BertEmbeddings _embeddings;

    [ComponentName(Name = "encoder")]
    private readonly BertEncoder _encoder;

    [ComponentName(Name = "pooler")]
    private readonly BertPooler? _pooler;

    /// <summary>Makes the model.</summary>
    /// <param name="name">Class name, BertModel or RobertaModel.</param>
    /// <param name="settings">Sizes.</param>
    /// <param name="positionIds">Position ids of token ids.</param>
    /// <param name="withPooler">Whether there is a pooler.</param>
    public BertModel(string name, BertSettings settings, Func<Tensor, Tensor> positionIds, bool withPooler)
        : base(name)
    {
        _embeddings = new BertEmbeddings(settings, positionIds);
        _encoder = new BertEncoder(settings);
        _pooler = withPooler ? new BertPooler(settings) : null;
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] and a boolean mask or null → hidden states [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        return _encoder.call(_embeddings.call(input), mask).MoveToOuterDisposeScope();
    }

    /// <summary>Hidden states [batch, length, hidden] → [batch, hidden].</summary>
    public Tensor Pool(Tensor hiddenStates) =>
        (_pooler ?? throw new InvalidOperationException($"{GetName()} has no pooler.")).call(hiddenStates);
}

/// <summary>
/// BERT (Devlin et al., arXiv:1810.04805) with a linear layer on the pooled first token. Modules and parameters are named as in transformers.
/// </summary>
public sealed class BertForSequenceClassification : EncoderClassifier
{
    [ComponentName(Name = "bert")]
    private readonly BertModel _bert;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    [ComponentName(Name = "classifier")]
    private readonly Linear _classifier;

    private BertForSequenceClassification(ModelConfig config, ModelBuildOptions options, BertSettings settings)
        : base(nameof(BertForSequenceClassification), config, options.Labels, settings.PositionCount)
    {
        _bert = new BertModel(nameof(BertModel), settings, PositionIds, withPooler: true);
        _dropout = nn.Dropout(settings.ClassifierDropout);
        _classifier = nn.Linear(settings.HiddenSize, Labels.Count, device: options.Device, dtype: options.DType);
        RegisterComponents();
    }

    internal static ModelArchitecture Registration { get; } = new(
        "bert",
        nameof(BertForSequenceClassification),
        (config, options) => new BertForSequenceClassification(config, options, new BertSettings(config, options)),
        new CheckpointLayout
        {
            BasePrefix = "bert.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.weight",
            OptionalPrefixes = ["bert.pooler."],
            SkippedPrefixes = ["cls.", "qa_outputs."],
            SkippedSuffixes = [".position_ids"],

            // Names of the first TensorFlow checkpoints, which bert-base-uncased still has.
            RenamedSuffixes = new Dictionary<string, string> { [".gamma"] = ".weight", [".beta"] = ".bias" },
        });

    /// <inheritdoc/>
    protected override Tensor Encode(Tensor inputIds, Tensor? mask) => _bert.call(inputIds, mask);

    /// <inheritdoc/>
    protected override Tensor Head(Tensor hiddenStates) => _classifier.call(_dropout.call(_bert.Pool(hiddenStates)));

    private static Tensor PositionIds(Tensor inputIds) => arange(inputIds.shape[1], ScalarType.Int64, inputIds.device).unsqueeze(0);
}

/// <summary>Two layers on the first token's hidden state.</summary>
internal sealed class RobertaClassificationHead : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "dense")]
    private readonly Linear _dense;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    [ComponentName(Name = "out_proj")]
    private readonly Linear _output;

    public RobertaClassificationHead(BertSettings settings, int labels)
        : base(nameof(RobertaClassificationHead))
    {
        _dense = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.ClassifierDropout);
        _output = nn.Linear(settings.HiddenSize, labels, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] → logits [batch, labels].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _dense.call(_dropout.call(input.select(1, 0))).tanh();
        return _output.call(_dropout.call(x)).MoveToOuterDisposeScope();
    }
}

/// <summary>
/// RoBERTa (Liu et al., arXiv:1907.11692): BERT's encoder without pooler, positions counted from the padding id on, a head of two layers.
/// Modules and parameters are named as in transformers.
/// </summary>
public sealed class RobertaForSequenceClassification : EncoderClassifier
{
    [ComponentName(Name = "roberta")]
    private readonly BertModel _roberta;

    [ComponentName(Name = "classifier")]
    private readonly RobertaClassificationHead _classifier;

    private readonly int _padId;

    private RobertaForSequenceClassification(ModelConfig config, ModelBuildOptions options, BertSettings settings, int padId)
        : base(nameof(RobertaForSequenceClassification), config, options.Labels, settings.PositionCount - padId - 1)
    {
        _padId = padId;
        _roberta = new BertModel("RobertaModel", settings, PositionIds, withPooler: false);
        _classifier = new RobertaClassificationHead(settings, Labels.Count);
        RegisterComponents();
    }

    internal static ModelArchitecture Registration { get; } = new(
        "roberta",
        nameof(RobertaForSequenceClassification),
        Build,
        new CheckpointLayout
        {
            BasePrefix = "roberta.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.out_proj.weight",
            SkippedPrefixes = ["lm_head.", "qa_outputs.", "roberta.pooler."],
            SkippedSuffixes = [".position_ids", ".token_type_ids"],
            RenamedSuffixes = new Dictionary<string, string> { [".gamma"] = ".weight", [".beta"] = ".bias" },
        });

    /// <inheritdoc/>
    protected override Tensor Encode(Tensor inputIds, Tensor? mask) => _roberta.call(inputIds, mask);

    /// <inheritdoc/>
    protected override Tensor Head(Tensor hiddenStates) => _classifier.call(hiddenStates);

    private static RobertaForSequenceClassification Build(ModelConfig config, ModelBuildOptions options)
    {
        BertSettings settings = new(config, options);
        int padId = config.GetInt("pad_token_id", 1)!.Value;
        return padId >= 0 && padId + 1 < settings.PositionCount
            ? new RobertaForSequenceClassification(config, options, settings, padId)
            : throw config.Invalid("pad_token_id", $"is {padId}, which leaves no room in {settings.PositionCount} positions");
    }

    // Padding keeps the position of the padding id; tokens count on from it, as in fairseq.
    private Tensor PositionIds(Tensor inputIds)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor tokens = inputIds.ne(_padId).to_type(ScalarType.Int64);
        return ((tokens.cumsum(1) * tokens) + _padId).MoveToOuterDisposeScope();
    }
}
