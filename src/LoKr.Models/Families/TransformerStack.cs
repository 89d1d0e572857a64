using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>Roles of the modules that turn token ids into hidden states.</summary>
internal enum EmbeddingPart
{
    /// <summary>One vector for each token id.</summary>
    Tokens,

    /// <summary>One vector for each segment of a pair of texts.</summary>
    Types,

    /// <summary>One vector for each position.</summary>
    Positions,

    /// <summary>Norm of the sum.</summary>
    Norm,

    /// <summary>Projection to the width of the layers, where that of the embeddings is another.</summary>
    Projection,
}

/// <summary>The embeddings of a model as data: sizes and the names of the modules.</summary>
internal sealed record EmbeddingSettings
{
    /// <summary>The modules in the checkpoint's order, each with its full name.</summary>
    public required IReadOnlyList<(EmbeddingPart Part, string Name)> Parts { get; init; }

    /// <summary>Number of token ids.</summary>
    public required int VocabularySize { get; init; }

    /// <summary>Width of the vectors.</summary>
    public required int HiddenSize { get; init; }

    /// <summary>Width after the projection.</summary>
    public int ProjectedSize { get; init; }

    /// <summary>Rows of the table of positions.</summary>
    public int PositionCount { get; init; }

    /// <summary>Rows of the table of token types.</summary>
    public int TypeCount { get; init; }

    /// <summary>Factor on the vectors of tokens, rounded to the type of the table.</summary>
    public double Scale { get; init; } = 1;

    /// <summary>Epsilon of the norm.</summary>
    public double NormEpsilon { get; init; }

    /// <summary>Whether the norm has a bias.</summary>
    public bool HasNormBias { get; init; } = true;

    /// <summary>Dropout of the normalized sum.</summary>
    public double Dropout { get; init; }

    /// <summary>Whether the vectors of padding are zero.</summary>
    public bool ClearsPadding { get; init; }

    /// <summary>
    /// Position ids, int64 [batch, length] or [1, length] where they are the same for every row, from token ids [batch, length] and the
    /// number of positions before them.
    /// </summary>
    public Func<Tensor, long, Tensor> PositionIds { get; init; } = static (ids, start) =>
        arange(start, start + ids.shape[1], ScalarType.Int64, ids.device).unsqueeze(0);

    /// <summary>Device and type of the parameters.</summary>
    public required ModelBuildOptions Options { get; init; }

    /// <summary>Whether there is such a part.</summary>
    public bool Has(EmbeddingPart part) => Parts.Any(item => item.Part == part);

    /// <summary>Full name of a part.</summary>
    public string NameOf(EmbeddingPart part) => Parts.First(item => item.Part == part).Name;

    /// <summary>The module with a role.</summary>
    public nn.Module<Tensor, Tensor> Create(EmbeddingPart part) => part switch
    {
        EmbeddingPart.Tokens => new Embedding(VocabularySize, HiddenSize, Options.Device, Options.DType),
        EmbeddingPart.Types => new Embedding(TypeCount, HiddenSize, Options.Device, Options.DType),
        EmbeddingPart.Positions => new Embedding(PositionCount, HiddenSize, Options.Device, Options.DType),
        EmbeddingPart.Projection => nn.Linear(HiddenSize, ProjectedSize, device: Options.Device, dtype: Options.DType),
        _ => nn.LayerNorm([HiddenSize], NormEpsilon, bias: HasNormBias, device: Options.Device, dtype: Options.DType),
    };
}

/// <summary>Embeddings of tokens, their types and their positions, summed and normalized: whichever of these a family has.</summary>
internal sealed class TokenEmbeddings
{
    private readonly EmbeddingSettings _settings;
    private readonly Embedding _tokens;
    private readonly nn.Module<Tensor, Tensor>? _types;
    private readonly nn.Module<Tensor, Tensor>? _positions;
    private readonly nn.Module<Tensor, Tensor>? _norm;
    private readonly nn.Module<Tensor, Tensor>? _projection;

    /// <summary>Creates the modules in the tree of a model.</summary>
    public TokenEmbeddings(nn.Module root, EmbeddingSettings settings)
    {
        _settings = settings;
        Dictionary<EmbeddingPart, nn.Module<Tensor, Tensor>> parts = settings.Parts.ToDictionary(item => item.Part, item => root.Place(item.Name, settings.Create(item.Part)));
        _tokens = (Embedding)parts[EmbeddingPart.Tokens];
        _types = parts.GetValueOrDefault(EmbeddingPart.Types);
        _positions = parts.GetValueOrDefault(EmbeddingPart.Positions);
        _norm = parts.GetValueOrDefault(EmbeddingPart.Norm);
        _projection = parts.GetValueOrDefault(EmbeddingPart.Projection);
    }

    /// <summary>Number of token ids.</summary>
    public int Count => (int)_tokens.Weight.shape[0];

    /// <summary>Token ids, int64 [batch, length] → hidden states [batch, length, hidden].</summary>
    /// <param name="ids">The ids.</param>
    /// <param name="start">Number of positions before them.</param>
    /// <param name="training">Whether dropout applies.</param>
    /// <param name="types">Type of each token, int64 [batch, length]; null for type 0.</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length], or null.</param>
    /// <param name="positions">Position of each token, int64 [batch, length]; null for those that the family counts.</param>
    public Tensor Run(Tensor ids, long start, bool training, Tensor? types = null, Tensor? attentionMask = null, Tensor? positions = null)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _tokens.call(ids);
        x = _settings.Scale == 1 ? x : x * tensor(_settings.Scale, x.dtype, x.device);
        x = _types is null ? x : x + _types.call(types ?? zeros(1, 1, ScalarType.Int64, ids.device));
        x = _positions is null ? x : x + _positions.call(positions ?? _settings.PositionIds(ids, start));
        x = _norm is null ? x : _norm.call(x);
        x = _settings.ClearsPadding && attentionMask is not null ? x * attentionMask.unsqueeze(-1).to_type(x.dtype) : x;
        x = x.WithDropout(_settings.Dropout, training);
        return (_projection is null ? x : _projection.call(x)).MoveToOuterDisposeScope();
    }
}

/// <summary>
/// The layers of a model, one after the other. Bidirectional encoders and causal decoders are the same stack: the <see cref="AttentionPass"/>
/// says which positions see which.
/// </summary>
internal sealed class TransformerStack : nn.Module<Tensor, AttentionPass, Tensor>, ICheckpointedBlocks
{
    private readonly TransformerLayer[] _steps;

    /// <summary>Creates the layers.</summary>
    /// <param name="settings">The layers as data.</param>
    /// <param name="ending">What the first layer ends with; null where it ends as the others.</param>
    public TransformerStack(StackSettings settings, ILayerEnding? ending = null)
        : base(nameof(TransformerStack))
    {
        TransformerLayer[] layers = [.. Enumerable.Range(0, settings.LayerCount).Select(index => this.Place(settings.NameOf(index), new TransformerLayer(settings, index, index == 0 ? ending : null)))];
        _steps = [.. settings.Order.Select(index => layers[index])];
    }

    /// <inheritdoc/>
    public ActivationCheckpoints? Checkpoints { get; set; }

    /// <summary>Hidden states [batch, length, hidden] → [batch, length, hidden], or [count, hidden] of the places that are read.</summary>
    public override Tensor forward(Tensor input, AttentionPass pass) => Run(input, pass, _steps);

    /// <summary>Hidden states [batch, length, hidden] after the last layer, and those before it.</summary>
    public (Tensor Last, Tensor Penultimate) RunWithPenultimate(Tensor input, AttentionPass pass)
    {
        Tensor penultimate = Run(input, pass, _steps.AsSpan(0, _steps.Length - 1));
        return (Run(penultimate, pass, _steps.AsSpan(_steps.Length - 1)), penultimate);
    }

    private Tensor Run(Tensor input, AttentionPass pass, ReadOnlySpan<TransformerLayer> layers)
    {
        using DisposeScope scope = NewDisposeScope();
        AttentionPass? kept = Checkpoints is null || pass.Cache is not null ? null : pass.HoldIn(Checkpoints);
        AttentionPass ending = kept ?? pass;
        AttentionPass inner = ending.Reading(null);

        // The input is the caller's; each later one is released as soon as the next is there.
        Tensor x = input.alias();
        for (int i = 0; i < layers.Length; i++)
        {
            (TransformerLayer layer, AttentionPass shared) = (layers[i], i == layers.Length - 1 ? ending : inner);
            Tensor next = kept is null ? layer.call(x, shared) : Checkpoints!.Run(layer, x, given => layer.call(given, shared));
            x.Dispose();
            x = next;
        }

        return x.MoveToOuterDisposeScope();
    }
}
