using System.Collections;
using System.Globalization;
using System.Text.Json;
using LoKr.Core.Errors;

namespace LoKr.Core.Data;

/// <summary>Which tokens of conversations, and of prompts with completions, carry loss.</summary>
public enum LossOn
{
    /// <summary>Answers of the assistant, and completions.</summary>
    Answers,

    /// <summary>Every token but the first.</summary>
    All,
}

/// <summary>
/// The conversation of a row, as a chat template takes it: <c>messages</c> with <c>role</c> and <c>content</c> (OpenAI), <c>conversations</c> with
/// <c>from</c> and <c>value</c> (ShareGPT), or <c>instruction</c>, <c>input</c> and <c>output</c> (Alpaca).
/// </summary>
/// <param name="Messages">The messages, each with its role, its content and whatever else it has.</param>
/// <param name="Variables">
/// What else the template gets: <c>tools</c> and <c>documents</c> of the row, and the members of its <c>chat_template_kwargs</c>, such as
/// <c>enable_thinking</c>.
/// </param>
public sealed record Conversation(IReadOnlyList<IReadOnlyDictionary<string, object?>> Messages, IReadOnlyDictionary<string, object?> Variables)
{
    /// <summary>The columns of conversations, for messages.</summary>
    internal const string Expected = "messages, or conversations, or instruction and output";

    private const string MessagesColumn = "messages";
    private const string ConversationsColumn = "conversations";
    private const string InstructionColumn = "instruction";

    private static readonly string[] s_variables = ["tools", "documents"];

    // Names of speakers in ShareGPT's files; those of OpenAI's are used as they are.
    private static readonly Dictionary<string, string> s_roles = new(StringComparer.OrdinalIgnoreCase)
    {
        ["human"] = "user", ["user"] = "user", ["gpt"] = "assistant", ["chatgpt"] = "assistant", ["bing"] = "assistant", ["bard"] = "assistant", ["model"] = "assistant",
        ["assistant"] = "assistant", ["system"] = "system", ["tool"] = "tool", ["observation"] = "tool", ["function_response"] = "tool",
    };

    /// <summary>Number of messages of the assistant.</summary>
    public int AnswerCount => Messages.Count(static message => Text(message["role"]) == "assistant");

    /// <summary>Number of UTF-16 units of all contents.</summary>
    internal int Length => Messages.Sum(static message => ContentOf(message).Length);

    /// <summary>All messages as one text, equal for equal conversations.</summary>
    internal string Key => string.Join('\0', Messages.Select(static message => $"{Text(message["role"])}\0{ContentOf(message).Trim()}"));

    /// <summary>Whether the assistant says nothing.</summary>
    internal bool IsEmpty => Messages.All(static message => Text(message["role"]) != "assistant" || (string.IsNullOrWhiteSpace(ContentOf(message)) && !message.ContainsKey("tool_calls")));

    /// <summary>Whether a row has a conversation. Columns of texts come before Alpaca's.</summary>
    /// <param name="row">The row.</param>
    public static bool IsIn(DataRow row) => RowFields.Has(row, MessagesColumn) || RowFields.Has(row, ConversationsColumn)
        || (RowFields.Has(row, InstructionColumn) && !RowFields.Has(row, "text") && !RowFields.Has(row, "prompt") && !RowFields.Has(row, "completion"));

    /// <summary>Reads the conversation of a row.</summary>
    /// <param name="row">The row.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static Conversation Of(DataRow row)
    {
        Dictionary<string, object?> variables = new(StringComparer.Ordinal);
        foreach (string name in s_variables.Where(name => RowFields.Has(row, name) && !RowFields.IsNull(row, name)))
        {
            variables[name] = Items(row, name, "a list");
        }

        if (RowFields.Has(row, "chat_template_kwargs") && !RowFields.IsNull(row, "chat_template_kwargs"))
        {
            foreach ((string name, object? value) in Members(RowFields.Value(row, "chat_template_kwargs", Expected)) ?? throw RowFields.Wrong(row, "chat_template_kwargs", "an object"))
            {
                variables[name] = value;
            }
        }

        return new(RowFields.Has(row, MessagesColumn) || RowFields.Has(row, ConversationsColumn) ? Listed(row) : Instructed(row), variables);
    }

    private static List<IReadOnlyDictionary<string, object?>> Listed(DataRow row)
    {
        string column = RowFields.Has(row, MessagesColumn) ? MessagesColumn : ConversationsColumn;
        const string Wanted = "a list of messages, each with a role and a content";
        object?[] items = Items(row, column, Wanted);
        List<IReadOnlyDictionary<string, object?>> messages = [.. System(row), .. items.Select((item, i) => Message(Members(item) ?? throw Wrong(row, column, i, "is not an object"), row, column, i))];
        return items.Length > 0 ? messages : throw RowFields.Wrong(row, column, Wanted);
    }

    private static List<IReadOnlyDictionary<string, object?>> Instructed(DataRow row)
    {
        string instruction = RowFields.Text(row, InstructionColumn, Expected);
        string input = RowFields.Has(row, "input") && !RowFields.IsNull(row, "input") ? RowFields.AnyText(row, "input", Expected) : "";
        return
        [
            .. System(row),
            Message("user", string.IsNullOrWhiteSpace(input) ? instruction : $"{instruction}\n{input}"),
            Message("assistant", RowFields.Text(row, "output", Expected)),
        ];
    }

    // What precedes the conversation in ShareGPT's and Alpaca's files.
    private static IEnumerable<IReadOnlyDictionary<string, object?>> System(DataRow row) =>
        RowFields.Has(row, MessagesColumn) || !RowFields.Has(row, "system") || RowFields.IsNull(row, "system") || RowFields.AnyText(row, "system", Expected) is not { Length: > 0 } text
            ? [] : [Message("system", text)];

    /// <summary>A message.</summary>
    /// <param name="role">Who says it.</param>
    /// <param name="content">What is said.</param>
    internal static IReadOnlyDictionary<string, object?> Message(string role, string content) => new Dictionary<string, object?>(StringComparer.Ordinal) { ["role"] = role, ["content"] = content };

    private static Dictionary<string, object?> Message(Dictionary<string, object?> message, DataRow row, string column, int index)
    {
        if (!message.ContainsKey("role") && message.Remove("from", out object? from))
        {
            message["role"] = s_roles.GetValueOrDefault(Text(from) ?? "")
                ?? throw Wrong(row, column, index, $"is from '{Text(from)}'; speakers are {string.Join(", ", s_roles.Keys)}");
        }

        if (!message.ContainsKey("content") && message.Remove("value", out object? value))
        {
            message["content"] = value;
        }

        if (Text(message.GetValueOrDefault("role")) is not { Length: > 0 } role)
        {
            throw Wrong(row, column, index, "has no role");
        }

        message["role"] = role;
        object? content = message.GetValueOrDefault("content") is var given && IsNull(given) ? null : given;
        message["content"] = Text(content) ?? content switch
        {
            // A call of a tool, a thought, or parts of a content, which the template renders.
            null when message.Any(static member => member.Key is not ("role" or "content") && !IsNull(member.Value)) => null,
            JsonElement { ValueKind: JsonValueKind.Array } or (IEnumerable and not IDictionary) => content,
            _ => throw Wrong(row, column, index, "has no content that is a text"),
        };
        return message;
    }

    // Parts of a content, as JSON where they are read from a file.
    private static string ContentOf(IReadOnlyDictionary<string, object?> message) => message.GetValueOrDefault("content") switch
    {
        null => "",
        string text => text,
        JsonElement json => json.GetRawText(),
        object other => JsonSerializer.Serialize(other),
    };

    private static bool IsNull(object? value) => value is null or JsonElement { ValueKind: JsonValueKind.Null };

    private static string? Text(object? value) => value as string ?? (value is JsonElement { ValueKind: JsonValueKind.String } json ? json.GetString() : null);

    private static object?[] Items(DataRow row, string column, string wanted) => RowFields.Value(row, column, Expected) switch
    {
        // Tables of text hold JSON.
        string json => Parse(json) is { ValueKind: JsonValueKind.Array } list ? Items(list) : throw RowFields.Wrong(row, column, wanted),
        JsonElement { ValueKind: JsonValueKind.Array } list => Items(list),
        IDictionary or JsonElement => throw RowFields.Wrong(row, column, wanted),
        IEnumerable list => [.. list.Cast<object?>()],
        _ => throw RowFields.Wrong(row, column, wanted),
    };

    private static object?[] Items(JsonElement list) => [.. list.EnumerateArray().Select(static item => (object?)item)];

    private static JsonElement? Parse(string json)
    {
        try
        {
            return JsonSerializer.Deserialize<JsonElement>(json);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private static Dictionary<string, object?>? Members(object? value) => value switch
    {
        string json => Parse(json) is { ValueKind: JsonValueKind.Object } parsed ? Members(parsed) : null,
        JsonElement { ValueKind: JsonValueKind.Object } json => json.EnumerateObject().ToDictionary(static member => member.Name, static member => (object?)member.Value, StringComparer.Ordinal),
        IReadOnlyDictionary<string, object?> map => new(map, StringComparer.Ordinal),
        IDictionary map => Entries(map),
        _ => null,
    };

    private static Dictionary<string, object?> Entries(IDictionary map)
    {
        Dictionary<string, object?> entries = new(StringComparer.Ordinal);
        foreach (DictionaryEntry entry in map)
        {
            entries[Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!] = entry.Value;
        }

        return entries;
    }

    private static LoKrException Wrong(DataRow row, string column, int index, string what) => new(
        ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, string.Create(CultureInfo.InvariantCulture, $"Message {index + 1} in the {column} of {row.Origin} {what}."),
        "Give every message a role (system, user, assistant, tool) and a content, or from and value.") { Target = row.Origin };
}
