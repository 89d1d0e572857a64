using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>The sizes of a DistilBERT encoder, checked.</summary>
internal sealed record DistilBertSettings
{
    /// <summary>Fixed in the architecture.</summary>
    public const double LayerNormEpsilon = 1e-12;

    /// <summary>Reads and checks a configuration.</summary>
    public DistilBertSettings(ModelConfig config, ModelBuildOptions options)
    {
        VocabularySize = config.GetSize("vocab_size");
        HiddenSize = config.GetSize("dim");
        LayerCount = config.GetSize("n_layers");
        HeadCount = config.GetSize("n_heads");
        IntermediateSize = config.GetSize("hidden_dim");
        PositionCount = config.GetSize("max_position_embeddings", 512);
        HiddenDropout = config.GetProbability("dropout", 0.1);
        AttentionDropout = config.GetProbability("attention_dropout", 0.1);
        ClassifierDropout = config.GetProbability("seq_classif_dropout", 0.2);
        Activation = Families.Activation.Get(config, "activation", "gelu");
        Device = options.Device;
        DType = options.DType;

        if (HiddenSize % HeadCount != 0)
        {
            throw config.Invalid("n_heads", $"is {HeadCount}, which does not divide the dim {HiddenSize}");
        }
    }

    public int VocabularySize { get; }

    public int HiddenSize { get; }

    public int LayerCount { get; }

    public int HeadCount { get; }

    public int IntermediateSize { get; }

    public int PositionCount { get; }

    public double HiddenDropout { get; }

    public double AttentionDropout { get; }

    public double ClassifierDropout { get; }

    public Func<Tensor, Tensor> Activation { get; }

    public Device Device { get; }

    public ScalarType DType { get; }
}

/// <summary>Word and position embeddings, summed and normalized.</summary>
internal sealed class DistilBertEmbeddings : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "word_embeddings")]
    private readonly Core.Nn.Embedding _words;

    [ComponentName(Name = "position_embeddings")]
    private readonly Core.Nn.Embedding _positions;

    [ComponentName(Name = "LayerNorm")]
    private readonly LayerNorm _norm;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    public DistilBertEmbeddings(DistilBertSettings settings)
        : base(nameof(DistilBertEmbeddings))
    {
        _words = new Core.Nn.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _positions = new Core.Nn.Embedding(settings.PositionCount, settings.HiddenSize, settings.Device, settings.DType);
        _norm = nn.LayerNorm([settings.HiddenSize], DistilBertSettings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.HiddenDropout);
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor positions = arange(input.shape[1], ScalarType.Int64, input.device).unsqueeze(0);
        Tensor x = _words.call(input) + _positions.call(positions);
        return _dropout.call(_norm.call(x)).MoveToOuterDisposeScope();
    }
}

/// <summary>Multi-head self-attention with its output projection.</summary>
internal sealed class DistilBertAttention : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "q_lin")]
    private readonly Linear _query;

    [ComponentName(Name = "k_lin")]
    private readonly Linear _key;

    [ComponentName(Name = "v_lin")]
    private readonly Linear _value;

    [ComponentName(Name = "out_lin")]
    private readonly Linear _output;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    private readonly int _heads;

    public DistilBertAttention(DistilBertSettings settings)
        : base(nameof(DistilBertAttention))
    {
        _query = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _key = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _value = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _output = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
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
        return _output.call(Attention.MergeHeads(context)).MoveToOuterDisposeScope();
    }
}

/// <summary>The feed-forward block.</summary>
internal sealed class DistilBertFeedForward : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    [ComponentName(Name = "lin1")]
    private readonly Linear _in;

    [ComponentName(Name = "lin2")]
    private readonly Linear _out;

    private readonly Func<Tensor, Tensor> _activation;

    public DistilBertFeedForward(DistilBertSettings settings)
        : base(nameof(DistilBertFeedForward))
    {
        _dropout = nn.Dropout(settings.HiddenDropout);
        _in = nn.Linear(settings.HiddenSize, settings.IntermediateSize, device: settings.Device, dtype: settings.DType);
        _out = nn.Linear(settings.IntermediateSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _activation = settings.Activation;
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _dropout.call(_out.call(_activation(_in.call(input)))).MoveToOuterDisposeScope();
    }
}

/// <summary>One encoder layer: attention block, feed-forward block.</summary>
internal sealed class DistilBertLayer : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "attention")]
    private readonly DistilBertAttention _attention;

    [ComponentName(Name = "sa_layer_norm")]
    private readonly LayerNorm _attentionNorm;

    [ComponentName(Name = "ffn")]
    private readonly DistilBertFeedForward _feedForward;

    [ComponentName(Name = "output_layer_norm")]
    private readonly LayerNorm _outputNorm;

    public DistilBertLayer(DistilBertSettings settings)
        : base(nameof(DistilBertLayer))
    {
        _attention = new DistilBertAttention(settings);
        _attentionNorm = nn.LayerNorm([settings.HiddenSize], DistilBertSettings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _feedForward = new DistilBertFeedForward(settings);
        _outputNorm = nn.LayerNorm([settings.HiddenSize], DistilBertSettings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor attended = _attentionNorm.call(_attention.call(input, mask) + input);
        return _outputNorm.call(_feedForward.call(attended) + attended).MoveToOuterDisposeScope();
    }
}

/// <summary>The stack of layers.</summary>
internal sealed class DistilBertTransformer : nn.Module<Tensor, Tensor?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "layer")]
    private readonly ModuleList<DistilBertLayer> _layers;

    public DistilBertTransformer(DistilBertSettings settings)
        : base(nameof(DistilBertTransformer))
    {
        _layers = new ModuleList<DistilBertLayer>([.. Enumerable.Range(0, settings.LayerCount).Select(_ => new DistilBertLayer(settings))]);
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
        foreach (DistilBertLayer layer in _layers)
        {
            x = Checkpoints is null ? layer.call(x, mask) : Checkpoints.Run(layer, x, given => layer.call(given, kept));
        }

        return x.MoveToOuterDisposeScope();
    }
}

/// <summary>Embeddings and layers.</summary>
internal sealed class DistilBertModel : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "embeddings")]
    private readonly DistilBertEmbeddings _embeddings;

    [ComponentName(Name = "transformer")]
    private readonly DistilBertTransformer _transformer;

    public DistilBertModel(DistilBertSettings settings)
        : base(nameof(DistilBertModel))
    {
        _embeddings = new DistilBertEmbeddings(settings);
        _transformer = new DistilBertTransformer(settings);
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] and a boolean mask or null → hidden states [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        return _transformer.call(_embeddings.call(input), mask).MoveToOuterDisposeScope();
    }
}

/// <summary>
/// DistilBERT (Sanh et al., arXiv:1910.01108) with a head of two layers on the first token. Modules and parameters are named as in transformers.
/// </summary>
public sealed class DistilBertForSequenceClassification : EncoderClassifier
{
    [ComponentName(Name = "distilbert")]
    private readonly DistilBertModel _distilbert;

    [ComponentName(Name = "pre_classifier")]
    private readonly Linear _preClassifier;

    [ComponentName(Name = "classifier")]
    private readonly Linear _classifier;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    private DistilBertForSequenceClassification(ModelConfig config, ModelBuildOptions options, DistilBertSettings settings)
        : base(nameof(DistilBertForSequenceClassification), config, options.Labels, settings.PositionCount)
    {
        _distilbert = new DistilBertModel(settings);
        _preClassifier = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: options.Device, dtype: options.DType);
        _classifier = nn.Linear(settings.HiddenSize, Labels.Count, device: options.Device, dtype: options.DType);
        _dropout = nn.Dropout(settings.ClassifierDropout);
        RegisterComponents();
    }

    internal static ModelArchitecture Registration { get; } = new(
        "distilbert",
        nameof(DistilBertForSequenceClassification),
        (config, options) => new DistilBertForSequenceClassification(config, options, new DistilBertSettings(config, options)),
        new CheckpointLayout
        {
            BasePrefix = "distilbert.",
            HeadPrefixes = ["pre_classifier.", "classifier."],
            LabelWeight = "classifier.weight",
            SkippedPrefixes = ["vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs."],
            SkippedSuffixes = [".position_ids"],
        });

    /// <inheritdoc/>
    protected override Tensor Encode(Tensor inputIds, Tensor? mask) => _distilbert.call(inputIds, mask);

    /// <inheritdoc/>
    protected override Tensor Head(Tensor hiddenStates)
    {
        Tensor first = nn.functional.relu(_preClassifier.call(hiddenStates.select(1, 0)));
        return _classifier.call(_dropout.call(first));
    }
}
