namespace LoKr.Core.Configuration;

/// <summary>Names of the files of a tokenizer in the folder of a model, as transformers saves and reads them.</summary>
public static class TokenizerFiles
{
    /// <summary>The folder of chat templates beside the default one.</summary>
    public const string TemplateFolder = "additional_chat_templates";

    /// <summary>Files that can hold the vocabulary, of which a tokenizer has one or several.</summary>
    public static IReadOnlyList<string> Vocabularies { get; } = ["tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "sentencepiece.bpe.model", "spm.model", "spiece.model"];

    /// <summary>All files: the vocabulary, and what says how it is used.</summary>
    public static IReadOnlyList<string> All { get; } =
        [.. Vocabularies, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json"];
}
