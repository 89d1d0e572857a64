using System.Diagnostics;
using LoKr.Core.Errors;
using LoKr.Models.Tokenization;
using LoKr.Models.Tokenization.Patterns;
using Xunit;

namespace LoKr.Models.Tests.Tokenization;

public sealed class PatternTests
{
    // Deseret and mathematical letters, mathematical digits and emoji lie beyond U+FFFF.
    [Theory]
    [InlineData("x\U00010400\U00010428y z", "x\U00010400\U00010428y| z")]
    [InlineData(" \U0001D400\U0001D401 \U0001D7D8\U0001D7D9\U0001D7DA\U0001D7DB", " \U0001D400\U0001D401| |\U0001D7D8\U0001D7D9\U0001D7DA|\U0001D7DB")]
    [InlineData("go \U0001F680\U0001F680\n\nnow", "go| \U0001F680\U0001F680\n\n|now")]
    [InlineData("\U0001F680a", "\U0001F680a")]
    [InlineData("\U00020000\u4F60", "\U00020000\u4F60")]
    [InlineData("I'LL'\u017F don't", "I|'LL|'\u017F| don|'t")]
    [InlineData("a  b \t\n c  ", "a| | b| \t\n| c|  ")]
    [InlineData("12345", "123|45")]
    [InlineData("e\u0301", "e|\u0301")]
    public void Llama_3_splits_by_code_points(string text, string pieces) =>
        Assert.Equal(pieces.Split('|'), Split(TinyTokenizers.Llama3Pattern, SplitBehavior.Isolated, text));

    [Theory]
    [InlineData(SplitBehavior.Removed, false, "the|final|countdown")]
    [InlineData(SplitBehavior.Removed, true, "-|-|-")]
    [InlineData(SplitBehavior.Isolated, false, "the|-|final|-|-|countdown")]
    [InlineData(SplitBehavior.MergedWithPrevious, false, "the-|final-|-|countdown")]
    [InlineData(SplitBehavior.MergedWithNext, false, "the|-final|-|-countdown")]
    [InlineData(SplitBehavior.Contiguous, false, "the|-|final|--|countdown")]
    public void Split_behaviors_are_those_of_the_tokenizers_library(object behavior, bool invert, string pieces) =>
        Assert.Equal(pieces.Split('|'), Split("-", (SplitBehavior)behavior, "the-final--countdown", invert));

    [Fact]
    public void Stand_ins_avoid_what_the_pattern_names()
    {
        // Every range below holds the first letters, marks and digits that could stand in.
        CodePointRegex pattern = new(@"[\u0080-\u0FFF]+|[^\u0080-\u0FFF]", "test");
        Assert.Equal([(0, 1), (1, 2), (3, 2)], pattern.Find("\u0100\U00010400\U00011000"));
    }

    [Fact]
    public void Possessive_quantifiers_do_not_give_back()
    {
        Assert.Equal([(0, 3)], new CodePointRegex("a++b|a+c", "test").Find("aac"));
        Assert.Empty(new CodePointRegex("a++a", "test").Find("aaa"));
    }

    [Theory]
    [InlineData(@"\w+")]
    [InlineData(@"\bx")]
    [InlineData("^a")]
    [InlineData("a$")]
    [InlineData(@"\p{Han}+")]
    [InlineData("[a&&b]")]
    [InlineData("[[:alpha:]]")]
    [InlineData("(?i)abc")]
    [InlineData("(?i:first)")]
    [InlineData("(?i:\\p{L})")]
    [InlineData("(?i:[st]t)")]
    [InlineData("(?i:[a-z])")]
    [InlineData("(?<name>a)")]
    [InlineData("a{,3}")]
    [InlineData("a{1,2}+")]
    [InlineData("\U0001F680")]
    [InlineData("(a")]
    [InlineData("a)")]
    [InlineData("[a")]
    [InlineData("a**")]
    public void Expressions_of_uncertain_meaning_are_refused(string pattern)
    {
        LoKrException error = Assert.Throws<LoKrException>(() => new CodePointRegex(pattern, "tokenizer.json"));
        Assert.Equal(ErrorIds.TokenizerUnsupported, error.ErrorId);
        Assert.Contains(pattern, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Sets_inside_a_group_without_case_fold_too() =>
        Assert.Equal([(0, 2), (2, 2), (4, 3)], new CodePointRegex("'(?i:[sdmt]|ll|ve)", "test").Find("'M'\u017F'lL"));

    [Theory]
    [InlineData("a\u0903b\u2167 \u24B6\u200Dx!?", "a\u0903b\u2167|\u24B6\u200Dx|!?")]
    [InlineData("\U0001F130\U0001F680 _9", "\U0001F130|\U0001F680|_9")]
    public void Words_are_those_of_unicode(string text, string pieces) => Assert.Equal(
        pieces.Split('|'),
        new PatternSplitter(new WordPattern(), SplitBehavior.Removed, invert: true).Split(text).Select(part => text.Substring(part.Start, part.Length)));

    public static TheoryData<string> HugePatterns => new(
        new string('(', 20_000) + "a" + new string(')', 20_000),
        string.Join('|', Enumerable.Range(0, 50_000).Select(static number => $"w{number}")),
        string.Concat(Enumerable.Repeat("(?:", 101)) + "a" + new string(')', 101),
        "(?i:" + new string('x', 20_000) + ")");

    [Theory]
    [MemberData(nameof(HugePatterns))]
    public void Expressions_that_are_too_long_or_too_deep_are_errors_with_file_and_key(string pattern)
    {
        Stopwatch watch = Stopwatch.StartNew();
        string split = $$"""{"type":"Split","pattern":{"Regex":"{{pattern}}"},"behavior":"Isolated","invert":false}""";
        LoKrException error = Assert.Throws<LoKrException>(() => TinyTokenizers.Load(TinyTokenizers.ByteLevelJson(("pre_tokenizer", split))));
        Assert.Equal((ErrorIds.TokenizerInvalid, LoKrErrorKind.LimitExceeded), (error.ErrorId, error.Kind));
        Assert.Contains("tokenizer.json", error.Message, StringComparison.Ordinal);
        Assert.Contains("pre_tokenizer.pattern.Regex", error.Message, StringComparison.Ordinal);
        Assert.InRange(error.Message.Length, 1, 1_000);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 5);
    }

    [Theory]
    [InlineData("|", 9_999)]
    [InlineData("(?:|)", 9_999)]
    [InlineData("[\\u0100-\\u0FF0]?", 9_990)]
    [InlineData("b*+", 9_999)]
    public void The_longest_expressions_are_built_in_a_reasonable_time(string part, int length)
    {
        string pattern = string.Concat(Enumerable.Repeat("a" + part, length / (part.Length + 1)));
        Stopwatch watch = Stopwatch.StartNew();
        Assert.NotEmpty(new CodePointRegex(pattern, "test").Find(new string('a', 4_000)));
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 120);
    }

    [Theory]
    [InlineData("(?:ab?|ac?)*b(?!c)")]
    [InlineData("(?:a|ab?)*c?b(?!x)")]
    public void An_expression_that_never_ends_is_an_error(string pattern)
    {
        CodePointRegex regex = new(pattern, "tokenizer.json", "pre_tokenizer.pattern.Regex");
        foreach (string text in new[] { new string('a', 60) + "-b", new string('a', 60) + "\U0001F680b" })
        {
            Stopwatch watch = Stopwatch.StartNew();
            LoKrException error = Assert.Throws<LoKrException>(() => regex.Find(text));
            Assert.Equal((ErrorIds.TokenizerInvalid, LoKrErrorKind.LimitExceeded), (error.ErrorId, error.Kind));
            Assert.Contains("'pre_tokenizer.pattern.Regex'", error.Message, StringComparison.Ordinal);
            Assert.InRange(watch.Elapsed.TotalSeconds, 0, 120);
        }
    }

    [Theory]
    [InlineData("(?:ab?|ac?)*b")]
    [InlineData("(?:a|ab?)*c?b")]
    [InlineData(TinyTokenizers.Llama3Pattern)]
    public void An_expression_that_does_not_look_around_takes_time_in_proportion_to_the_text(string pattern)
    {
        // A matcher that tries one way after another would not end.
        CodePointRegex regex = new(pattern, "test");
        string text = new string('a', 2_000_000) + new string(' ', 2_000_000) + "-b";
        Assert.NotEmpty(regex.Find(text));
    }

    [Theory]
    [InlineData(" x", "|| x")]
    [InlineData("   x", "  | x")]
    [InlineData("\t\tx", "\t|\tx")]
    [InlineData("\t\t1", "\t|\t|1")]
    [InlineData("a  \n  b ", "a|  \n| | b| ")]
    [InlineData("a   ", "a|   ")]
    [InlineData("\u3000\u3000\u4F60", "\u3000|\u3000\u4F60")]
    [InlineData("\u2028\u2028!", "\u2028|\u2028|!")]
    public void Runs_of_white_space_leave_the_last_one_to_a_word(string text, string pieces) => Assert.Equal(
        pieces.Split('|', StringSplitOptions.RemoveEmptyEntries), Split(TinyTokenizers.Llama3Pattern, SplitBehavior.Isolated, text));

    private static IEnumerable<string> Split(string pattern, SplitBehavior behavior, string text, bool invert = false) =>
        new PatternSplitter(new CodePointRegex(pattern, "test"), behavior, invert)
            .Split(text)
            .Select(part => text.Substring(part.Start, part.Length));
}
