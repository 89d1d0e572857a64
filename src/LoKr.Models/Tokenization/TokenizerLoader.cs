using LoKr.Core;
using LoKr.Core.Modeling;
using LoKr.Models.Tokenization.Readers;

namespace LoKr.Models.Tokenization;

/// <summary>
/// Reads the tokenizer of a Hugging Face model folder from its own files: <c>tokenizer.json</c>, else <c>vocab.txt</c>
/// (WordPiece), else <c>vocab.json</c> with <c>merges.txt</c> (byte-level BPE), else <c>tokenizer.model</c> (SentencePiece BPE of
/// Llama 2 and Mistral); <c>tokenizer_config.json</c>, <c>special_tokens_map.json</c> and <c>added_tokens.json</c> say which tokens are special.
/// The ids are those that transformers 5 gives; what cannot be done exactly is an error.
/// </summary>
public static class TokenizerLoader
{
    /// <summary>The file that would define the tokenizer of a folder.</summary>
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
    /// <see cref="ErrorIds.TokenizerInvalid"/>: a file is damaged, or two contradict each other.
    /// <see cref="ErrorIds.TokenizerUnsupported"/>: the tokenizer needs something that cannot be done exactly.
    /// </exception>
    public static ITextTokenizer Load(string folder)
    {
        TokenizerFolder files = new(folder);
        string definition = files.Definition ?? throw new LoKrException(
            ErrorIds.TokenizerNotFound,
            LoKrErrorKind.NotFound,
            $"The folder '{Path.GetFullPath(folder)}' has no tokenizer: none of {string.Join(", ", TokenizerFolder.Definitions)} is there.",
            "Copy the tokenizer files of the model into it.")
        {
            Target = folder,
        };
        try
        {
            TokenizerConfig config = TokenizerConfig.Read(files);
            TokenizerParts parts = Path.GetFileName(definition) switch
            {
                TokenizerFolder.TokenizerJson => TokenizerJsonReader.Read(definition, config),
                TokenizerFolder.VocabTxt => VocabTxtReader.Read(definition, config),
                TokenizerFolder.VocabJson => VocabJsonReader.Read(files, config),
                _ => SentencePieceReader.Read(definition, config),
            };
            return new TextTokenizer(parts, config, files.Files);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new LoKrException(
                ErrorIds.TokenizerInvalid,
                LoKrErrorKind.InputOutput,
                $"The tokenizer of '{Path.GetFullPath(folder)}' cannot be read: {exception.Message}",
                "Check that its files may be read and are not open elsewhere.",
                exception)
            {
                Target = folder,
            };
        }
    }
}
