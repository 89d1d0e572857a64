using System.Globalization;
using System.Text.RegularExpressions;
using LoKr.PowerShell.Tests.Support;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests.Examples;

/// <summary>The example scripts run as the README says, from any directory, and leave nothing behind that was not asked for.</summary>
public sealed partial class ExampleScriptTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("lokr-examples-").FullName;

    [Fact]
    public void The_quickstart_learns_to_sort_tickets_and_its_export_answers_the_same()
    {
        ProcessResult result = ShellProcess.RunIn(_folder, RepositoryFile.Find("examples/Quickstart.ps1"));

        Assert.True(result.ExitCode == 0, result.Error);
        double[] accuracies = [.. AccuracyPattern().Matches(result.Output).Select(match => double.Parse(match.Groups["percent"].Value, CultureInfo.InvariantCulture))];
        Assert.Equal(2, accuracies.Length);
        Assert.True(accuracies[0] < 35, $"A fresh head knows nothing, but {accuracies[0]} % were right:\n{result.Output}");
        Assert.True(accuracies[1] > 85, $"Only {accuracies[1]} % are right after training:\n{result.Output}");
        Assert.Contains("gives the same answers", result.Output, StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder));
    }

    [Fact]
    public void The_text_classifier_trains_the_head_alone_and_LoKr_and_exports()
    {
        string model = TinyModel.WriteBert(Path.Combine(_folder, "model"));
        TinyModel.WriteTickets(Path.Combine(_folder, "train.jsonl"), 48);
        TinyModel.WriteTickets(Path.Combine(_folder, "eval.jsonl"), 24, seed: 2);

        ProcessResult result = ShellProcess.RunIn(
            _folder, RepositoryFile.Find("examples/Train-TextClassifier.ps1"),
            "-ModelPath", model, "-Data", "train.jsonl", "-ValidationData", "eval.jsonl", "-MaxLength", "32", "-MaxSteps", "6", "-BatchSize", "8", "-Destination", "out");

        Assert.True(result.ExitCode == 0, result.Error);
        Assert.Contains("3 labels: access, billing, network", result.Output, StringComparison.Ordinal);

        // 16 inputs, 3 labels.
        Assert.Contains("HeadTrainableParameterCount : 51", result.Output, StringComparison.Ordinal);
        Assert.Matches("(?m)^Steps +: 6", result.Output);
        Assert.True(File.Exists(Path.Combine(_folder, "out", "model.safetensors")), result.Output);
    }

    [Fact]
    public void Stable_diffusion_learns_pictures_and_writes_two_and_its_adapter()
    {
        string model = TinyPipeline.Write(Path.Combine(_folder, "model"));
        TinyImages.Write(Path.Combine(_folder, "photos"), 4);

        ProcessResult result = ShellProcess.RunIn(
            _folder, RepositoryFile.Find("examples/StableDiffusion.ps1"),
            "-ModelPath", model, "-Data", "photos", "-Prompt", "a red rack", "-Destination", "out", "-Resolution", "16", "-MaxSteps", "20", "-BatchSize", "2", "-Steps", "3", "-SampleEvery", "10");

        Assert.True(result.ExitCode == 0, result.Error);
        Assert.Matches("(?m)^Steps +: 20", result.Output);
        Assert.Matches("(?m)^PeakMemoryBytes +: [1-9]", result.Output);
        string[] expected = ["adapter.safetensors", "after.png", "before.png", "samples/step-000010-1.png", "samples/step-000020-1.png"];
        Assert.Equal(expected, Directory.EnumerateFiles(Path.Combine(_folder, "out"), "*", SearchOption.AllDirectories)
            .Select(file => Path.GetRelativePath(Path.Combine(_folder, "out"), file).Replace('\\', '/')).Order(StringComparer.Ordinal));
        Assert.NotEqual(File.ReadAllBytes(Path.Combine(_folder, "out", "before.png")), File.ReadAllBytes(Path.Combine(_folder, "out", "after.png")));
    }

    [Fact]
    public void The_language_model_script_measures_before_and_after_and_completes_three_prompts()
    {
        string model = TinyModel.WriteLlama(Path.Combine(_folder, "model"));
        TinyModel.WriteCompletions(Path.Combine(_folder, "train.jsonl"), 20);
        TinyModel.WriteCompletions(Path.Combine(_folder, "eval.jsonl"), 10);

        ProcessResult result = ShellProcess.RunIn(
            _folder, RepositoryFile.Find("examples/Train-LanguageModel.ps1"),
            "-ModelPath", model, "-Data", "train.jsonl", "-ValidationData", "eval.jsonl", "-MaxLength", "64", "-MaxSteps", "5", "-MaxNewTokens", "4", "-Destination", "out");

        Assert.True(result.ExitCode == 0, result.Error);
        Match before = Regex.Match(result.Output, "(?m)^PerplexityBefore +: (?<value>\\S+)");
        Match after = Regex.Match(result.Output, "(?m)^Perplexity +: (?<value>\\S+)");
        Assert.True(Number(after) < Number(before), result.Output);
        Assert.Equal(3, Regex.Count(result.Output, "(?m)^  .+ ->"));
        Assert.True(File.Exists(Path.Combine(_folder, "out", "config.json")), result.Output);
    }

    [Fact]
    public async Task An_existing_destination_ends_the_script_with_status_1_and_stays()
    {
        string model = TinyModel.WriteLlama(Path.Combine(_folder, "model"));
        TinyModel.WriteCompletions(Path.Combine(_folder, "train.jsonl"), 8);
        string kept = Path.Combine(Directory.CreateDirectory(Path.Combine(_folder, "out")).FullName, "kept.txt");
        await File.WriteAllTextAsync(kept, "mine", TestContext.Current.CancellationToken);

        ProcessResult result = ShellProcess.RunIn(
            _folder, RepositoryFile.Find("examples/Train-LanguageModel.ps1"),
            "-ModelPath", model, "-Data", "train.jsonl", "-ValidationData", "train.jsonl", "-MaxLength", "64", "-MaxSteps", "1", "-Destination", "out");

        Assert.Equal(1, result.ExitCode);
        Assert.Contains("-Force", result.Error, StringComparison.Ordinal);
        Assert.Equal([kept], Directory.EnumerateFileSystemEntries(Path.Combine(_folder, "out")));
    }

    [Fact]
    public async Task The_text_classifier_has_PEFTs_parameter_counts_on_minilm()
    {
        string model = Fixtures.RequireBeside("models", "minilm");
        string train = Fixtures.RequireBeside("data", "debian-sections", "train.jsonl");
        string few = Path.Combine(_folder, "few.jsonl");
        await File.WriteAllLinesAsync(few, File.ReadLines(train).DistinctBy(line => LabelPattern().Match(line).Value).Concat(File.ReadLines(train).Take(12)), TestContext.Current.CancellationToken);
        using var accuracy = System.Text.Json.JsonDocument.Parse(await File.ReadAllTextAsync(Fixtures.Require("minilm", "accuracy.json"), TestContext.Current.CancellationToken));
        System.Text.Json.JsonElement results = accuracy.RootElement.GetProperty("results");
        long head = Trainable(results, "head-only");
        long lokr = Trainable(results, "lokr-all-r8");

        ProcessResult result = ShellProcess.RunIn(
            _folder, RepositoryFile.Find("examples/Train-TextClassifier.ps1"), "-ModelPath", model, "-Data", few, "-ValidationData", few, "-MaxSteps", "2", "-BatchSize", "8");

        Assert.True(result.ExitCode == 0, result.Error);
        Assert.Matches($"(?m)^HeadTrainableParameterCount +: {head}\\s", result.Output);
        Assert.Matches($"(?m)^TrainableParameterCount +: {lokr}\\s", result.Output);
    }

    [Fact]
    public async Task The_language_model_script_starts_from_transformers_perplexity_on_debian_lm()
    {
        string model = Fixtures.RequireBeside("models", "debian-lm");
        string train = Fixtures.RequireBeside("data", "debian-lm", "gnu-r.train.jsonl");
        string eval = Fixtures.RequireBeside("data", "debian-lm", "gnu-r.eval.jsonl");
        using var perplexity = System.Text.Json.JsonDocument.Parse(await File.ReadAllTextAsync(Fixtures.Require("debian-lm", "perplexity.json"), TestContext.Current.CancellationToken));
        System.Text.Json.JsonElement results = perplexity.RootElement.GetProperty("results");
        double expected = results.GetProperty("base")[0].GetDouble();
        long trainable = results.GetProperty("lokr-all-linear-r8").GetProperty("trainable").GetInt64();

        ProcessResult result = ShellProcess.RunIn(
            _folder, RepositoryFile.Find("examples/Train-LanguageModel.ps1"), "-ModelPath", model, "-Data", train, "-ValidationData", eval, "-MaxSteps", "3", "-BatchSize", "8", "-MaxNewTokens", "8");

        Assert.True(result.ExitCode == 0, result.Error);
        double actual = Number(Regex.Match(result.Output, "(?m)^PerplexityBefore +: (?<value>\\S+)"));
        Assert.InRange(actual, expected * 0.999, expected * 1.001);
        Assert.Matches($"(?m)^TrainableParameterCount +: {trainable}\\s", result.Output);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static double Number(Match match) => double.Parse(match.Groups["value"].Value, CultureInfo.InvariantCulture);

    private static long Trainable(System.Text.Json.JsonElement results, string method) =>
        results.EnumerateObject().First(item => item.Name.StartsWith(method, StringComparison.Ordinal)).Value.GetProperty("trainable").GetInt64();

    [GeneratedRegex("(?<percent>[0-9.]+) ?% of \\d+ held-out tickets are right")]
    private static partial Regex AccuracyPattern();

    [GeneratedRegex("\"label\": *\"[^\"]*\"")]
    private static partial Regex LabelPattern();
}
