using LoKr.Core;
using LoKr.Core.Modeling;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Generation;

/// <summary>
/// Chooses the next token: the most likely one, or one drawn after temperature, top-k and top-p (Holtzman et al., arXiv:1904.09751), in
/// that order as transformers does. Draws on the CPU from a generator of its own, so that a seed means the same on every device and
/// training's random numbers stay as they are.
/// </summary>
internal sealed class TokenSampler : IDisposable
{
    private readonly GenerationOptions _options;
    private readonly Generator? _generator;

    /// <summary>Makes a sampler; options are checked.</summary>
    public TokenSampler(GenerationOptions options)
    {
        Check(options.MaxNewTokens > 0, $"MaxNewTokens is {options.MaxNewTokens}, not positive.");
        Check(double.IsFinite(options.Temperature) && options.Temperature >= 0, $"Temperature is {options.Temperature}; it is 0 (greedy) or positive.");
        Check(options.TopK >= 0, $"TopK is {options.TopK}; it is 0 (no limit) or positive.");
        Check(options.TopP is > 0 and <= 1, $"TopP is {options.TopP}; it lies above 0 and up to 1 (no limit).");
        _options = options;
        if (options.Temperature > 0)
        {
            long seed = options.Seed ?? Random.Shared.NextInt64();
            _generator = new Generator(unchecked((ulong)seed), CPU);
        }
    }

    /// <summary>Chooses a token.</summary>
    /// <param name="logits">Scores [vocabulary].</param>
    public int Next(Tensor logits)
    {
        using DisposeScope scope = NewDisposeScope();
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
            throw new LoKrException(ErrorIds.LogitsNotFinite, LoKrErrorKind.InvalidData, "The model's scores of the next token are NaN or infinite.",
                "Check the weights and adapters; in float16 a value may have overflowed, which float32 or bfloat16 avoids.");
        }
    }

    private static void Check(bool ok, FormattableString problem)
    {
        if (!ok)
        {
            throw new LoKrException(ErrorIds.GenerationOptionInvalid, LoKrErrorKind.InvalidArgument, FormattableString.Invariant(problem));
        }
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
