using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>How the hidden states of a text become one vector.</summary>
internal enum TextPooling
{
    /// <summary>The vector of the first token.</summary>
    FirstToken,

    /// <summary>The mean over the tokens that are not padding.</summary>
    Mean,
}

/// <summary>A classification head as data: [[dropout,] a linear layer, an activation, [a norm,]] dropout, a linear layer to the labels.</summary>
internal sealed record HeadSettings
{
    /// <summary>Position of a text that the head reads.</summary>
    public TextPooling Pooling { get; init; }

    /// <summary>Dropout of the pooled vector.</summary>
    public double InputDropout { get; init; }

    /// <summary>Full name of the first linear layer; null for a head of the last one alone.</summary>
    public string? DenseName { get; init; }

    /// <summary>Whether the first linear layer has a bias.</summary>
    public bool HasDenseBias { get; init; } = true;

    /// <summary>Activation of the first linear layer.</summary>
    public Func<Tensor, Tensor> Activation { get; init; } = static x => x;

    /// <summary>Full name of the norm behind the activation, of the kind of the layers' norms; null where there is none.</summary>
    public string? NormName { get; init; }

    /// <summary>Dropout before the last linear layer.</summary>
    public required double Dropout { get; init; }

    /// <summary>Full name of the last linear layer, with one row a label.</summary>
    public string OutputName { get; init; } = "classifier";

    /// <summary>Whether the last linear layer has a bias.</summary>
    public bool HasOutputBias { get; init; } = true;
}

/// <summary>Scores the labels of a text, or of each token.</summary>
internal sealed class ClassificationHead
{
    private readonly HeadSettings _settings;
    private readonly Linear? _dense;
    private readonly nn.Module<Tensor, Tensor>? _norm;
    private readonly Linear _output;

    /// <summary>Creates the modules in the tree of a model.</summary>
    /// <param name="root">The model.</param>
    /// <param name="settings">The head.</param>
    /// <param name="stack">The layers before it.</param>
    /// <param name="labels">Number of labels.</param>
    public ClassificationHead(nn.Module root, HeadSettings settings, StackSettings stack, int labels)
    {
        (_settings, ModelBuildOptions options) = (settings, stack.Options);
        _dense = settings.DenseName is null ? null : root.Place(settings.DenseName, nn.Linear(stack.HiddenSize, stack.HiddenSize, settings.HasDenseBias, options.Device, options.DType));
        _norm = settings.NormName is null ? null : root.Place(settings.NormName, stack.CreateNorm(stack.HiddenSize));
        _output = root.Place(settings.OutputName, nn.Linear(stack.HiddenSize, labels, settings.HasOutputBias, options.Device, options.DType));
    }

    /// <summary>The places of token ids [batch, length] whose hidden states the head of a text reads, int64 [batch]; null where it reads all.</summary>
    public Tensor? Places(Tensor inputIds) => _settings.Pooling == TextPooling.Mean ? null : BatchPlaces.First(inputIds.shape[0], inputIds.shape[1], inputIds.device);

    /// <summary>Hidden states → logits [batch, labels].</summary>
    /// <param name="hidden">The hidden states of the <see cref="Places"/> [batch, hidden]; [batch, length, hidden] where the head reads all.</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length].</param>
    /// <param name="training">Whether dropout applies.</param>
    public Tensor Run(Tensor hidden, Tensor attentionMask, bool training)
    {
        using DisposeScope scope = NewDisposeScope();
        return Score(_settings.Pooling == TextPooling.Mean ? Mean(hidden, attentionMask) : hidden, training).MoveToOuterDisposeScope();
    }

    /// <summary>Vectors [..., hidden] → logits [..., labels].</summary>
    /// <param name="vectors">The vectors: of texts, or of tokens.</param>
    /// <param name="training">Whether dropout applies.</param>
    public Tensor Score(Tensor vectors, bool training)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _dense is null ? vectors : _settings.Activation(_dense.call(vectors.WithDropout(_settings.InputDropout, training)));
        x = _norm is null ? x : _norm.call(x);
        return _output.call(x.WithDropout(_settings.Dropout, training)).MoveToOuterDisposeScope();
    }

    /// <summary>Mean over the tokens that are not padding, [batch, length, hidden] → [batch, hidden]; intermediate tensors stay in the caller's dispose scope.</summary>
    public static Tensor Mean(Tensor hidden, Tensor attentionMask)
    {
        Tensor weights = attentionMask.to_type(hidden.dtype).unsqueeze(-1);
        return (hidden * weights).sum(dim: 1L) / weights.sum(dim: 1L).clamp_min(1e-9);
    }
}
