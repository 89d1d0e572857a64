using System.Collections;
using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.Inference;

namespace LoKr.PowerShell.Binding;

/// <summary>Messages from texts, hashtables and objects.</summary>
internal static class ChatMessages
{
    /// <summary>The messages of an answered conversation: its property Messages.</summary>
    /// <param name="conversation">The conversation, or what a job or a file made of it; null for none.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static IEnumerable<LoKrMessage> Of(object? conversation) => conversation.Unwrap() switch
    {
        null => [],
        LoKrConversation own => own.Messages,
        _ when Members(conversation) is { } members && members.GetValueOrDefault("Messages") is IEnumerable messages and not string => messages.Cast<object?>().Select(Read),
        object other => throw Invalid(other, "has no list of messages", "Pipe what was answered before, or an object with the property Messages."),
    };

    /// <summary>A message: a text is one of the user.</summary>
    /// <param name="item">A text, or a hashtable or object with role and content.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static LoKrMessage Read(object? item)
    {
        switch (item.Unwrap())
        {
            case LoKrMessage message:
                return message;
            case string text:
                return new() { Role = "user", Content = text };
        }

        Dictionary<string, object?> members = Members(item) ?? throw Invalid(item.Unwrap(), "is neither a text nor an object with role and content", "Give texts, or @{ role = 'user'; content = '…' }.");
        string role = Take("role");
        string content = Take("content");
        if (members.Remove("Others", out object? others) && others is IDictionary rest)
        {
            foreach (DictionaryEntry entry in rest)
            {
                members[Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!] = entry.Value;
            }
        }

        return new() { Role = role, Content = content, Others = members };

        string Take(string name) => members.Remove(name, out object? value) && value is string text
            ? text
            : throw Invalid(item.Unwrap(), $"has no text as its {name}", "Give every message a role (system, user, assistant) and a content: @{ role = 'user'; content = '…' }.");
    }

    private static Dictionary<string, object?>? Members(object? item) => item.Unwrap() is string or null ? null
        : DataRows.Plain(item.Unwrap() is IDictionary map ? map : item) is Dictionary<string, object?> plain ? new(plain, StringComparer.OrdinalIgnoreCase)
        : null;

    private static LoKrException Invalid(object? item, string what, string advice) => new(
        ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidArgument, $"A {item?.GetType().Name ?? "null"} {what}.", advice) { Target = item };
}
