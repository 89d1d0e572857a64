using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization.Readers;

namespace LoKr.Models.Tokenization;

/// <summary>
/// Reads the tokenizer of a Hugging Face model folder from its own files: <c>tokenizer.json</c>, else <c>vocab.txt</c>
/// (WordPiece), else <c>vocab.json</c> with <c>merges.txt</c> (byte-level BPE), else <c>tokenizer.model</c> (SentencePiece BPE of
/// Llama 2 and Mistral), else <c>sentencepiece.bpe.model</c> or <c>spm.model</c> (SentencePiece Unigram of XLM-RoBERTa and DeBERTa);
/// <c>tokenizer_config.json</c>, <c>special_tokens_map.json</c> and <c>added_tokens.json</c> say which tokens are special.
/// The ids are those of tokenizer.json, or SentencePiece's where there is only its model; a tokenizer that cannot be reproduced exactly is an error.
/// </summary>
public static class TokenizerLoader
{
    /// <summary>Finds the file that defines the tokenizer of a folder.</summary>
    /// <param name="folder">The model's folder.</param>
    /// <returns>Its full path, or null where the folder has no tokenizer.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.PathNotFound"/>: the folder does not exist.</exception>
    public static string? Find(string folder) => new TokenizerFolder(folder).Definition;

    /// <summary>Reads the tokenizer of a folder.</summary>
    /// <param name="folder">The model's folder.</param>
    /// <returns>A tokenizer that may be used from several threads at once.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.PathNotFound"/>: the folder does not exist.
    /// <see cref="ErrorIds.TokenizerNotFound"/>: it has none of the known files.
    /// <see cref="ErrorIds.TokenizerInvalid"/>: a file is damaged, or two files contradict each other.
    /// <see cref="ErrorIds.TokenizerUnsupported"/>: the tokenizer cannot be reproduced exactly.
    /// </exception>
    public static ITextTokenizer Load(string folder)
    {
        TokenizerFolder files = new(folder);
        string definition = files.Definition ?? throw new LoKrException(
            ErrorIds.TokenizerNotFound,
            LoKrErrorKind.NotFound,
            $"The folder '{Path.GetFullPath(folder)}' has no tokenizer: it holds none of {string.Join(", ", TokenizerFolder.Definitions)}.",
            "Copy the tokenizer files of the model into it.")
        {
            Target = folder,
        };
        files.CheckLinks();
        try
        {
            TokenizerConfig config = TokenizerConfig.Read(files);
            TokenizerParts parts = Path.GetFileName(definition) switch
            {
                TokenizerFolder.TokenizerJson => TokenizerJsonReader.Read(definition, config),
                TokenizerFolder.VocabTxt => VocabTxtReader.Read(definition, config),
                TokenizerFolder.VocabJson => VocabJsonReader.Read(files, config),
                TokenizerFolder.SentencePieceModel => SentencePieceReader.Read(definition, config),
                _ => UnigramReader.Read(definition, config),
            };
            return new TextTokenizer(parts, config, files.Files, ChatTemplateLoader.Read(files, config));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new LoKrException(
                ErrorIds.TokenizerInvalid,
                LoKrErrorKind.InputOutput,
                $"The tokenizer of '{Path.GetFullPath(folder)}' cannot be read: {exception.Message}",
                "Check the permissions of its files, and that no other program keeps them locked.",
                exception)
            {
                Target = folder,
            };
        }
    }
}

/// <summary>The tokenizer files of a model folder.</summary>
internal sealed class TokenizerFolder
{
    public const string TokenizerJson = "tokenizer.json";
    public const string VocabTxt = "vocab.txt";
    public const string VocabJson = "vocab.json";
    public const string MergesTxt = "merges.txt";
    public const string SentencePieceModel = "tokenizer.model";
    public const string XlmRobertaModel = "sentencepiece.bpe.model";
    public const string DebertaModel = "spm.model";
    public const string ConfigJson = "tokenizer_config.json";
    public const string SpecialTokensMapJson = "special_tokens_map.json";
    public const string AddedTokensJson = "added_tokens.json";

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
    public static IReadOnlyList<string> Definitions { get; } = [TokenizerJson, VocabTxt, VocabJson, SentencePieceModel, XlmRobertaModel, DebertaModel];

    /// <summary>Every tokenizer file in the folder.</summary>
    public IReadOnlyList<string> Files => [.. TokenizerFiles.All.Select(PathOf).Where(File.Exists)];

    /// <summary>The file that defines the tokenizer, or null.</summary>
    public string? Definition => Definitions.Select(PathOf).FirstOrDefault(File.Exists);

    /// <summary>Refuses files that are links to places outside the folder, or no files; the model's configuration is one of those that are read.</summary>
    public void CheckLinks()
    {
        ModelLinks links = new(_folder);
        foreach (string file in TokenizerFiles.All.Append(ModelConfig.FileName).Select(PathOf).Where(File.Exists))
        {
            links.Check(file);
        }
    }

    /// <summary>Full path of a file, which need not exist.</summary>
    public string PathOf(string name) => Path.Combine(_folder, name);
}

/// <summary>Creates the errors of tokenizers; each names the file and a remedy.</summary>
internal static class TokenizerError
{
    private const string ResaveAdvice =
        "Results would only be approximate, so nothing was loaded. Use a tokenizer of a supported kind, or tokenize outside and train on ids.";

    private const string CopyAdvice = "Copy the tokenizer files of the model again.";

    private static readonly JsonErrors s_json = new(ErrorIds.TokenizerInvalid, ErrorIds.TokenizerUnsupported, CopyAdvice, ResaveAdvice);

    /// <summary>Reads one of the JSON files.</summary>
    public static JsonFields ReadJson(string path) => JsonFields.Parse(File.ReadAllBytes(path), path, s_json);

    public static LoKrException Unsupported(string file, string component, string? advice = null) => new(
        ErrorIds.TokenizerUnsupported,
        LoKrErrorKind.NotSupported,
        $"The tokenizer in '{file}' needs {component}, which is not supported.",
        advice ?? ResaveAdvice)
    {
        Target = file,
    };

    /// <summary>The error for a part of a file that exceeds a limit of size or time.</summary>
    public static LoKrException Limit(string file, string problem, Exception? cause = null) => new(
        ErrorIds.TokenizerInvalid,
        LoKrErrorKind.LimitExceeded,
        $"The tokenizer file '{file}' cannot be used: {problem}.",
        CopyAdvice,
        cause)
    {
        Target = file,
    };

    public static LoKrException Invalid(string file, string problem, Exception? cause = null, string? advice = null) => new(
        ErrorIds.TokenizerInvalid,
        LoKrErrorKind.InvalidData,
        $"The tokenizer file '{file}' cannot be used: {problem}.",
        advice ?? CopyAdvice,
        cause)
    {
        Target = file,
    };
}
