using System.Text;
using System.Text.RegularExpressions;
using LoKr.Core.Errors;

namespace LoKr.Core.Configuration;

/// <summary>
/// Regular expressions of PEFT configurations are Python's: anchored at the start, named groups written (?P&lt;name&gt;…),
/// \Z for the very end. They are translated and run with a time limit so that no configuration can hang a session.
/// </summary>
internal static class PythonRegex
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(1);

    /// <summary>Python's <c>re.match</c>: the expression must match at the start.</summary>
    public static Match Match(string pattern, string text) => Run($@"\A(?:{Translate(pattern)})", pattern, text);

    /// <summary>Python's <c>re.fullmatch</c>: the expression must match the whole text.</summary>
    public static bool FullMatch(string pattern, string text) => Run($@"\A(?:{Translate(pattern)})\z", pattern, text).Success;

    /// <summary>Reads an expression without matching it, to refuse a broken one early.</summary>
    public static void Check(string pattern) => Run($@"\A(?:{Translate(pattern)})", pattern, "");

    private static Match Run(string translated, string pattern, string text)
    {
        try
        {
            return Regex.Match(text, translated, RegexOptions.CultureInvariant, s_limit);
        }
        catch (RegexMatchTimeoutException exception)
        {
            throw new LoKrException(
                ErrorIds.PatternInvalid,
                LoKrErrorKind.LimitExceeded,
                $"The pattern '{pattern}' took longer than {s_limit.TotalSeconds:0} s on the module name '{text}'.",
                "Simplify it; nested repetitions such as (a+)+ are the usual cause.",
                exception)
            { Target = pattern };
        }
        catch (ArgumentException exception)
        {
            throw new LoKrException(
                ErrorIds.PatternInvalid,
                LoKrErrorKind.InvalidArgument,
                $"The pattern '{pattern}' is not a valid regular expression: {exception.Message}",
                "Escape special characters with a backslash, or give a list of names.",
                exception)
            { Target = pattern };
        }
    }

    private static string Translate(string pattern)
    {
        StringBuilder result = new(pattern.Length);
        bool inClass = false;
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
                result.Append("(?<");
                i += 3;
            }
            else if (At(pattern, i, "(?P="))
            {
                int end = pattern.IndexOf(')', i);
                string name = end < 0 ? throw Unclosed(pattern) : pattern[(i + 4)..end];
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
                result.Append(c);
            }
        }

        return result.ToString();
    }

    private static bool At(string pattern, int index, string text) => string.CompareOrdinal(pattern, index, text, 0, text.Length) == 0;

    private static LoKrException Unclosed(string pattern) => new(
        ErrorIds.PatternInvalid,
        LoKrErrorKind.InvalidArgument,
        $"The pattern '{pattern}' is not a valid regular expression: (?P=… is not closed.")
    { Target = pattern };
}
