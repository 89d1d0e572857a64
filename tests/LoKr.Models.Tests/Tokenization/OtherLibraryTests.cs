using System.Globalization;
using System.Text;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

/// <summary>
/// Ids beside those of Hugging Face's own library (Tokenizers.DotNet, its native code on Linux) over generated texts: some hundred for every
/// tokenizer.json of the fixtures, or as many as <c>LOKR_RELIABILITY_TEXTS</c> says; <c>LOKR_RELIABILITY_SEED</c> chooses others.
/// </summary>
public sealed class OtherLibraryTests
{
    private static readonly int s_count = Number("LOKR_RELIABILITY_TEXTS", 500);
    private static readonly int s_seed = Number("LOKR_RELIABILITY_SEED", 20261128);

    public static TheoryData<string> Folders
    {
        get
        {
            TheoryData<string> folders = [];
            foreach (string kind in new[] { "tokenizers", "chat", "transformers" })
            {
                foreach (TheoryDataRow<string> row in Fixtures.Cases(kind, folder => File.Exists(Path.Combine(folder, "tokenizer.json"))))
                {
                    folders.Add($"{kind}/{row.Data}");
                }
            }

            return folders;
        }
    }

    [Theory]
    [MemberData(nameof(Folders))]
    public void Generated_texts_have_the_ids_of_the_other_library(string name)
    {
        string folder = Fixtures.Require(name.Split('/'));
        Assert.SkipUnless(OperatingSystem.IsLinux(), "The other library's native code is there for Linux only.");

        // Its file alone: the other library does not read the configuration beside it.
        using TempFolder copy = new TempFolder().Copy(folder, "tokenizer.json");
        ITextTokenizer ours = TokenizerLoader.Load(copy.Path);
        using Tokenizers.DotNet.Tokenizer other = new(Path.Combine(copy.Path, "tokenizer.json"));
        List<string> differences = [];
        for (int i = 0; i < s_count; i++)
        {
            string text = GeneratedTexts.Make(s_seed, i);
            IReadOnlyList<int> ids = ours.Encode(text);
            IReadOnlyList<TextToken> tokens = ours.Tokenize(text);
            Assert.Equal(ids, tokens.Select(token => token.Id));
            AssertPlaces(text, tokens);

            // Lone surrogates cannot be handed to it; we read them as U+FFFD.
            int[] theirs = [.. other.Encode(WellFormed(text)).Select(id => (int)id)];
            if (!ids.SequenceEqual(theirs))
            {
                differences.Add($"{i}: '{Escape(text)}'\n  ours   {string.Join(' ', ids)}\n  theirs {string.Join(' ', theirs)}");
            }
        }

        Assert.True(differences.Count == 0, $"{differences.Count} of {s_count} texts of seed {s_seed} differ, among them:\n{string.Join('\n', differences.Take(5))}");
    }

    // A place lies in the text and cuts no surrogate pair.
    private static void AssertPlaces(string text, IReadOnlyList<TextToken> tokens)
    {
        foreach (TextToken token in tokens)
        {
            bool holds = token.IsSpecial
                ? (token.Start, token.End) == (0, 0)
                : token.Start >= 0 && token.Start <= token.End && token.End <= text.Length && !CutsPair(text, token.Start) && !CutsPair(text, token.End);
            Assert.True(holds, $"The token {token} has no place in '{Escape(text)}'.");
        }
    }

    private static bool CutsPair(string text, int at) => at > 0 && at < text.Length && char.IsSurrogatePair(text, at - 1);

    private static string WellFormed(string text) => string.Concat(text.EnumerateRunes().Select(rune => rune.ToString()));

    private static string Escape(string text)
    {
        StringBuilder escaped = new();
        foreach (char c in text)
        {
            escaped = c is >= ' ' and <= '~' and not '\\' ? escaped.Append(c) : escaped.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:X4}");
        }

        return escaped.ToString();
    }

    private static int Number(string variable, int otherwise) => Environment.GetEnvironmentVariable(variable) is { Length: > 0 } text
        ? int.Parse(text, CultureInfo.InvariantCulture)
        : otherwise;
}
