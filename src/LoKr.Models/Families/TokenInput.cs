using LoKr.Core.Errors;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>Checks of a batch of token ids before it reaches the model.</summary>
internal static class TokenInput
{
    /// <summary>Refuses a batch that does not fit the model with <see cref="ErrorIds.ModelInputInvalid"/>.</summary>
    /// <param name="architecture">Name of the model for the message.</param>
    /// <param name="inputIds">Token ids; int64 [batch, length] is required.</param>
    /// <param name="attentionMask">Mask of the same shape, or null.</param>
    /// <param name="vocabularySize">Number of embeddings.</param>
    /// <param name="positions">Longest sequence that has positions; null where they are not a table.</param>
    public static void Check(string architecture, Tensor inputIds, Tensor? attentionMask, int vocabularySize, int? positions = null)
    {
        ArgumentNullException.ThrowIfNull(inputIds);
        string? problem =
            inputIds.dim() != 2 || inputIds.dtype != ScalarType.Int64 ? $"token ids are {inputIds.dtype} [{string.Join(", ", inputIds.shape)}], not int64 [batch, length]"
            : inputIds.numel() == 0 ? $"token ids are empty: [{string.Join(", ", inputIds.shape)}]"
            : inputIds.shape[1] > positions ? $"sequences have {inputIds.shape[1]} tokens, more than the {positions} the model has positions for"
            : attentionMask is not null && !attentionMask.shape.SequenceEqual(inputIds.shape) ? $"the attention mask is [{string.Join(", ", attentionMask.shape)}], the token ids [{string.Join(", ", inputIds.shape)}]"
            : HasUnknownIds(inputIds, vocabularySize) ? $"a token id is not between 0 and {vocabularySize - 1}"
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument, $"{architecture}: {problem}.", "Encode texts with the tokenizer of the model, cut to its longest sequence.");
        }
    }

    /// <summary>Refuses token types that do not fit the model with <see cref="ErrorIds.ModelInputInvalid"/>.</summary>
    /// <param name="architecture">Name of the model for the message.</param>
    /// <param name="inputIds">Token ids [batch, length].</param>
    /// <param name="tokenTypeIds">Types of the same shape, int64, or null.</param>
    /// <param name="typeCount">Number of types that the model has.</param>
    public static void CheckTypes(string architecture, Tensor inputIds, Tensor? tokenTypeIds, int typeCount)
    {
        string? problem = tokenTypeIds is null ? null
            : typeCount == 0 ? "the model has no token types"
            : tokenTypeIds.dtype != ScalarType.Int64 || !tokenTypeIds.shape.SequenceEqual(inputIds.shape)
                ? $"token types are {tokenTypeIds.dtype} [{string.Join(", ", tokenTypeIds.shape)}], the token ids Int64 [{string.Join(", ", inputIds.shape)}]"
            : HasUnknownIds(tokenTypeIds, typeCount) ? $"a token type is not between 0 and {typeCount - 1}"
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument, $"{architecture}: {problem}.", "Encode texts with the tokenizer of the model.");
        }
    }

    /// <summary>Refuses positions that do not fit token ids with <see cref="ErrorIds.ModelInputInvalid"/>.</summary>
    /// <param name="architecture">Name of the model for the message.</param>
    /// <param name="inputIds">Token ids [batch, length].</param>
    /// <param name="positionIds">Position of each token; int64 [batch, length] is required.</param>
    public static void CheckPositions(string architecture, Tensor inputIds, Tensor positionIds)
    {
        if (positionIds.dtype != ScalarType.Int64 || !positionIds.shape.SequenceEqual(inputIds.shape))
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument,
                $"{architecture}: positions are {positionIds.dtype} [{string.Join(", ", positionIds.shape)}], the token ids Int64 [{string.Join(", ", inputIds.shape)}].", "Give one position for each token.");
        }
    }

    /// <summary>Refuses places that a batch does not have with <see cref="ErrorIds.ModelInputInvalid"/>.</summary>
    /// <param name="architecture">Name of the model for the message.</param>
    /// <param name="inputIds">Token ids [batch, length].</param>
    /// <param name="places">Places, counted as <see cref="BatchPlaces"/> does; int64 [count] is required, or null.</param>
    public static void CheckPlaces(string architecture, Tensor inputIds, Tensor? places)
    {
        string? problem = places is null ? null
            : places.dtype != ScalarType.Int64 || places.dim() != 1 ? $"places are {places.dtype} [{string.Join(", ", places.shape)}], not Int64 [count]"
            : HasUnknownIds(places, inputIds.numel()) ? $"a place is not between 0 and {inputIds.numel() - 1}"
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument, $"{architecture}: {problem}.", "Count places through the batch: text · length + position.");
        }
    }

    // Reading the values costs a synchronization, but on a GPU an id outside the table would end the process's use of the device.
    private static bool HasUnknownIds(Tensor ids, long count)
    {
        using DisposeScope scope = NewDisposeScope();
        return ids.lt(0).logical_or(ids.ge(count)).any().item<bool>();
    }
}

/// <summary>
/// Places of tokens in a batch, counted through all its texts: place = text · length + position. A head that reads few of them spares the last
/// layer the others (see <see cref="AttentionPass.Places"/>).
/// </summary>
internal static class BatchPlaces
{
    /// <summary>The places of one token of each text, int64 [batch].</summary>
    /// <param name="positions">Its position, int64 [batch].</param>
    /// <param name="length">Length of the sequences.</param>
    public static Tensor Of(Tensor positions, long length)
    {
        using DisposeScope scope = NewDisposeScope();
        return (First(positions.shape[0], length, positions.device) + positions).MoveToOuterDisposeScope();
    }

    /// <summary>The places of the first token of each text, int64 [batch].</summary>
    /// <param name="batch">Number of texts.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="device">Device of the model.</param>
    public static Tensor First(long batch, long length, Device device) => arange(0, batch * length, length, ScalarType.Int64, device);
}

/// <summary>Boolean masks (true takes part), created only where attention needs one, because torch's fast kernels take none.</summary>
internal static class AttentionMask
{
    /// <summary>The mask of padding.</summary>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length], or null.</param>
    /// <returns>[batch, 1, 1, length]; null when nothing is padded.</returns>
    public static Tensor? Padding(Tensor? attentionMask)
    {
        if (attentionMask is null)
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor tokens = attentionMask.ne(0);
        return tokens.all().item<bool>() ? null : tokens.unsqueeze(1).unsqueeze(1).MoveToOuterDisposeScope();
    }

    /// <summary>The mask of layers that look to both sides.</summary>
    /// <param name="padding">Boolean [batch, 1, 1, length], or null.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="window">Most positions that one sees, itself and as many on both sides; null for all.</param>
    /// <param name="device">Device of the mask.</param>
    /// <returns>[1 or batch, 1, 1 or length, length]; null where every position sees every other.</returns>
    public static Tensor? Bidirectional(Tensor? padding, long length, int? window, Device device)
    {
        if (window is not int width || length <= (width + 1) / 2)
        {
            return padding;
        }

        using DisposeScope scope = NewDisposeScope();
        int side = (width - 1) / 2;
        Tensor mask = ones(length, length, dtype: ScalarType.Bool, device: device).tril_(side).triu_(-side).unsqueeze(0).unsqueeze(0);
        return (padding is null ? mask : mask.logical_and(padding)).MoveToOuterDisposeScope();
    }

    /// <summary>The mask of layers that only look back.</summary>
    /// <param name="padding">Boolean [batch, 1, 1, length], or null.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="window">Most positions that one sees, itself included; null for all.</param>
    /// <param name="device">Device of the mask.</param>
    /// <returns>[1 or batch, 1, length, length]; null where every position sees itself and all before it.</returns>
    public static Tensor? Causal(Tensor? padding, long length, int? window, Device device)
    {
        if (padding is null && (window is null || length <= window))
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor mask = ones(length, length, dtype: ScalarType.Bool, device: device).tril_();
        if (window is int width && width < length)
        {
            mask = mask.triu_(1 - width);
        }

        mask = mask.unsqueeze(0).unsqueeze(0);
        return (padding is null ? mask : mask.logical_and(padding)).MoveToOuterDisposeScope();
    }

    /// <summary>The mask of layers that only look back, as far as a text of a packed row goes.</summary>
    /// <param name="positionIds">Position of every token in its own text, int64 [batch, length].</param>
    /// <param name="window">Most positions that one sees, itself included; null for all.</param>
    /// <returns>[batch, 1, length, length].</returns>
    public static Tensor Packed(Tensor positionIds, int? window)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor texts = positionIds.eq(0).cumsum(1);
        Tensor same = texts.unsqueeze(2).eq(texts.unsqueeze(1)).unsqueeze(1);
        Tensor? back = Causal(null, positionIds.shape[1], window, positionIds.device);
        return (back is null ? same.tril() : same.logical_and(back)).MoveToOuterDisposeScope();
    }
}

/// <summary>The values that the layers of a stack share in one forward pass: masks, rotations of the positions, scores of distances and the cache.</summary>
internal sealed class AttentionPass
{
    private readonly Dictionary<int, Tensor?> _masks;

    private AttentionPass(bool isCausal, Dictionary<int, Tensor?> masks) => (IsCausal, _masks) = (isCausal, masks);

    /// <summary>Whether a position sees only itself and those before it.</summary>
    public bool IsCausal { get; }

    /// <summary>Rotations of the positions by layer; empty where positions are embedded.</summary>
    public IReadOnlyList<Rotation?> Rotations { get; private init; } = [];

    /// <summary>Keys and values of earlier positions, to which each layer adds its own; or null.</summary>
    public KeyValueCache? Cache { get; private init; }

    /// <summary>Scores by the distance of positions; null where there are none.</summary>
    public PositionScores? Scores { get; private init; }

    /// <summary>
    /// Places that are read behind the last layer, int64 [count], counted as <see cref="BatchPlaces"/> does; null for all. Its keys and values
    /// are those of every place, and all that follows its attention is computed for these alone.
    /// </summary>
    public Tensor? Places { get; private init; }

    /// <summary>Every position sees every other, as far as the layer's window goes. The masks are in the caller's dispose scope.</summary>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length]; null when nothing is padded.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="device">Device of the model.</param>
    /// <param name="windows">Attention windows of the layers; null for all positions.</param>
    /// <param name="rotations">Rotations of the positions by layer, or null.</param>
    /// <param name="scores">Scores by the distance of positions, or null.</param>
    public static AttentionPass Bidirectional(
        Tensor? attentionMask, long length, Device device, IEnumerable<int?> windows, IReadOnlyList<Rotation?>? rotations = null, PositionScores? scores = null)
    {
        Tensor? padding = AttentionMask.Padding(attentionMask);
        Dictionary<int, Tensor?> masks = windows.Distinct().ToDictionary(static window => window ?? 0, window => AttentionMask.Bidirectional(padding, length, window, device));
        return new(false, masks) { Rotations = rotations ?? [], Scores = scores };
    }

    /// <summary>Every position sees itself and those before it, as far as the layer's window goes. The masks are in the caller's dispose scope.</summary>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length]; null when nothing is padded.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="device">Device of the model.</param>
    /// <param name="windows">Attention windows of the layers; null for all positions.</param>
    /// <param name="rotations">Rotations of the positions by layer, or null.</param>
    /// <param name="cache">Keys and values of earlier positions, or null.</param>
    public static AttentionPass Causal(
        Tensor? attentionMask, long length, Device device, IEnumerable<int?> windows, IReadOnlyList<Rotation?>? rotations = null, KeyValueCache? cache = null)
    {
        Tensor? padding = AttentionMask.Padding(attentionMask);
        Dictionary<int, Tensor?> masks = windows.Distinct().ToDictionary(static window => window ?? 0, window => AttentionMask.Causal(padding, length, window, device));
        return new(true, masks) { Rotations = rotations ?? [], Cache = cache };
    }

    /// <summary>Every position sees itself and those before it in its own text. The masks are in the caller's dispose scope.</summary>
    /// <param name="positionIds">Position of every token in its own text, int64 [batch, length].</param>
    /// <param name="windows">Attention windows of the layers; null for all positions.</param>
    /// <param name="rotations">Rotations of the positions by layer.</param>
    public static AttentionPass Packed(Tensor positionIds, IEnumerable<int?> windows, IReadOnlyList<Rotation?> rotations) =>
        new(true, windows.Distinct().ToDictionary(static window => window ?? 0, window => (Tensor?)AttentionMask.Packed(positionIds, window))) { Rotations = rotations };

    /// <summary>Boolean mask of the layers with that window; null where they need none.</summary>
    public Tensor? Mask(int? window) => _masks[window ?? 0];

    /// <summary>Rotation of the positions in a layer; null where it has none.</summary>
    public Rotation? Rotation(int layer) => Rotations.Count == 0 ? null : Rotations[layer];

    /// <summary>The same where other places are read; null for all.</summary>
    public AttentionPass Reading(Tensor? places) =>
        ReferenceEquals(places, Places) ? this : new(IsCausal, _masks) { Rotations = Rotations, Cache = Cache, Scores = Scores, Places = places };

    /// <summary>Of vectors of all places [batch, length, width], those that are read [count, width]; the vectors themselves where all are.</summary>
    public Tensor Read(Tensor vectors) => Places is null ? vectors : vectors.flatten(0, 1).index_select(0, Places);

    /// <summary>The same without a cache, with tensors that stay until the backward pass is over.</summary>
    public AttentionPass HoldIn(ActivationCheckpoints checkpoints) =>
        new(IsCausal, _masks.ToDictionary(static entry => entry.Key, entry => checkpoints.Hold(entry.Value)))
        {
            Places = checkpoints.Hold(Places),
            Rotations = [.. Rotations.Select(rotation => rotation is { } turned
                ? new Rotation(checkpoints.Hold(turned.Cosine)!, checkpoints.Hold(turned.Sine)!)
                : (Rotation?)null)],
            Scores = Scores?.HoldIn(checkpoints),
        };
}
