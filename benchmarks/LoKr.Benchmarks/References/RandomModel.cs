using System.Globalization;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Loading;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.References;

/// <summary>Texts for a language model whose tokens are numbers.</summary>
/// <param name="Rows">The rows.</param>
/// <param name="Ids">Their token ids, int64 [rows, tokens].</param>
/// <param name="Labels">The same, −100 where there is no loss.</param>
internal sealed record LanguageTexts(DataRow[] Rows, Tensor Ids, Tensor Labels);

/// <summary>Models of the text families with random weights, in the shapes of small published ones, whose tokens are numbers.</summary>
internal static class RandomModel
{
    /// <summary>Number of token ids.</summary>
    public const int Vocabulary = 8192;

    /// <summary>Writes the folder of a model.</summary>
    /// <param name="folder">Folder to write.</param>
    /// <param name="config">The config.json.</param>
    public static string Write(string folder, JsonObject config)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        System.IO.Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "config.json"), config.ToJsonString());
        using nn.Module module = ModelLoader.Build(new ModelConfig(config));
        CheckpointWriter.Write(
            folder, module.named_parameters().ToDictionary(static item => item.name, static item => Values(item.name, item.parameter.shape), StringComparer.Ordinal), 1L << 30);
        return folder;
    }

    /// <summary>Loads a model, with a tokenizer that reads numbers.</summary>
    public static LoKrModel Load(string folder, Device device) =>
        new(ModelLoader.Load(folder, new() { WithTokenizer = false, Device = device }).Module, folder, new NumberTokenizer());

    /// <summary>Rows of as many tokens, with one of two labels.</summary>
    /// <param name="count">Number of rows.</param>
    /// <param name="tokens">Tokens of each.</param>
    public static DataRow[] Rows(int count, int tokens)
    {
        Random random = new(1);
        return [.. Enumerable.Range(0, count).Select(row => new DataRow(
            new Dictionary<string, object?>
            {
                ["text"] = string.Join(' ', Enumerable.Range(0, tokens).Select(_ => random.Next(10, Vocabulary))),
                ["label"] = (long)(row % 2),
            },
            string.Create(CultureInfo.InvariantCulture, $"row {row}")))];
    }

    /// <summary>Rows for a language model: prompts and completions, or texts.</summary>
    /// <param name="count">Number of rows.</param>
    /// <param name="prompt">Tokens of a prompt, which have no loss; 0 for texts without prompts.</param>
    /// <param name="completion">Tokens with loss in each.</param>
    /// <param name="vocabulary">Number of token ids.</param>
    public static LanguageTexts Texts(int count, int prompt, int completion, int vocabulary)
    {
        Tensor ids = randint(10, vocabulary, [count, prompt + completion], ScalarType.Int64);
        Tensor labels = ids.clone();
        labels.narrow(1, 0, prompt).fill_(-100);
        return new([.. Enumerable.Range(0, count).Select(Row)], ids, labels);

        DataRow Row(int row)
        {
            long[] tokens = ids[row].data<long>().ToArray();
            Dictionary<string, object?> fields = prompt == 0
                ? new() { ["text"] = string.Join(' ', tokens) }
                : new() { ["prompt"] = string.Join(' ', tokens[..prompt]), ["completion"] = " " + string.Join(' ', tokens[prompt..]) };
            return new(fields, string.Create(CultureInfo.InvariantCulture, $"row {row}"));
        }
    }

    // Vectors are biases and the weights of norms.
    private static Tensor Values(string name, long[] shape) =>
        shape.Length > 1 ? randn(shape) * 0.02 : name.EndsWith("bias", StringComparison.Ordinal) ? zeros(shape) : ones(shape);

    private sealed class NumberTokenizer : ITextTokenizer
    {
        public int VocabularySize => Vocabulary;

        public int? MaxLength => null;

        public int? PadId => 1;

        public int? BosId => null;

        public int? EosId => null;

        public IReadOnlyList<string> SourceFiles => [];

        public IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true, int? maxLength = null) =>
            [.. text.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(static number => int.Parse(number, CultureInfo.InvariantCulture)).Take(maxLength ?? int.MaxValue)];

        public IReadOnlyList<TextToken> Tokenize(string text, string? textPair = null, bool addSpecialTokens = true, int? maxLength = null) => throw new NotSupportedException();

        public IReadOnlyList<TextToken> TokenizeWords(IReadOnlyList<string> words, bool addSpecialTokens = true, int? maxLength = null) => throw new NotSupportedException();

        public IDecodeStream OpenDecodeStream(bool skipSpecialTokens = true) => throw new NotSupportedException();
    }
}
