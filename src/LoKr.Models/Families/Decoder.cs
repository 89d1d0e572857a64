using System.Text.Json.Nodes;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>A family of decoders as data.</summary>
internal sealed record DecoderSettings
{
    /// <summary>Class name in transformers, with the output embeddings.</summary>
    public required string ClassName { get; init; }

    /// <summary>Embeddings of tokens and, without rotary positions, of positions.</summary>
    public required EmbeddingSettings Embeddings { get; init; }

    /// <summary>The layers.</summary>
    public required StackSettings Stack { get; init; }

    /// <summary>Full name of the norm after the last layer.</summary>
    public required string NormName { get; init; }

    /// <summary>Full name of the output embeddings.</summary>
    public string HeadName { get; init; } = "lm_head";

    /// <summary>Whether the output embeddings are the token embeddings.</summary>
    public required bool IsTied { get; init; }

    /// <summary>Factor on the logits.</summary>
    public double LogitScale { get; init; } = 1;

    /// <summary>The value c of c·tanh(logits/c), which bounds the logits; null for no bound.</summary>
    public double? LogitCap { get; init; }

    /// <summary>
    /// Number of positions up to which a cache holds while a text grows: beyond, what was read is computed again, because all positions rotate
    /// otherwise. Null where keys stay as they were rotated.
    /// </summary>
    public int? CacheLimit { get; init; }

    /// <summary>Id of the end of text where neither configuration names it.</summary>
    public int? DefaultEosId { get; init; }

    /// <summary>Completes a configuration by the keys that other releases of transformers have for the same.</summary>
    public Action<JsonObject> WriteSpellings { get; init; } = static _ => { };

    /// <summary>Whether positions are a table, so that a longer sequence cannot be computed at all.</summary>
    public bool HasPositionTable => Stack.Ropes.Count == 0;

    /// <summary>Longest sequence the model is made for.</summary>
    public int MaxSequenceLength => HasPositionTable ? Embeddings.PositionCount : Stack.Ropes.OfType<RopeSettings>().Min(static rope => rope.LongestSequence);
}

/// <summary>
/// The part of every decoder before its head: embeddings, layers and the last norm. Positions count from the left, so padding goes to the right.
/// Modules and parameters are named as in transformers.
/// </summary>
internal sealed class Decoder : ITextBody
{
    private readonly DecoderSettings _settings;
    private readonly TokenEmbeddings _embeddings;
    private readonly TransformerStack _stack;
    private readonly nn.Module<Tensor, Tensor> _norm;
    private readonly LayerRotations _rotations;

    /// <summary>Creates the modules in the tree of a model.</summary>
    public Decoder(nn.Module root, DecoderSettings settings)
    {
        _settings = settings;
        _embeddings = new TokenEmbeddings(root, settings.Embeddings);
        _stack = root.Place(settings.Stack.Name, new TransformerStack(settings.Stack));
        _norm = root.Place(settings.NormName, settings.Stack.CreateNorm(settings.Stack.HiddenSize));
        _rotations = new LayerRotations(settings.Stack.Ropes);
    }

    /// <inheritdoc/>
    public int MaxSequenceLength => _settings.MaxSequenceLength;

    /// <inheritdoc/>
    public int TokenTypeCount => 0;

    /// <summary>Number of token ids; an adapter whose vocabulary has grown brings more.</summary>
    public int VocabularySize => _embeddings.Count;

    /// <summary>An empty cache for one sequence.</summary>
    public KeyValueCache CreateCache() => new(_settings.Stack.Windows);

    /// <inheritdoc/>
    public void Check(Tensor inputIds, Tensor? attentionMask, Tensor? tokenTypeIds = null)
    {
        TokenInput.Check(_settings.ClassName, inputIds, attentionMask, VocabularySize, _settings.HasPositionTable ? _settings.MaxSequenceLength : null);
        TokenInput.CheckTypes(_settings.ClassName, inputIds, tokenTypeIds, TokenTypeCount);
    }

    /// <summary>Token ids without types, all positions at once.</summary>
    Tensor ITextBody.Run(Tensor inputIds, Tensor? attentionMask, Tensor? tokenTypeIds, bool training, Tensor? places) =>
        Run(inputIds, attentionMask, cache: null, training, places);

    /// <summary>Token ids [batch, length] → hidden states [batch, length, hidden], or [count, hidden] of the places that are read.</summary>
    /// <param name="inputIds">Token ids; with a cache, those that follow what it holds.</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length], or null.</param>
    /// <param name="cache">Keys and values of earlier positions, to which those of the input are added; or null.</param>
    /// <param name="training">Whether dropout applies.</param>
    /// <param name="places">Places that are read, int64 [count], counted as <see cref="BatchPlaces"/> does; null for all.</param>
    public Tensor Run(Tensor inputIds, Tensor? attentionMask, KeyValueCache? cache, bool training, Tensor? places = null)
    {
        using DisposeScope scope = NewDisposeScope();
        (long start, long length) = (cache?.Length ?? 0, inputIds.shape[1]);
        Tensor x = _embeddings.Run(inputIds, start, training);
        IReadOnlyList<Rotation?> rotations = _rotations.Get(start, length, x.device, x.dtype);
        x = _stack.call(x, AttentionPass.Causal(attentionMask, length, x.device, _settings.Stack.Windows, rotations, cache).Reading(places));
        cache?.Advance(length);
        return _norm.call(x).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Token ids [batch, length] → hidden states [batch, length, hidden], or [count, hidden] of the places that are read, where a row has several
    /// texts, none of which sees another.
    /// </summary>
    /// <param name="inputIds">Token ids.</param>
    /// <param name="positionIds">Position of every token in its own text, int64 [batch, length].</param>
    /// <param name="training">Whether dropout applies.</param>
    /// <param name="places">Places that are read, int64 [count], counted as <see cref="BatchPlaces"/> does; null for all.</param>
    public Tensor RunPacked(Tensor inputIds, Tensor positionIds, bool training, Tensor? places = null)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _embeddings.Run(inputIds, 0, training, positions: positionIds);
        IReadOnlyList<Rotation?> rotations = _rotations.Get(positionIds, x.device, x.dtype);
        x = _stack.call(x, AttentionPass.Packed(positionIds, _settings.Stack.Windows, rotations).Reading(places));
        return _norm.call(x).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void Dispose() => _rotations.Dispose();
}
