using LoKr.Core.Errors;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>A causal language model that can continue from the keys and values of earlier positions.</summary>
internal interface ICachedLanguageModel : ICausalLanguageModel
{
    /// <summary>Number of token ids.</summary>
    int VocabularySize { get; }

    /// <summary>An empty cache for one sequence.</summary>
    KeyValueCache CreateCache();

    /// <summary>Whether what a cache holds is still right when one more position follows; if not, the whole text is computed again.</summary>
    bool Holds(KeyValueCache cache);

    /// <summary>
    /// Hidden states [1, length, hidden] of the ids that follow those in the cache, or [count, hidden] of the places that are read, int64 [count];
    /// the keys and values of all are added to it.
    /// </summary>
    Tensor HiddenStates(Tensor inputIds, KeyValueCache cache, Tensor? places = null);
}

/// <summary>Keys and values of the positions of one sequence by layer: first the whole prompt at once, then one position at a time.</summary>
internal sealed class KeyValueCache : IDisposable
{
    private readonly LayerCache[] _layers;

    /// <summary>Creates an empty cache.</summary>
    /// <param name="windows">For each layer the most positions that one position sees, itself included; null for all.</param>
    public KeyValueCache(IEnumerable<int?> windows) => _layers = [.. windows.Select(window => new LayerCache(window))];

    /// <summary>Number of positions so far.</summary>
    public long Length { get; private set; }

    /// <summary>Adds keys and values of a layer for the positions from <see cref="Length"/> on.</summary>
    /// <param name="layer">Index of the layer.</param>
    /// <param name="key">[1, heads, new positions, width].</param>
    /// <param name="value">[1, heads, new positions, width].</param>
    /// <returns>Keys and values that the new positions see, in any order of position.</returns>
    public (Tensor Key, Tensor Value) Append(int layer, Tensor key, Tensor value) => _layers[layer].Append(key, value, Length);

    /// <summary>Ends a forward pass, in which every layer has added this many positions.</summary>
    public void Advance(long count) => Length += count;

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (LayerCache layer in _layers)
        {
            layer.Dispose();
        }
    }
}

/// <summary>
/// Keys and values of one layer. The memory doubles as it fills; a layer with an attention window holds at most the window, in a ring: the
/// order of keys does not matter to attention, because their positions are in them.
/// </summary>
/// <param name="window">Most positions that one position sees, itself included; null for all.</param>
internal sealed class LayerCache(int? window) : IDisposable
{
    private const long Smallest = 64;

    private Tensor? _key;
    private Tensor? _value;

    /// <summary>Adds positions.</summary>
    /// <param name="key">[1, heads, new positions, width].</param>
    /// <param name="value">[1, heads, new positions, width].</param>
    /// <param name="start">The first new position.</param>
    /// <returns>Keys and values that the new positions see: views of the cache or, for a prompt, the arguments.</returns>
    public (Tensor Key, Tensor Value) Append(Tensor key, Tensor value, long start)
    {
        long count = key.shape[2];
        long kept = Math.Min(start + count, window ?? long.MaxValue);
        _key = Reserve(_key, key, start, kept);
        _value = Reserve(_value, value, start, kept);
        if (start == 0)
        {
            Fill(_key, key, kept);
            Fill(_value, value, kept);
            return (key, value);
        }

        if (count != 1)
        {
            throw new NotSupportedException("After the prompt, positions come one at a time.");
        }

        Put(_key, key, start);
        Put(_value, value, start);
        return (_key.narrow(2, 0, kept), _value.narrow(2, 0, kept));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _key?.Dispose();
        _value?.Dispose();
        _key = _value = null;
    }

    private Tensor Reserve(Tensor? old, Tensor like, long start, long needed)
    {
        if (old is not null && old.shape[2] >= needed)
        {
            return old;
        }

        long[] shape = like.shape;
        shape[2] = Math.Min(window ?? long.MaxValue, Math.Max(Smallest, (long)System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)needed)));
        Tensor grown = empty(shape, like.dtype, like.device).DetachFromDisposeScope();
        if (old is not null)
        {
            using (old)
            using (DisposeScope scope = NewDisposeScope())
            {
                grown.narrow(2, 0, start).copy_(old.narrow(2, 0, start));
            }
        }

        return grown;
    }

    // A full ring holds position p in slot p mod window, whatever the length of the prompt.
    private static void Fill(Tensor ring, Tensor all, long kept)
    {
        using DisposeScope scope = NewDisposeScope();
        long dropped = all.shape[2] - kept;
        long first = dropped % kept;
        ring.narrow(2, first, kept - first).copy_(all.narrow(2, dropped, kept - first));
        if (first > 0)
        {
            ring.narrow(2, 0, first).copy_(all.narrow(2, dropped + kept - first, first));
        }
    }

    private void Put(Tensor ring, Tensor one, long position)
    {
        using DisposeScope scope = NewDisposeScope();
        ring.narrow(2, window is int size ? position % size : position, 1).copy_(one);
    }
}

/// <summary>Generates text with a key-value cache: the prompt in one pass, then one token per pass.</summary>
internal static class TextGenerator
{
    /// <summary>Continues a prompt until an id that ends the text, the largest number of tokens, or the model's longest sequence.</summary>
    /// <param name="model">The model with its active adapters; it runs in evaluation mode.</param>
    /// <param name="promptIds">Ids of the prompt.</param>
    /// <param name="options">Length and sampling.</param>
    /// <param name="cancellationToken">Stops between tokens.</param>
    /// <returns>The new ids, without the one that ended the text.</returns>
    public static IReadOnlyList<int> Generate(
        ICachedLanguageModel model, IReadOnlyList<int> promptIds, GenerationOptions options, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(promptIds);
        ArgumentNullException.ThrowIfNull(options);
        using TokenSampler sampler = new(options);
        CheckPrompt(model, promptIds);

        nn.Module module = (nn.Module)model;
        using ModuleModes modes = new(module);
        module.eval();
        return Run(model, promptIds, options, sampler, cancellationToken);
    }

    private static List<int> Run(
        ICachedLanguageModel model, IReadOnlyList<int> promptIds, GenerationOptions options, TokenSampler sampler, CancellationToken cancellationToken)
    {
        Device device = ((nn.Module)model).parameters().First().device;
        HashSet<int> stops = [.. model.EosIds, .. options.StopIds];
        int most = Math.Min(options.MaxNewTokens, model.MaxSequenceLength - promptIds.Count);
        List<int> generated = [];
        long[] input = [.. promptIds.Select(id => (long)id)];
        sampler.AddSeen(promptIds);

        using IDisposable noGrad = no_grad();
        KeyValueCache cache = model.CreateCache();
        try
        {
            while (generated.Count < most)
            {
                cancellationToken.ThrowIfCancellationRequested();
                int next = Step(model, cache, input, sampler, device);
                if (stops.Contains(next))
                {
                    break;
                }

                generated.Add(next);
                sampler.AddSeen([next]);
                options.OnToken?.Invoke(next);
                input = [next];
                if (!model.Holds(cache))
                {
                    cache.Dispose();
                    cache = model.CreateCache();
                    input = [.. promptIds.Concat(generated).Select(id => (long)id)];
                }
            }
        }
        finally
        {
            cache.Dispose();
        }

        return generated;
    }

    private static int Step(ICachedLanguageModel model, KeyValueCache cache, long[] input, TokenSampler sampler, Device device)
    {
        using DisposeScope scope = NewDisposeScope();

        // Only the last position is read: the vocabulary is the largest dimension of all.
        Tensor last = tensor([input.Length - 1L], device: device);
        return sampler.Next(model.Project(model.HiddenStates(tensor(input, [1, input.Length], device: device), cache, last))[0]);
    }

    private static void CheckPrompt(ICachedLanguageModel model, IReadOnlyList<int> promptIds)
    {
        if (promptIds.Count == 0)
        {
            throw new LoKrException(ErrorIds.PromptEmpty, LoKrErrorKind.InvalidArgument, "The prompt has no tokens.",
                "Give a text, or the id that begins a text.");
        }

        if (promptIds.Count >= model.MaxSequenceLength)
        {
            throw new LoKrException(ErrorIds.PromptTooLong, LoKrErrorKind.LimitExceeded,
                $"The prompt has {promptIds.Count} tokens, which leaves no room for a new one in the {model.MaxSequenceLength} positions of the model.",
                "Shorten the prompt.") { Target = promptIds.Count };
        }

        int[] unknown = [.. promptIds.Where(id => id < 0 || id >= model.VocabularySize)];
        if (unknown.Length > 0)
        {
            throw new LoKrException(ErrorIds.PromptInvalid, LoKrErrorKind.InvalidArgument,
                $"The prompt has the token id {unknown[0]}; the model's ids are 0 to {model.VocabularySize - 1}.", "Encode the prompt with the tokenizer of this model.") { Target = unknown[0] };
        }
    }
}

/// <summary>
/// Chooses the next token: the most likely one, or one drawn after temperature, top-k and top-p (Holtzman et al., arXiv:1904.09751), in
/// that order as in transformers, both after the penalty for tokens that occurred. It draws on the CPU from a generator of its own, so that a seed means the same on every device and the
/// random numbers of training do not change.
/// </summary>
internal sealed class TokenSampler : IDisposable
{
    private readonly GenerationOptions _options;
    private readonly Generator? _generator;
    private readonly HashSet<long> _seen = [];

    /// <summary>Creates a sampler; an invalid option is <see cref="ErrorIds.GenerationOptionInvalid"/>.</summary>
    public TokenSampler(GenerationOptions options)
    {
        Check(options.MaxNewTokens > 0, $"MaxNewTokens is {options.MaxNewTokens}, not positive.");
        Check(double.IsFinite(options.Temperature) && options.Temperature >= 0, $"Temperature is {options.Temperature}; it is 0 (greedy) or positive.");
        Check(options.TopK >= 0, $"TopK is {options.TopK}; it is 0 (no limit) or positive.");
        Check(double.IsFinite(options.RepetitionPenalty) && options.RepetitionPenalty > 0, $"RepetitionPenalty is {options.RepetitionPenalty}; it is positive, and 1 for none.");
        Check(options.TopP is > 0 and <= 1, $"TopP is {options.TopP}; it is above 0 and at most 1 (no limit).");
        _options = options;
        if (options.Temperature > 0)
        {
            long seed = options.Seed ?? Random.Shared.NextInt64();
            _generator = new Generator(unchecked((ulong)seed), CPU);
        }
    }

    /// <summary>Adds tokens that occurred, for the penalty.</summary>
    public void AddSeen(IEnumerable<int> ids)
    {
        if (_options.RepetitionPenalty != 1)
        {
            _seen.UnionWith(ids.Select(static id => (long)id));
        }
    }

    /// <summary>Chooses a token.</summary>
    /// <param name="logits">Scores [vocabulary].</param>
    public int Next(Tensor logits)
    {
        using DisposeScope scope = NewDisposeScope();
        logits = _seen.Count == 0 ? logits : Penalize(logits.to(ScalarType.Float32, CPU));
        if (_generator is null)
        {
            (Tensor value, Tensor index) = logits.max(0);
            CheckFinite(value);
            return (int)index.item<long>();
        }

        Tensor scores = logits.to(ScalarType.Float32, CPU);
        CheckFinite(scores.max());
        Tensor probabilities = nn.functional.softmax(TakeMass(TakeBest(scores / _options.Temperature)), 0);
        return (int)multinomial(probabilities, 1, generator: _generator).item<long>();
    }

    /// <inheritdoc/>
    public void Dispose() => _generator?.Dispose();

    private static void CheckFinite(Tensor largest)
    {
        if (!double.IsFinite(largest.to(ScalarType.Float64).item<double>()))
        {
            throw ModelOutputs.NotFinite("The model's scores of the next token are", target: null);
        }
    }

    private static void Check(bool ok, FormattableString problem)
    {
        if (!ok)
        {
            throw new LoKrException(ErrorIds.GenerationOptionInvalid, LoKrErrorKind.InvalidArgument, FormattableString.Invariant(problem));
        }
    }

    private Tensor Penalize(Tensor scores)
    {
        Tensor ids = tensor(_seen.ToArray());
        Tensor own = scores.index_select(0, ids);
        return scores.scatter(0, ids, where(own.lt(0), own * _options.RepetitionPenalty, own / _options.RepetitionPenalty));
    }

    private Tensor TakeBest(Tensor scores)
    {
        if (_options.TopK == 0 || _options.TopK >= scores.shape[0])
        {
            return scores;
        }

        (Tensor best, _) = scores.topk(_options.TopK);
        return scores.masked_fill(scores.lt(best[-1]), double.NegativeInfinity);
    }

    private Tensor TakeMass(Tensor scores)
    {
        if (_options.TopP >= 1)
        {
            return scores;
        }

        (Tensor sorted, Tensor order) = scores.sort(0, descending: false);
        Tensor outside = nn.functional.softmax(sorted, 0).cumsum(0).le(1 - _options.TopP);

        // The most likely token always stays.
        outside[-1] = tensor(false);
        return scores.masked_fill(zeros_like(outside).scatter(0, order, outside), double.NegativeInfinity);
    }
}
