using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using LoKr.Core.Errors;

namespace LoKr.Core.Configuration;

/// <summary>
/// A regular expression of a PEFT configuration, which is Python's: anchored at the start, named groups written (?P&lt;name&gt;…), \Z for the
/// very end. It is translated and has limits of length, nesting and time, so that no configuration can hang or end a session. Whoever matches
/// the names of a model owns the expression, and with it the time that its slow matches take together.
/// </summary>
internal sealed class PythonRegex
{
    /// <summary>Most characters of an expression: a thousand full module names fit.</summary>
    internal const int LongestPattern = 65_536;

    /// <summary>Most groups inside each other.</summary>
    internal const int DeepestNesting = 100;

    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_slow = TimeSpan.FromMilliseconds(1);
    private static readonly TimeSpan s_limitOfSlow = TimeSpan.FromSeconds(5);

    private readonly string _pattern;
    private readonly Regex _regex;
    private long _slowTicks;

    /// <summary>Translates an expression.</summary>
    /// <param name="pattern">The expression.</param>
    /// <param name="whole">Whether it has to match a whole text, as Python's <c>re.fullmatch</c>, and not only its start, as <c>re.match</c>.</param>
    /// <exception cref="LoKrException"><c>LoKr.PatternInvalid</c>.</exception>
    public PythonRegex(string pattern, bool whole = false)
    {
        if (pattern.Length > LongestPattern)
        {
            throw TooLarge(pattern, string.Create(CultureInfo.InvariantCulture, $"has {pattern.Length} characters; {LongestPattern} are allowed"));
        }

        try
        {
            _pattern = pattern;
            _regex = new Regex($@"\A(?:{Translate(pattern)}){(whole ? @"\z" : "")}", RegexOptions.CultureInvariant, s_limit);
        }
        catch (ArgumentException exception)
        {
            throw Invalid(pattern, exception.Message, exception);
        }
    }

    /// <summary>Reads an expression without matching it, to refuse a broken one early.</summary>
    /// <param name="pattern">The expression.</param>
    /// <param name="place">Key and file that it comes from, for the error, or null.</param>
    public static void Check(string pattern, string? place = null)
    {
        try
        {
            _ = new PythonRegex(pattern);
        }
        catch (LoKrException exception) when (place is not null)
        {
            throw new LoKrException(exception.ErrorId, exception.Kind, $"{place} cannot be used: {exception.Summary}", exception.Advice, exception) { Target = pattern };
        }
    }

    /// <summary>Whether the expression matches a text.</summary>
    /// <exception cref="LoKrException"><c>LoKr.PatternInvalid</c> for a match that takes too long, or slow ones that do together.</exception>
    public bool IsMatch(string text) => Match(text).Success;

    /// <summary>Matches a text.</summary>
    /// <inheritdoc cref="IsMatch"/>
    public Match Match(string text)
    {
        long start = Stopwatch.GetTimestamp();
        try
        {
            Match match = _regex.Match(text);
            TimeSpan taken = Stopwatch.GetElapsedTime(start);
            return taken <= s_slow || Interlocked.Add(ref _slowTicks, taken.Ticks) <= s_limitOfSlow.Ticks
                ? match
                : throw TooSlow(text, s_limitOfSlow, null);
        }
        catch (RegexMatchTimeoutException exception)
        {
            throw TooSlow(text, s_limit, exception);
        }
    }

    private LoKrException TooSlow(string text, TimeSpan limit, Exception? cause) => new(
        ErrorIds.PatternInvalid,
        LoKrErrorKind.LimitExceeded,
        $"The pattern '{Shorten(_pattern)}' took longer than {limit.TotalSeconds:0} s {(cause is null ? "on the names of the modules, the last of them" : "on the module name")} '{Shorten(text)}'.",
        "Simplify it; nested repetitions such as (a+)+ are the usual cause.",
        cause)
    { Target = _pattern };

    private static LoKrException TooLarge(string pattern, string problem) => new(
        ErrorIds.PatternInvalid, LoKrErrorKind.LimitExceeded, $"The pattern '{Shorten(pattern)}' {problem}.", "Give a list of names, or a simpler pattern.")
    { Target = pattern };

    private static LoKrException Invalid(string pattern, string problem, Exception? cause) => new(
        ErrorIds.PatternInvalid,
        LoKrErrorKind.InvalidArgument,
        $"The pattern '{Shorten(pattern)}' is not a valid regular expression: {Shorten(problem, 500)}",
        "Escape special characters with a backslash, or give a list of names.",
        cause)
    { Target = pattern };

    private static string Shorten(string text, int length = 200) => text.Length <= length ? text : text[..length] + "…";

    private static string Translate(string pattern)
    {
        StringBuilder result = new(pattern.Length);
        bool inClass = false;
        int depth = 0;
        for (int i = 0; i < pattern.Length; i++)
        {
            char c = pattern[i];
            if (c == '\\' && i + 1 < pattern.Length)
            {
                result.Append(pattern[i + 1] == 'Z' && !inClass ? @"\z" : pattern.Substring(i, 2));
                i++;
            }
            else if (inClass)
            {
                // A bracket inside a class is literal in Python; in .NET "-[" would begin a subtraction.
                result.Append(c == '[' ? @"\[" : c);
                inClass = c != ']';
            }
            else if (c == '[')
            {
                inClass = true;
                result.Append(c);

                // A closing bracket that comes first belongs to the class.
                foreach (char first in "^]")
                {
                    if (i + 1 < pattern.Length && pattern[i + 1] == first)
                    {
                        result.Append(first == ']' ? @"\]" : first);
                        i++;
                    }
                }
            }
            else if (At(pattern, i, "(?P<"))
            {
                Open();
                result.Append("(?<");
                i += 3;
            }
            else if (At(pattern, i, "(?P="))
            {
                int end = pattern.IndexOf(')', i);
                string name = end < 0 ? throw Invalid(pattern, "(?P=… is not closed.", null) : pattern[(i + 4)..end];
                result.Append(@"\k<").Append(name).Append('>');
                i = end;
            }
            else if (At(pattern, i, "{,"))
            {
                // Python reads {,n} as "at most n".
                result.Append("{0,");
                i++;
            }
            else
            {
                if (c == '(')
                {
                    Open();
                }
                else if (c == ')')
                {
                    depth--;
                }

                result.Append(c);
            }
        }

        return result.ToString();

        void Open()
        {
            if (++depth > DeepestNesting)
            {
                throw TooLarge(pattern, string.Create(CultureInfo.InvariantCulture, $"has more than {DeepestNesting} groups inside each other"));
            }
        }
    }

    private static bool At(string pattern, int index, string text) => string.CompareOrdinal(pattern, index, text, 0, text.Length) == 0;
}
