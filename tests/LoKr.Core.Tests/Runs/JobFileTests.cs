using System.Reflection;
using System.Text.Json.Nodes;
using System.Xml.Linq;
using LoKr.Core.Errors;
using LoKr.Core.Runs;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Runs;

/// <summary>Job files: one schema for all that reads them, and problems with line and key.</summary>
public sealed class JobFileTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_minimal_job_has_the_defaults_of_the_options()
    {
        LoKrJob job = Read("""{ "base": { "path": "model" }, "data": { "path": "*.jsonl" } }""");
        Assert.Equal("tickets", job.Name);
        Assert.Equal(["*.jsonl"], job.Data.Path);
        Assert.Equal(_folder["model"], job.FullPath(job.Base.Path));
        Assert.Equal(new Core.Training.TrainingOptions(), job.Training);
        Assert.Equal(NewLabels.Refuse, job.Data.NewLabels);
        Assert.Null(job.Gate);
    }

    [Fact]
    public void Keys_and_names_are_read_in_any_case_and_times_and_intervals_as_people_write_them()
    {
        LoKrJob job = Read("""
            // a comment
            {
              "Base": { "Path": "model", "DType": "bfloat16" },
              "DATA": { "path": ["a.jsonl", "b/**/*.csv"], "newlabels": "grow" },
              "configuration": { "r": 4, "targetModules": ["query", "value"], "rankPattern": { "key": 2 } },
              "training": { "schedule": "cosine", "timeLimit": "90m", "seed": 3000000000 },
              "runs": { "checkpointEvery": 20 },
              "registry": { "path": "registry", "startFrom": "champion", },
            }
            """);
        Assert.Equal((JobDType.BFloat16, NewLabels.Grow, JobStart.Champion), (job.Base.DType, job.Data.NewLabels, job.Registry!.StartFrom));
        Assert.Equal(["query", "value"], job.Configuration.TargetModules!.Names);
        Assert.Equal(KeyValuePair.Create("key", 2), Assert.Single(job.Configuration.RankPattern));
        Assert.Equal((TimeSpan.FromMinutes(90), 3000000000), (job.Training.TimeLimit, job.Training.Seed));
        Assert.Equal(20, job.Runs.CheckpointEvery.Steps);
        Assert.Equal("10m", Read("""{ "base": { "path": "m" }, "data": { "path": "d" }, "runs": { "checkpointEvery": "10m" } }""").Runs.CheckpointEvery.Time is { TotalMinutes: 10 } ? "10m" : "");
    }

    [Theory]
    [InlineData("""{ "base": { "path": "m" } }""", 1, "data", "is missing")]
    [InlineData("{\n \"base\": { },\n \"data\": { \"path\": \"d\" }\n}", 2, "base.path", "is missing")]
    [InlineData("{\n \"base\": { \"path\": \"m\" },\n \"data\": {\n  \"path\": \"d\",\n  \"epochs\": 3 } }", 5, "data.epochs", "its keys are path, validation, reference, columns, skipInvalid, limits, newLabels")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\",\n \"limits\": { \"duplicate\": 0 } } }", 2, "data.limits.duplicate", "its keys are Empty, Duplicates")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\",\n \"limits\": { \"duplicates\": -1 } } }", 2, "data.limits", "0 or more")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\" },\n \"training\": { \"batchSize\": \"many\" } }", 2, "training.batchSize", "\"many\", not a whole number")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\" },\n \"training\": {\n \"batchSize\": 0 } }", 3, "training.batchSize", "BatchSize is 0")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\" },\n \"training\": { \"timeLimit\": \"soon\" } }", 2, "training.timeLimit", "not a time such as")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\" },\n \"configuration\": {\n \"r\": 0 } }", 3, "configuration.r", "'configuration.r'")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\" },\n \"gate\": { \"data\": \"e\", \"confidence\": 2 } }", 2, "gate.confidence", "between 0 and 1")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\" },\n \"gate\": { } }", 2, "gate.data", "validation data")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\", \"newLabels\": \"add\" } }", 1, "data.newLabels", "not Refuse or Grow")]
    [InlineData("{ \"name\": \"a/b\", \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\" } }", 1, "name", "letters, digits")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\" },\n \"runs\": { \"checkpointEvery\": true } }", 2, "runs.checkpointEvery", "not a whole number or a text")]
    [InlineData("{ \"base\": { \"path\": \"m\" }, \"data\": { \"path\": \"d\" },\n \"training\": { \"epochs\": 99999999999 } }", 2, "training.epochs", "cannot be read")]
    public void A_problem_has_its_line_and_key(string json, int line, string key, string says)
    {
        _folder.Write("tickets.job.json", json);
        IReadOnlyList<JobProblem> problems = JobFile.Check(JobDocument.ReadJson(_folder["tickets.job.json"]), out LoKrJob? job);
        Assert.Null(job);
        JobProblem problem = Assert.Single(problems);
        Assert.Equal((line, key), (problem.Line, problem.Key));
        Assert.Contains(says, problem.Message, StringComparison.Ordinal);
        ErrorAssert.Throws(ErrorIds.JobInvalid, () => JobFile.Read(JobDocument.ReadJson(_folder["tickets.job.json"])), $"tickets.job.json:{line}: ");
    }

    [Theory]
    [InlineData("[]", 1)]
    [InlineData("{\n \"base\": \n}", 3)]
    [InlineData("{\n \"base\": { },\n \"base\": { } }", 3)]
    public void A_file_that_is_not_JSON_names_its_line(string json, int line)
    {
        _folder.Write("tickets.job.json", json);
        LoKrException error = ErrorAssert.Throws(ErrorIds.JobInvalid, () => JobDocument.ReadJson(_folder["tickets.job.json"]), $"tickets.job.json:{line}: ");
        Assert.Equal(RunExitCodes.Invalid, RunExitCodes.Of(error));
    }

    [Fact]
    public void All_problems_are_listed_in_the_order_of_the_file()
    {
        _folder.Write("tickets.job.json", "{\n \"base\": { \"path\": 1 },\n \"data\": { \"path\": [\"d\", 2] },\n \"extra\": 1,\n \"runs\": 5 }");
        Assert.Equal(
            [(2, "base.path"), (3, "data.path"), (4, "extra"), (5, "runs")],
            JobFile.Check(JobDocument.ReadJson(_folder["tickets.job.json"]), out _).Select(problem => (problem.Line, problem.Key)));
    }

    [Fact]
    public void The_schema_that_is_shipped_is_that_of_the_records()
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The repository is not there.");
        string path = Path.Combine(Fixtures.Repository!, "docs", "lokr-job.schema.json");
        string expected = JobSchema.ToText(Describe());
        string made = Path.Combine(AppContext.BaseDirectory, "lokr-job.schema.json");
        File.WriteAllText(made, expected);
        Assert.True(File.Exists(path) && File.ReadAllText(path) == expected, $"Copy the new schema: cp '{made}' '{path}'");
    }

    [Fact]
    public void Every_key_of_the_schema_has_a_description_and_a_type()
    {
        List<string> without = [];
        Visit(JobSchema.Create(Describe()), "", without);
        Assert.Empty(without);

        static void Visit(JsonObject schema, string path, List<string> without)
        {
            foreach ((string key, JsonNode? value) in schema["properties"] as JsonObject ?? [])
            {
                JsonObject own = (JsonObject)value!;
                if (key != "$schema" && (own["description"] is null || own["type"] is null))
                {
                    without.Add($"{path}{key}");
                }

                Visit(own, $"{path}{key}.", without);
            }
        }
    }

    [Theory]
    [InlineData("a.jsonl", "a.jsonl")]
    [InlineData("*.jsonl", "a.jsonl b.jsonl")]
    [InlineData("data/2026-??.csv", "data/2026-01.csv data/2026-02.csv")]
    [InlineData("**/*.csv", "data/2026-01.csv data/2026-02.csv data/old/2025-12.csv")]
    [InlineData("d*/old/*", "data/old/2025-12.csv")]
    [InlineData("none/*.csv", "")]
    [InlineData("x[1].jsonl", "x[1].jsonl")]
    public void Data_are_found_by_patterns(string pattern, string expected)
    {
        foreach (string file in (string[])["a.jsonl", "b.jsonl", "data/2026-01.csv", "data/2026-02.csv", "data/old/2025-12.csv", "x[1].jsonl"])
        {
            if (pattern.Contains('[', StringComparison.Ordinal) || !file.Contains('[', StringComparison.Ordinal))
            {
                _folder.Write(file, "");
            }
        }

        Assert.Equal(expected, string.Join(' ', FilePatterns.Expand(Path.Combine(_folder.Path, pattern)).Select(path => Path.GetRelativePath(_folder.Path, path).Replace('\\', '/'))));
    }

    private static Func<Type, string, string?> Describe()
    {
        Assembly assembly = typeof(LoKrJob).Assembly;
        Dictionary<string, string> summaries = XDocument.Load(Path.ChangeExtension(assembly.Location, ".xml")).Descendants("member")
            .Where(static member => member.Element("summary") is not null)
            .ToDictionary(static member => member.Attribute("name")!.Value, static member => Text(member.Element("summary")!), StringComparer.Ordinal);
        return (type, member) => summaries.GetValueOrDefault($"{(type.IsEnum ? 'F' : 'P')}:{type.FullName}.{member}");
    }

    // Descriptions are read without the markup: a reference stands for the last part of its name.
    private static string Text(XElement summary)
    {
        string text = string.Concat(summary.Nodes().Select(static node => node switch
        {
            XText plain => plain.Value,
            XElement reference when reference.Attribute("cref") is { } name => name.Value.Split('.')[^1],
            XElement other => other.Value,
            _ => "",
        }));
        return string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
    }

    private LoKrJob Read(string json)
    {
        _folder.Write("tickets.job.json", json);
        return JobFile.Read(JobDocument.ReadJson(_folder["tickets.job.json"]));
    }
}
