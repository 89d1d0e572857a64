using System.Text.Json;
using LoKr.Core.Chat;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Models.Tokenization;

/// <summary>
/// Reads the chat template of a Hugging Face model folder: <c>chat_template.jinja</c>, else <c>chat_template</c> of <c>tokenizer_config.json</c>,
/// with the special tokens that it may write.
/// </summary>
public static class ChatTemplateLoader
{
    private const string TemplateFile = "chat_template.jinja";

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
        string path = files.PathOf(TokenizerFolder.ConfigJson);
        string? own = File.Exists(file) ? File.ReadAllText(file) : null;
        JsonFields? json = own is null && File.Exists(path) ? TokenizerError.ReadJson(path) : null;
        return () => (own ?? (json is null ? null : Configured(json, path))) is not string text ? null : ChatTemplate.Parse(text, config.Named
            .Where(static token => token.Value is not null)
            .ToDictionary(static token => token.Key, static token => token.Value!.Content));
    }

    // One template, or several by name, of which the default one is taken.
    private static string? Configured(JsonFields json, string path)
    {
        if (!json.Has("chat_template"))
        {
            return null;
        }

        if (json.Get("chat_template").ValueKind != JsonValueKind.Array)
        {
            return json.GetString("chat_template");
        }

        return json.GetObjects("chat_template")
            .Select(static template => (Name: template.GetString("name"), Text: template.GetString("template")))
            .FirstOrDefault(static template => template.Name == "default").Text
            ?? throw TokenizerError.Invalid(path, "it has several chat templates, but none with the name 'default'");
    }
}
