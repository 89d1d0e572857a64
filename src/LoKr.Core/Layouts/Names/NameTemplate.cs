using System.Text;
using System.Text.RegularExpressions;

namespace LoKr.Core.Layouts.Names;

/// <summary>A module name in which the numbers of blocks are variables: <c>double_blocks.{i}.img_attn.qkv</c>.</summary>
internal sealed partial class NameTemplate
{
    /// <summary>Names of the variables.</summary>
    public const string Variables = "ijk";

    private readonly string[] _slots;

    /// <summary>Parses a template.</summary>
    /// <exception cref="FormatException">It has a variable that is not one of <see cref="Variables"/>.</exception>
    public NameTemplate(string text)
    {
        Text = text;
        _slots = [.. Slots().Matches(text).Select(static match => match.Value)];
        Shape = Slots().Replace(text, "#");
        if (Array.Find(_slots, static slot => slot[0] == '{' && (slot.Length != 3 || !Variables.Contains(slot[1], StringComparison.Ordinal))) is string unknown)
        {
            throw new FormatException($"'{text}' has the variable {unknown}.");
        }
    }

    /// <summary>The template as it is written.</summary>
    public string Text { get; }

    /// <summary>The template with # in place of every number; names of the same shape are candidates.</summary>
    public string Shape { get; }

    /// <summary>Splits a name into its shape and its numbers.</summary>
    public static (string Shape, IReadOnlyList<string> Numbers) Split(string name)
    {
        StringBuilder shape = new(name.Length);
        List<string> numbers = [];
        for (int start = 0; start < name.Length;)
        {
            int end = start;
            while (end < name.Length && char.IsAsciiDigit(name[end]))
            {
                end++;
            }

            if (end > start)
            {
                numbers.Add(name[start..end]);
                shape.Append('#');
                start = end;
            }
            else
            {
                shape.Append(name[start++]);
            }
        }

        return (shape.ToString(), numbers);
    }

    /// <summary>The values of the variables with which the template is a name of its shape; null where fixed numbers differ.</summary>
    public BlockNumbers? Match(IReadOnlyList<string> numbers)
    {
        if (numbers.Count != _slots.Length)
        {
            return null;
        }

        BlockNumbers values = default;
        for (int i = 0; i < _slots.Length; i++)
        {
            if (_slots[i][0] != '{')
            {
                if (_slots[i] != numbers[i])
                {
                    return null;
                }
            }
            else if (values.With(_slots[i][1], numbers[i]) is BlockNumbers more)
            {
                values = more;
            }
            else
            {
                return null;
            }
        }

        return values;
    }

    /// <summary>The name with the values of the variables.</summary>
    public string Fill(BlockNumbers values) => Variable().Replace(Text, match => values.Of(match.Value[1]) ?? match.Value);

    [GeneratedRegex(@"\d+|\{\w+\}", RegexOptions.CultureInvariant)]
    private static partial Regex Slots();

    [GeneratedRegex(@"\{\w\}", RegexOptions.CultureInvariant)]
    private static partial Regex Variable();
}

/// <summary>The values of the variables of a template, as they are written; null where a template does not have the variable.</summary>
/// <param name="I">The block.</param>
/// <param name="J">A block in the block.</param>
/// <param name="K">A block in that.</param>
internal readonly record struct BlockNumbers(string? I, string? J, string? K)
{
    /// <summary>The values with one more; null where the variable has another value.</summary>
    public BlockNumbers? With(char variable, string value) => Of(variable) is string known ? known == value ? this : null : variable switch
    {
        'i' => this with { I = value },
        'j' => this with { J = value },
        _ => this with { K = value },
    };

    /// <summary>The value of a variable.</summary>
    public string? Of(char variable) => variable switch { 'i' => I, 'j' => J, _ => K };
}
