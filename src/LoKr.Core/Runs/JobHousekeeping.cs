using LoKr.Core.IO;

namespace LoKr.Core.Runs;

/// <summary>The end of a job after a complete training, whatever became of the adapter: removes old versions and runs, and writes its report.</summary>
/// <param name="job">The job, which says how many stay.</param>
/// <param name="services">Gets lines.</param>
/// <param name="registry">Where its versions are; null without one.</param>
/// <param name="folder">The folder of its runs.</param>
internal sealed class JobHousekeeping(LoKrJob job, JobServices services, AdapterRegistry? registry, string folder)
{
    /// <summary>Does it.</summary>
    /// <param name="result">The result of the job, whose run stays.</param>
    /// <returns>The result with what was removed and the path of the report.</returns>
    public LoKrJobResult Run(LoKrJobResult result)
    {
        IReadOnlyList<int> versions = job.Retention.Versions is int keep && registry is not null && registry.Contains(job.AdapterName) ? registry.Retain(job.AdapterName, keep) : [];
        List<string> runs = [];
        foreach (RunFolder old in OldRuns(result.Run))
        {
            old.Remove();
            runs.Add(old.Path);
        }

        string? report = WriteReport(result.Run!);
        if (versions.Count + runs.Count > 0)
        {
            services.OnLog($"Removed {JobSurvey.Count(versions.Count, "version")} and {JobSurvey.Count(runs.Count, "run")}.");
        }

        return result with { RemovedVersions = versions, RemovedRuns = runs, Report = report };
    }

    private RunFolder[] OldRuns(string? current)
    {
        if (job.Retention.Runs is not int keep)
        {
            return [];
        }

        RunFolder[] others = [.. Directory.EnumerateDirectories(folder).OrderDescending(StringComparer.Ordinal).Select(static path => new RunFolder(path)).Where(run => run.Path != current)];
        return [.. others.Where(static run => run.Exists && run.Read().State is not RunState.Running).Skip(keep - 1), .. others.Where(static run => run.IsHalfRemoved)];
    }

    private string? WriteReport(string run)
    {
        if (job.Report is null)
        {
            return null;
        }

        string reports = job.FullPath(job.Report.Path);
        FileSystem.CreateFolder(reports);
        string path = Path.Combine(reports, $"{job.Name}-{Path.GetFileName(run)}{(job.Report.As is ReportFormat.Html ? ".html" : ".md")}");
        AtomicFile.WriteText(path, RunReport.Create(new RunFolder(run), job.Report.As, registry));
        services.OnLog($"Report in {path}.");
        return path;
    }
}
