using LoKr.Core;
using LoKr.Core.Modeling;
using LoKr.Core.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Generation;

/// <summary>Generates text with a key-value cache: the prompt in one pass, then one token a pass.</summary>
internal static class TextGenerator
{
    /// <summary>Continues a prompt until an id that ends the text, or the most tokens, or the model's longest sequence.</summary>
    /// <param name="model">The model; its adapters take part. It runs in evaluation mode.</param>
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

        using IDisposable noGrad = no_grad();
        using KeyValueCache cache = model.CreateCache();
        while (generated.Count < most)
        {
            cancellationToken.ThrowIfCancellationRequested();
            int next = Step(model, cache, input, sampler, device);
            if (stops.Contains(next))
            {
                break;
            }

            generated.Add(next);
            input = [next];
        }

        return generated;
    }

    private static int Step(ICachedLanguageModel model, KeyValueCache cache, long[] input, TokenSampler sampler, Device device)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor hidden = model.HiddenStates(tensor(input, [1, input.Length], device: device), cache);

        // Only the last position's scores are wanted: the vocabulary is the largest dimension of all.
        return sampler.Next(model.Project(hidden[0, -1].unsqueeze(0))[0]);
    }

    private static void CheckPrompt(ICachedLanguageModel model, IReadOnlyList<int> promptIds)
    {
        if (promptIds.Count == 0)
        {
            throw new LoKrException(ErrorIds.PromptEmpty, LoKrErrorKind.InvalidArgument, "The prompt has no tokens.",
                "Give a text, or the id that begins one.");
        }

        if (promptIds.Count >= model.MaxSequenceLength)
        {
            throw new LoKrException(ErrorIds.PromptTooLong, LoKrErrorKind.LimitExceeded,
                $"The prompt has {promptIds.Count} tokens; with one new token at least it is longer than the {model.MaxSequenceLength} of the model.",
                "Shorten the prompt.") { Target = promptIds.Count };
        }

        int[] unknown = [.. promptIds.Where(id => id < 0 || id >= model.VocabularySize)];
        if (unknown.Length > 0)
        {
            throw new LoKrException(ErrorIds.PromptInvalid, LoKrErrorKind.InvalidArgument,
                $"The prompt holds the id {unknown[0]}; the model knows 0 to {model.VocabularySize - 1}.", "Was it made with another model's tokenizer?") { Target = unknown[0] };
        }
    }
}
