using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;

namespace LoKr.Core.Inference;

/// <summary>
/// Texts on their way through a classifier, a tagger or a sentence encoder: each waits until its batch is full. A text that cannot be answered does
/// not keep the others of its batch from their answers.
/// </summary>
/// <param name="model">The model, with a tokenizer.</param>
/// <param name="size">Texts in a batch; affects only speed and memory.</param>
/// <param name="options">How the model answers.</param>
/// <param name="onError">Gets each text that cannot be answered, and why.</param>
public sealed class TextBatches(LoKrModel model, int size, TextAnswerOptions options, Action<TextInput, LoKrException> onError)
{
    private readonly List<TextInput> _waiting = [];
    private int _taken;

    /// <summary>Adds a text.</summary>
    /// <param name="text">The text.</param>
    /// <returns>What computes the answers of a batch that is full now; null where it is not.</returns>
    public Func<TextAnswers>? Add(TextInput text)
    {
        _waiting.Add(text);
        return _waiting.Count < size ? null : TakeRest();
    }

    /// <summary>Takes the texts that wait, though their batch is not full.</summary>
    /// <returns>What computes their answers; null where none waits.</returns>
    public Func<TextAnswers>? TakeRest()
    {
        if (_waiting.Count == 0)
        {
            return null;
        }

        TextInput[] texts = [.. _waiting];
        int first = _taken;
        _waiting.Clear();
        _taken += texts.Length;
        return () => Answer(texts, first);
    }

    private TextAnswers Answer(TextInput[] texts, int first)
    {
        try
        {
            return TextAnswers.Of(model, texts, first, options);
        }
        catch (LoKrException exception) when (exception.ErrorId is ErrorIds.DataValueInvalid or ErrorIds.LogitsNotFinite)
        {
            if (texts.Length > 1)
            {
                return TextAnswers.Join([.. texts.Select((text, index) => Answer([text], first + index))]);
            }

            onError(texts[0], exception);
            return new();
        }
    }
}
