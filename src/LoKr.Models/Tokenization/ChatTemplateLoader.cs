using System.Text.Json;
using LoKr.Core.Chat;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Models.Tokenization;

/// <summary>
/// Reads the chat template of a Hugging Face model folder: <c>chat_template.jinja</c>, else <c>chat_template</c> of <c>tokenizer_config.json</c>,
/// with the special tokens that it may write; and beside it the one for conversations with tools (<c>tool_use</c>), where the folder has one.
/// </summary>
public static class ChatTemplateLoader
{
    private const string TemplateFile = "chat_template.jinja";

    // Names in a list of templates, and of files beside the first one.
    private const string Default = "default";
    private const string WithTools = "tool_use";

    /// <summary>Reads the template of a folder.</summary>
    /// <param name="folder">The model's folder.</param>
    /// <returns>The template; null where the folder has none.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.PathNotFound"/>: the folder does not exist. <see cref="ErrorIds.TokenizerInvalid"/>: its configuration is damaged.
    /// <see cref="ErrorIds.ChatTemplateInvalid"/>, <see cref="ErrorIds.ChatTemplateUnsupported"/> and <see cref="ErrorIds.ChatTemplateFailed"/>: the
    /// template cannot be used.
    /// </exception>
    public static ChatTemplate? Load(string folder)
    {
        TokenizerFolder files = new(folder);
        files.CheckLinks();
        return Read(files, TokenizerConfig.Read(files))();
    }

    /// <summary>Reads the files, and returns what makes the template of them: a model can be used without, whatever its template is.</summary>
    /// <param name="files">The folder.</param>
    /// <param name="config">Its configuration, which names the special tokens.</param>
    internal static Func<ChatTemplate?> Read(TokenizerFolder files, TokenizerConfig config)
    {
        string file = files.PathOf(TemplateFile);
        string withTools = Path.Combine(files.PathOf(TokenizerFiles.TemplateFolder), WithTools + ".jinja");
        string path = files.PathOf(TokenizerFolder.ConfigJson);
        Dictionary<string, string>? own = File.Exists(file) ? new(StringComparer.Ordinal) { [Default] = File.ReadAllText(file) } : null;
        if (own is not null && File.Exists(withTools))
        {
            own[WithTools] = File.ReadAllText(withTools);
        }

        JsonFields? json = own is null && File.Exists(path) ? TokenizerError.ReadJson(path) : null;
        return () => (own ?? (json is null ? null : Configured(json, path))) is not { } templates ? null : ChatTemplate.Parse(
            templates[Default],
            config.Named.Where(static token => token.Value is not null).ToDictionary(static token => token.Key, static token => token.Value!.Content),
            templates.GetValueOrDefault(WithTools));
    }

    // One template, or several by name.
    private static Dictionary<string, string>? Configured(JsonFields json, string path)
    {
        if (!json.Has("chat_template"))
        {
            return null;
        }

        if (json.Get("chat_template").ValueKind != JsonValueKind.Array)
        {
            return new(StringComparer.Ordinal) { [Default] = json.GetString("chat_template") };
        }

        Dictionary<string, string> templates = new(StringComparer.Ordinal);
        foreach (JsonFields template in json.GetObjects("chat_template"))
        {
            templates[template.GetString("name")] = template.GetString("template");
        }

        return templates.ContainsKey(Default) ? templates : throw TokenizerError.Invalid(path, "it has several chat templates, but none with the name 'default'");
    }
}
