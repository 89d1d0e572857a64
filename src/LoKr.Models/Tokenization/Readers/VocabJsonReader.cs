using System.Globalization;
using System.Text;
using LoKr.Models.Tokenization.Cores;
using LoKr.Models.Tokenization.Decoders;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>
/// Reads a byte-level BPE tokenizer from <c>vocab.json</c> and <c>merges.txt</c>. These files do not say how text is split or
/// what goes around it, so the family has to be known.
/// </summary>
internal static class VocabJsonReader
{
    public static TokenizerParts Read(TokenizerFolder folder, TokenizerConfig config)
    {
        string path = folder.PathOf(TokenizerFolder.VocabJson);
        string mergesPath = folder.PathOf(TokenizerFolder.MergesTxt);
        if (!File.Exists(mergesPath))
        {
            throw TokenizerError.Invalid(path, $"'{TokenizerFolder.MergesTxt}' is missing beside it");
        }

        ByteLevelFamily family = ByteLevelFamily.Find(folder, config, path);
        JsonComponent json = JsonFile.Read(path);
        BpeSettings settings = new()
        {
            Vocabulary = TokenizerJsonReader.ReadVocabulary(json, json),
            Merges = ReadMerges(mergesPath),
            EndOfWordSuffix = family.EndOfWordSuffix ?? "",
        };
        Normalizer? normalizer = family.Normalizer?.Invoke();
        ITokenDecoder decoder = new ByteLevelDecoder();
        return new TokenizerParts
        {
            File = path,
            Model = new BpeModel(settings, path),
            Normalizer = normalizer,
            Steps = family.Steps(config.AddPrefixSpace ?? false, path),
            Decoder = family.EndOfWordSuffix is string suffix ? ClipDecoder.Around(decoder, suffix) : decoder,
            NamedTemplate = (family.Before, family.After),
            DefaultSpecialTokens = family.SpecialTokens,
        };
    }

    private static List<(string Left, string Right)> ReadMerges(string path)
    {
        List<(string, string)> merges = [];
        int number = 0;
        foreach (string line in File.ReadLines(path, Encoding.UTF8))
        {
            number++;
            if (line.Length == 0 || line.StartsWith("#version", StringComparison.Ordinal))
            {
                continue;
            }

            string[] pair = line.Split(' ');
            if (pair.Length != 2 || pair[0].Length == 0 || pair[1].Length == 0)
            {
                throw TokenizerError.Invalid(path, string.Create(CultureInfo.InvariantCulture, $"line {number} is no pair of tokens"));
            }

            merges.Add((pair[0], pair[1]));
        }

        return merges;
    }
}
