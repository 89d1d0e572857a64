using LoKr.Models.Tokenization.Patterns;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.PreTokenizers;

/// <summary>Splits at the matches of a pattern, as Split and its relatives in tokenizer.json do.</summary>
internal sealed class SplitPreTokenizer(ITextPattern pattern, SplitBehavior behavior, bool invert) : PreTokenizer
{
    /// <inheritdoc/>
    public override IEnumerable<(int Offset, int Length)> PreTokenize(ReadOnlySpan<char> text) => PreTokenize(text.ToString());

    /// <inheritdoc/>
    public override IEnumerable<(int Offset, int Length)> PreTokenize(string text)
    {
        List<Part> parts = Parts(text);
        return behavior switch
        {
            SplitBehavior.Removed => parts.Where(part => !part.IsMatch).Select(Range),
            SplitBehavior.Isolated => parts.Select(Range),
            SplitBehavior.Contiguous => Contiguous(parts).Select(Range),
            SplitBehavior.MergedWithPrevious => MergedWithPrevious(parts).Select(Range),
            _ => MergedWithNext(parts).Select(Range),
        };
    }

    private static (int Offset, int Length) Range(Part part) => (part.Start, part.Stop - part.Start);

    private List<Part> Parts(string text)
    {
        List<Part> parts = [];
        int done = 0;
        foreach ((int start, int length) in pattern.Find(text))
        {
            Add(done, start, invert);
            Add(start, start + length, !invert);
            done = start + length;
        }

        Add(done, text.Length, invert);
        return parts;

        void Add(int start, int stop, bool isMatch)
        {
            if (stop > start)
            {
                parts.Add(new Part(start, stop, isMatch));
            }
        }
    }

    private static List<Part> Contiguous(List<Part> parts)
    {
        List<Part> merged = [];
        foreach (Part part in parts)
        {
            if (merged.Count > 0 && merged[^1].IsMatch == part.IsMatch)
            {
                merged[^1] = merged[^1] with { Stop = part.Stop };
            }
            else
            {
                merged.Add(part);
            }
        }

        return merged;
    }

    // A match joins what is not a match; of two matches in a row the second stands alone.
    private static List<Part> MergedWithPrevious(List<Part> parts)
    {
        List<Part> merged = [];
        bool afterMatch = false;
        foreach (Part part in parts)
        {
            if (part.IsMatch && !afterMatch && merged.Count > 0)
            {
                merged[^1] = merged[^1] with { Stop = part.Stop };
            }
            else
            {
                merged.Add(part);
            }

            afterMatch = part.IsMatch;
        }

        return merged;
    }

    private static List<Part> MergedWithNext(List<Part> parts)
    {
        List<Part> merged = [];
        bool beforeMatch = false;
        for (int i = parts.Count - 1; i >= 0; i--)
        {
            Part part = parts[i];
            if (part.IsMatch && !beforeMatch && merged.Count > 0)
            {
                merged[^1] = merged[^1] with { Start = part.Start };
            }
            else
            {
                merged.Add(part);
            }

            beforeMatch = part.IsMatch;
        }

        merged.Reverse();
        return merged;
    }

    private readonly record struct Part(int Start, int Stop, bool IsMatch);
}
