using LoKr.Core;

namespace LoKr.Models.Tokenization;

/// <summary>The tokenizer files of a model folder.</summary>
internal sealed class TokenizerFolder
{
    public const string TokenizerJson = "tokenizer.json";
    public const string VocabTxt = "vocab.txt";
    public const string VocabJson = "vocab.json";
    public const string MergesTxt = "merges.txt";
    public const string SentencePieceModel = "tokenizer.model";
    public const string ConfigJson = "tokenizer_config.json";
    public const string SpecialTokensMapJson = "special_tokens_map.json";
    public const string AddedTokensJson = "added_tokens.json";

    private static readonly string[] s_all =
    [
        TokenizerJson, VocabTxt, VocabJson, MergesTxt, SentencePieceModel, ConfigJson, SpecialTokensMapJson, AddedTokensJson,
        "chat_template.jinja", "chat_template.json",
    ];

    private readonly string _folder;

    /// <exception cref="LoKrException">The folder does not exist.</exception>
    public TokenizerFolder(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        _folder = Path.GetFullPath(folder);
        if (!Directory.Exists(_folder))
        {
            throw new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound, $"The folder '{_folder}' does not exist.", "Name the folder of a model.")
            {
                Target = _folder,
            };
        }
    }

    /// <summary>Names of the files that can define a tokenizer, the preferred one first.</summary>
    public static IReadOnlyList<string> Definitions { get; } = [TokenizerJson, VocabTxt, VocabJson, SentencePieceModel];

    /// <summary>Every tokenizer file that is there.</summary>
    public IReadOnlyList<string> Files => [.. s_all.Select(PathOf).Where(File.Exists)];

    /// <summary>The file that defines the tokenizer, or null.</summary>
    public string? Definition => Definitions.Select(PathOf).FirstOrDefault(File.Exists);

    /// <summary>Full path of a file that may be there or not.</summary>
    public string PathOf(string name) => Path.Combine(_folder, name);
}
