using LoKr.Core.Modeling;

namespace LoKr.Core.Training;

/// <summary>Token ids of a prompt with its completion and the end of text, and where the loss begins.</summary>
/// <param name="tokenizer">The tokenizer; used from several threads at once.</param>
/// <param name="eosId">Id that ends a text, or null.</param>
internal sealed class LanguageEncoder(ITextTokenizer tokenizer, int? eosId)
{
    /// <summary>Encodes one row.</summary>
    /// <param name="prompt">Text without loss; empty when the whole text carries loss.</param>
    /// <param name="completion">Text with loss.</param>
    public (int[] Ids, int LossStart) Encode(string prompt, string completion)
    {
        List<int> whole = WithoutEnd(tokenizer.Encode(prompt + completion));
        int start = 0;
        if (prompt.Length > 0)
        {
            // The model will see the prompt alone when it is used, so the ids of the prompt alone have to come first.
            // Where the tokenizer would join its end with the completion, both are encoded separately.
            List<int> head = WithoutEnd(tokenizer.Encode(prompt));
            start = head.Count;
            if (whole.Count < start || !whole.Take(start).SequenceEqual(head))
            {
                whole = [.. head, .. tokenizer.Encode(completion, addSpecialTokens: false)];
            }
        }

        if (eosId is int end)
        {
            whole.Add(end);
        }

        return ([.. whole], start);
    }

    /// <summary>Takes off an end-of-text id that the tokenizer's template may have added; it is added once, at the very end.</summary>
    private List<int> WithoutEnd(IReadOnlyList<int> ids)
    {
        List<int> kept = [.. ids];
        while (kept.Count > 0 && kept[^1] == eosId)
        {
            kept.RemoveAt(kept.Count - 1);
        }

        return kept;
    }
}
