using System.Collections;
using System.Globalization;
using System.Numerics;
using System.Text.Json;
using LoKr.Core.Errors;

namespace LoKr.Core.Chat;

/// <summary>A conversation as text.</summary>
/// <param name="Text">The text.</param>
/// <param name="Answers">
/// What the template marks as said by the assistant (<c>{% generation %}</c>): first UTF-16 unit, and the one behind the last.
/// </param>
public sealed record RenderedChat(string Text, IReadOnlyList<(int Start, int End)> Answers)
{
    /// <summary>Whether it marks answers in a text that it writes later (in a macro, or between <c>set</c> and <c>endset</c>), so that their place is not known.</summary>
    internal bool MarksCaptured { get; init; }
}

/// <summary>The parts of a conversation that are trained.</summary>
/// <param name="Text">The whole conversation as text.</param>
/// <param name="Spans">The answers in it: first UTF-16 unit, and the one behind the last.</param>
/// <param name="WithoutSpan">Answers whose place cannot be told: index of the message, and why.</param>
public sealed record ChatAnswers(string Text, IReadOnlyList<(int Start, int End)> Spans, IReadOnlyList<(int Message, string Why)> WithoutSpan);

/// <summary>
/// The chat template of a model: a text with Jinja's tags that turns a list of messages into the text that the model was trained with. The part
/// of Jinja that published templates use is interpreted as transformers renders it, to the character; a template that needs more is refused when
/// it is read. A template reaches nothing but the values that it is given, and its time, depth and output are bounded. Immutable; safe to use
/// from several threads.
/// </summary>
public sealed class ChatTemplate
{
    private readonly TemplateBlock _body;
    private readonly Dictionary<string, object?> _specialTokens;

    private readonly ChatTemplate? _withTools;

    private ChatTemplate(TemplateBlock body, bool marksAnswers, bool writesDate, Dictionary<string, object?> specialTokens, ChatTemplate? withTools)
    {
        (_body, _specialTokens, _withTools) = (body, specialTokens, withTools);
        (MarksAnswers, WritesDate) = (marksAnswers, writesDate || withTools?.WritesDate == true);
    }

    /// <summary>Whether the template marks what the assistant says.</summary>
    public bool MarksAnswers { get; }

    /// <summary>Whether the template may write the date (<c>strftime_now</c>), so that texts differ from day to day.</summary>
    public bool WritesDate { get; }

    /// <summary>Reads a template.</summary>
    /// <param name="template">Its text.</param>
    /// <param name="specialTokens">Special tokens that it may write, by name, such as <c>bos_token</c>.</param>
    /// <param name="withTools">The template for conversations with <c>tools</c>, of a model that has one of its own for them (<c>tool_use</c>); null for the same.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.ChatTemplateInvalid"/>: it is malformed; <see cref="ErrorIds.ChatTemplateUnsupported"/>: it needs more of Jinja; both with
    /// the line. <see cref="ErrorIds.ChatTemplateFailed"/>: it is nested too deep.
    /// </exception>
    public static ChatTemplate Parse(string template, IReadOnlyDictionary<string, string>? specialTokens = null, string? withTools = null)
    {
        ArgumentNullException.ThrowIfNull(template);
        (TemplateBlock body, bool marksAnswers, bool writesDate) = TemplateParser.Parse(template);
        Dictionary<string, object?> tokens = new(StringComparer.Ordinal);
        foreach ((string name, string token) in specialTokens ?? new Dictionary<string, string>())
        {
            tokens[name] = token;
        }

        return new(body, marksAnswers, writesDate, tokens, withTools is null ? null : Parse(withTools, specialTokens));
    }

    /// <summary>Renders a conversation.</summary>
    /// <param name="messages">The messages, each with <c>role</c>, <c>content</c> and what else the template reads.</param>
    /// <param name="addGenerationPrompt">Whether the text ends with the beginning of an answer.</param>
    /// <param name="variables">
    /// What else the template reads, by name, such as <c>tools</c>, <c>documents</c> or <c>enable_thinking</c>: texts, numbers, Booleans, lists,
    /// dictionaries, <see cref="JsonElement"/>.
    /// </param>
    /// <param name="now">The time for templates that write the date; null for now.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.ChatTemplateFailed"/>: the template refuses the conversation (the message has its own words), or cannot be rendered
    /// with it, or exceeds a limit.
    /// </exception>
    public RenderedChat Render(
        IReadOnlyList<IReadOnlyDictionary<string, object?>> messages, bool addGenerationPrompt = false, IReadOnlyDictionary<string, object?>? variables = null, DateTime? now = null)
    {
        ArgumentNullException.ThrowIfNull(messages);
        if (Other(variables) is ChatTemplate other)
        {
            return other.Render(messages, addGenerationPrompt, variables, now);
        }

        Dictionary<string, object?> all = new(_specialTokens, StringComparer.Ordinal)
        {
            ["tools"] = null,
            ["documents"] = null,
        };
        foreach ((string name, object? value) in variables ?? new Dictionary<string, object?>())
        {
            all[name] = Import(value);
        }

        all["messages"] = new TemplateList(messages.Select(Message));
        all["add_generation_prompt"] = addGenerationPrompt;
        TemplateRun run = new(all, now ?? DateTime.Now);
        run.Run(_body);
        return new(run.Output, run.Generations) { MarksCaptured = run.MarksCaptured };
    }

    /// <summary>
    /// Renders a conversation and finds the answers in it: what the template marks, otherwise for every message of the assistant the text from the
    /// end of the conversation before it, with the beginning of an answer, to the end of the conversation up to it.
    /// </summary>
    /// <param name="messages">As for <see cref="Render"/>.</param>
    /// <param name="variables">As for <see cref="Render"/>.</param>
    /// <param name="now">As for <see cref="Render"/>.</param>
    /// <exception cref="LoKrException">As for <see cref="Render"/>.</exception>
    public ChatAnswers FindAnswers(
        IReadOnlyList<IReadOnlyDictionary<string, object?>> messages, IReadOnlyDictionary<string, object?>? variables = null, DateTime? now = null)
    {
        if (Other(variables) is ChatTemplate other)
        {
            return other.FindAnswers(messages, variables, now);
        }

        now ??= DateTime.Now;
        RenderedChat whole = Render(messages, addGenerationPrompt: false, variables, now);
        if (MarksAnswers)
        {
            if (whole.MarksCaptured)
            {
                throw new LoKrException(ErrorIds.ChatTemplateUnsupported, LoKrErrorKind.NotSupported,
                    "The chat template marks answers in a macro or in the text of a variable, so that their places in the conversation are not known.",
                    "Train on all tokens, or use a template that marks answers where it writes them.");
            }

            return new(whole.Text, whole.Answers, []);
        }

        List<(int, int)> spans = [];
        List<(int, string)> without = [];
        for (int i = 0; i < messages.Count; i++)
        {
            if (!messages[i].TryGetValue("role", out object? role) || Import(role) is not "assistant")
            {
                continue;
            }

            if (i == 0)
            {
                without.Add((i, "no conversation before it"));
                continue;
            }

            string asked = Render([.. messages.Take(i)], addGenerationPrompt: true, variables, now).Text;
            string answered = Render([.. messages.Take(i + 1)], addGenerationPrompt: false, variables, now).Text;
            if (!answered.StartsWith(asked, StringComparison.Ordinal))
            {
                without.Add((i, "the text with the generation prompt is no prefix of the text with the answer"));
            }
            else if (!whole.Text.StartsWith(answered, StringComparison.Ordinal))
            {
                without.Add((i, "the text up to the answer is no prefix of the whole text"));
            }
            else
            {
                spans.Add((asked.Length, answered.Length));
            }
        }

        return new(whole.Text, spans, without);
    }

    // The template that is used in place of this one.
    private ChatTemplate? Other(IReadOnlyDictionary<string, object?>? variables) =>
        _withTools is not null && variables is not null && variables.TryGetValue("tools", out object? tools) && Import(tools) is not null ? _withTools : null;

    /// <summary>The error of a template that refuses a conversation.</summary>
    internal static LoKrException Refused(string words) => new(
        ErrorIds.ChatTemplateFailed, LoKrErrorKind.InvalidData, $"The chat template refuses the conversation: {words}", "Change the conversation to what the template of the model expects.");

    // As transformers does: keys without a value are left out, and a thought has the names of all releases.
    private static TemplateMap Message(IReadOnlyDictionary<string, object?> message)
    {
        TemplateMap map = new();
        foreach ((string key, object? value) in message)
        {
            if (Import(value) is object kept)
            {
                map[key] = kept;
            }
        }

        foreach (string name in (string[])["reasoning_content", "thinking"])
        {
            string? other = Array.Find(["thinking", "reasoning", "reasoning_content"], candidate => candidate != name && map.Contains(candidate));
            if (!map.Contains(name) && other is not null && map.TryGet(other, out object? thought))
            {
                map[name] = thought;
            }
        }

        return map;
    }

    private static object? Import(object? value) => value switch
    {
        null or string or bool or long or double => value,
        ulong number => PythonNumbers.Value(number),
        int or short or byte or uint or sbyte or ushort => Convert.ToInt64(value, CultureInfo.InvariantCulture),
        float or decimal => Convert.ToDouble(value, CultureInfo.InvariantCulture),
        JsonElement json => Import(json),
        IReadOnlyDictionary<string, object?> map => Members(map.Select(static member => (member.Key, member.Value))),
        IDictionary map => Members(map.Cast<DictionaryEntry>().Select(static entry => (entry.Key.ToString()!, entry.Value))),
        IEnumerable items => new TemplateList(items.Cast<object?>().Select(Import)),
        _ => throw new LoKrException(ErrorIds.ChatTemplateFailed, LoKrErrorKind.InvalidArgument,
            $"A value of the type {value.GetType().Name} cannot be given to a chat template.", "Give texts, numbers, lists and dictionaries.") { Target = value },
    };

    private static object? Import(JsonElement json) => json.ValueKind switch
    {
        JsonValueKind.String => json.GetString(),
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        JsonValueKind.Number => Number(json),
        JsonValueKind.Array => new TemplateList(json.EnumerateArray().Select(Import)),
        JsonValueKind.Object => Members(json.EnumerateObject().Select(static member => (member.Name, (object?)member.Value))),
        _ => null,
    };

    // Python reads integers of any size, and floats only where there is a point or an exponent.
    private static object Number(JsonElement json) => json.GetRawText().AsSpan().ContainsAny('.', 'e', 'E') ? json.GetDouble()
        : json.TryGetInt64(out long number) ? (object)number
        : BigInteger.Parse(json.GetRawText(), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);

    private static TemplateMap Members(IEnumerable<(string Key, object? Value)> members)
    {
        TemplateMap map = new();
        foreach ((string key, object? value) in members)
        {
            map[key] = Import(value);
        }

        return map;
    }
}
