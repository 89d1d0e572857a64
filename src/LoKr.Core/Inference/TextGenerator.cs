using System.Diagnostics;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using static TorchSharp.torch;

namespace LoKr.Core.Inference;

/// <summary>Continues texts with a causal language model.</summary>
public static class TextGenerator
{
    /// <summary>Completes one prompt in evaluation mode and without gradients; afterwards every module returns to the mode it was in.</summary>
    /// <param name="model">A causal language model with a tokenizer.</param>
    /// <param name="prompt">The text to continue; special tokens of the tokenizer are added as in training.</param>
    /// <param name="options">Length, sampling and seed.</param>
    /// <param name="onText">Gets the completion as it comes, in pieces of whole characters; null for none.</param>
    /// <param name="cancellationToken">Checked before every token.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, and the errors of the model.</exception>
    /// <exception cref="OperationCanceledException">The token was canceled.</exception>
    public static LoKrCompletion Complete(LoKrModel model, string prompt, GenerationOptions options, Action<string>? onText = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(prompt);
        ArgumentNullException.ThrowIfNull(options);
        ICausalLanguageModel language = LanguageModel(model);
        using EvaluationMode mode = new([model]);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        long started = Stopwatch.GetTimestamp();

        // A template may add the end of text, which a prompt must not have.
        List<int> ids = [.. tokenizer.Encode(prompt)];
        while (ids.Count > 0 && language.EosIds.Contains(ids[^1]) && ids[^1] != tokenizer.BosId)
        {
            ids.RemoveAt(ids.Count - 1);
        }

        if (ids.Count == 0)
        {
            throw new LoKrException(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, "The prompt has no tokens.", "Give a text to continue.") { Target = prompt };
        }

        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        TextPieces? pieces = onText is null ? null : new(tokenizer.OpenDecodeStream(), onText);
        IReadOnlyList<int> generated = language.Generate(ids, pieces is null ? options : options with { OnToken = pieces.Add }, cancellationToken);
        pieces?.Complete();
        return new LoKrCompletion
        {
            Prompt = prompt,
            Completion = tokenizer.Decode(generated),
            PromptTokenCount = ids.Count,
            TokenCount = generated.Count,
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <summary>The model as one that generates.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TaskUnknown"/>.</exception>
    internal static ICausalLanguageModel LanguageModel(LoKrModel model) => model.Pretrained as ICausalLanguageModel ?? throw new LoKrException(
        ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} is not a causal language model.", "Load a causal language model to generate text.");
}

/// <summary>The completion of one prompt. Flat and serializable.</summary>
public sealed record LoKrCompletion
{
    /// <summary>The prompt.</summary>
    public required string Prompt { get; init; }

    /// <summary>The generated text, without the prompt and without the end-of-text token.</summary>
    public required string Completion { get; init; }

    /// <summary>Tokens of the prompt.</summary>
    public required int PromptTokenCount { get; init; }

    /// <summary>Generated tokens.</summary>
    public required int TokenCount { get; init; }

    /// <summary>Duration of the generation.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Completion;
}

/// <summary>Hands on a text as its tokens come.</summary>
/// <param name="stream">Turns the tokens into text.</param>
/// <param name="onText">Gets the pieces, none of them empty, which together are the text of all tokens.</param>
internal sealed class TextPieces(IDecodeStream stream, Action<string> onText)
{
    /// <summary>Adds a token.</summary>
    public void Add(int id) => Write(stream.Step(id));

    /// <summary>Hands on what is left.</summary>
    public void Complete() => Write(stream.Complete());

    private void Write(string text)
    {
        if (text.Length > 0)
        {
            onText(text);
        }
    }
}
