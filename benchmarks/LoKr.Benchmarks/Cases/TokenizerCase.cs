using System.Text;
using System.Text.Json;
using LoKr.Benchmarks.Harness;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization;

namespace LoKr.Benchmarks.Cases;

/// <summary>
/// Ten megabytes of texts into token ids, on one thread, against Hugging Face's own library: every tokenizer.json below
/// <c>tokenizers</c> in the reference fixtures (<c>LOKR_FIXTURES</c>, else <c>../shared/fixtures</c>).
/// </summary>
internal sealed class TokenizerCase : IBenchmarkCase
{
    private const int Bytes = 10_000_000;

    /// <inheritdoc/>
    public string Name => "tokenizer";

    /// <inheritdoc/>
    public string Title => "10 MB of texts to token ids";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        string fixtures = Path.GetFullPath(Environment.GetEnvironmentVariable("LOKR_FIXTURES") ?? Path.Combine("..", "shared", "fixtures"));
        string root = Path.Combine(fixtures, "tokenizers");
        if (!Directory.Exists(root) || !OperatingSystem.IsLinux())
        {
            context.Note($"Not measured: it needs Linux and tokenizers at {root}.");
            return;
        }

        foreach (string folder in Directory.EnumerateDirectories(root).Order(StringComparer.Ordinal))
        {
            string file = Path.Combine(folder, "tokenizer.json");
            if (File.Exists(file))
            {
                Compare(context, folder, file);
            }
        }
    }

    private static void Compare(BenchmarkContext context, string folder, string file)
    {
        // Its file alone, as the other library reads it.
        string name = Path.GetFileName(folder);
        string alone = Directory.CreateDirectory(Path.Combine(context.Directory, name)).FullName;
        File.Copy(file, Path.Combine(alone, "tokenizer.json"));
        string[] texts = Texts(Path.Combine(folder, "tokenizer_cases.json"));
        ITextTokenizer ours = TokenizerLoader.Load(alone);
        using Tokenizers.DotNet.Tokenizer theirs = new(file);
        context.Compare(
            $"{name}, {texts.Length:N0} texts",
            [
                new("LoKr", () => Array.ForEach(texts, text => ours.Encode(text))),
                new("LoKr with places", () => Array.ForEach(texts, text => ours.Tokenize(text))),
                new("tokenizers", () => Array.ForEach(texts, text => theirs.Encode(text))),
            ],
            [new("LoKr", "tokenizers", 1.5), new("LoKr with places", "tokenizers")]);
    }

    /// <summary>The texts of the tokenizer's cases in other orders, about two kilobytes each.</summary>
    private static string[] Texts(string cases)
    {
        using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(cases));
        string[] parts = [.. json.RootElement.EnumerateArray().Select(static row => row.GetProperty("text").GetString()!).Where(static text => text.Length is > 0 and < 500)];
        Random random = new(1);
        List<string> texts = [];
        for (long bytes = 0; bytes < Bytes; bytes += Encoding.UTF8.GetByteCount(texts[^1]))
        {
            StringBuilder text = new();
            while (text.Length < 1_500)
            {
                text.Append(parts[random.Next(parts.Length)]).Append('\n');
            }

            texts.Add(text.ToString());
        }

        return [.. texts];
    }
}
