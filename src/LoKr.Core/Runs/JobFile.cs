using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;

namespace LoKr.Core.Runs;

/// <summary>Reads job files: keys and values by <see cref="JobSchema"/>, ranges by the rules of the options. Every problem has its line and key.</summary>
public static class JobFile
{
    /// <summary>Reads a job.</summary>
    /// <param name="document">The content of the file.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.JobInvalid"/> naming file, line and key of every problem.</exception>
    public static LoKrJob Read(JobDocument document)
    {
        ArgumentNullException.ThrowIfNull(document);
        IReadOnlyList<JobProblem> problems = Check(document, out LoKrJob? job);
        return job ?? throw new LoKrException(ErrorIds.JobInvalid, LoKrErrorKind.InvalidData,
            string.Join(" ", problems.Select(problem => string.Create(CultureInfo.InvariantCulture, $"{document.Path}:{problem.Line}: {problem.Message}"))), "Correct the file.")
        { Target = problems[0] };
    }

    /// <summary>Finds everything that is wrong with a job file.</summary>
    /// <param name="document">The content of the file.</param>
    /// <param name="job">The job; null where there are problems.</param>
    public static IReadOnlyList<JobProblem> Check(JobDocument document, out LoKrJob? job)
    {
        ArgumentNullException.ThrowIfNull(document);
        job = null;
        JobChecker checker = new(document);
        JsonObject values = checker.Check();
        if (checker.Problems.Count > 0)
        {
            return checker.Problems;
        }

        try
        {
            LoKrJob read = values.Deserialize<LoKrJob>(JobSchema.Options)! with { Path = Path.GetFullPath(document.Path) };
            read = read.Name.Length > 0 ? read : read with { Name = DefaultName(document.Path) };
            JobProblem[] problems = [.. CheckRanges(document, read)];
            job = problems.Length == 0 ? read : null;
            return problems;
        }
        catch (JsonException exception)
        {
            // Numbers that are too large for their type.
            string key = exception.Path is { Length: > 2 } path ? path[2..] : "";
            return [new(document.LineOf(key), key, $"'{key}' cannot be read: {exception.Message}")];
        }
    }

    /// <summary>The name of a job whose file has none: that of the file up to its first period.</summary>
    /// <param name="path">The file.</param>
    public static string DefaultName(string path) => Path.GetFileName(path).Split('.', 2)[0];

    private static IEnumerable<JobProblem> CheckRanges(JobDocument document, LoKrJob job)
    {
        (string Section, Action Check)[] checks =
        [
            ("training", job.Training.Validate),
            ("configuration", () => LoKrConfigValidator.Validate(job.Configuration)),
            ("runs", new RunOptions { Path = job.FullPath(job.Runs.Path), CheckpointLimit = job.Runs.CheckpointLimit, MinimumFreeSpace = job.Runs.MinimumFreeSpace }.Validate),
        ];
        foreach ((string section, Action check) in checks)
        {
            if (Problem(document, section, check) is JobProblem problem)
            {
                yield return problem;
            }
        }

        (string Key, bool IsValid, string Allowed)[] rules =
        [
            ("name", AdapterRegistry.IsName(job.Name), "letters, digits, '-', '_' and '.', and not begin with a period"),
            ("registry.name", job.Registry?.Name is null || AdapterRegistry.IsName(job.Registry.Name), "letters, digits, '-', '_' and '.', and not begin with a period"),
            ("registry.alias", job.Registry is null || AdapterRegistry.IsName(job.Registry.Alias), "letters, digits, '-', '_' and '.', and not begin with a period"),
            ("data.path", job.Data.Path.Count > 0, "at least one path"),
            ("data.limits", job.Data.Limits.Values.All(static limit => limit >= 0), "0 or more"),
            ("base.labels", job.Base.Labels is null || (job.Base.Labels.Count > 0 && job.Base.Labels.Distinct(StringComparer.Ordinal).Count() == job.Base.Labels.Count), "each label once"),
            ("base.threads", job.Base.Threads is null or >= 1, "1 or more"),
            ("gate.confidence", job.Gate is null or { Confidence: > 0 and < 1 }, "a number between 0 and 1"),
            ("gate.minimumImprovement", job.Gate is null || double.IsFinite(job.Gate.MinimumImprovement), "a number"),
            ("gate.maximumRegression", job.Gate?.MaximumRegression is null or >= 0, "0 or more"),
            ("gate.data", job.Gate is null || job.Gate.Data.Count > 0 || job.Data.Validation.Count > 0, "the data to compare on, unless there is validation data"),
            ("retention.versions", job.Retention.Versions is null or >= 0, "0 or more"),
            ("retention.runs", job.Retention.Runs is null or >= 1, "1 or more"),
        ];
        foreach ((string key, bool isValid, string allowed) in rules)
        {
            if (!isValid)
            {
                yield return new(document.LineOf(key), key, $"'{key}' must be {allowed}.");
            }
        }
    }

    private static JobProblem? Problem(JobDocument document, string section, Action check)
    {
        try
        {
            check();
            return null;
        }
        catch (LoKrException exception)
        {
            string key = exception.Target is string name && name.Length > 0 && !name.Contains(' ', StringComparison.Ordinal)
                ? $"{section}.{char.ToLowerInvariant(name[0])}{name[1..]}"
                : section;
            return new(document.LineOf(key), key, $"'{key}': {exception.Message}");
        }
    }
}
