using System.Globalization;
using System.Net;
using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>The format of a report.</summary>
public enum ReportFormat
{
    /// <summary>One HTML file.</summary>
    Html,

    /// <summary>One Markdown file.</summary>
    Markdown,
}

/// <summary>
/// The report of a run: how it ended, the course of the loss, evaluations, the verdict of the gate, and where the result comes from and went to.
/// It is made from the run folder alone, at any time.
/// </summary>
public static class RunReport
{
    /// <summary>The report in one piece, with the picture in it.</summary>
    /// <param name="folder">The run.</param>
    /// <param name="format">The format.</param>
    /// <param name="registry">A registry whose versions of this run are named; null for none.</param>
    /// <exception cref="LoKrException"><c>LoKr.RunNotFound</c>, <c>LoKr.RunInvalid</c>, <c>LoKr.RegistryInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static string Create(RunFolder folder, ReportFormat format, AdapterRegistry? registry = null)
    {
        ArgumentNullException.ThrowIfNull(folder);
        LoKrRun run = folder.Read();
        List<LoKrTrainingStep> history = RunLog.Read(folder.LogFile);
        ReportBlock[] blocks = [.. Blocks(folder, run, history, registry)];
        string picture = "data:image/png;base64," + Convert.ToBase64String(LossChart.Draw(history));
        return format is ReportFormat.Html ? ReportText.Html(Title(run), blocks, picture) : ReportText.Markdown(blocks, picture);
    }

    /// <summary>Writes <c>loss.png</c> and <c>report.md</c> of a run that ended, or again when the gate has decided.</summary>
    internal static void Write(RunFolder folder, LoKrRun run)
    {
        List<LoKrTrainingStep> history = RunLog.Read(folder.LogFile);
        byte[] picture = LossChart.Draw(history);
        AtomicFile.Write(folder.ChartFile, stream => stream.Write(picture));
        AtomicFile.WriteText(folder.ReportFile, ReportText.Markdown([.. Blocks(folder, run, history, null)], Path.GetFileName(folder.ChartFile)));
    }

    private static string Title(LoKrRun run) => $"Run {run.Id}";

    private static IEnumerable<ReportBlock> Blocks(RunFolder folder, LoKrRun run, List<LoKrTrainingStep> history, AdapterRegistry? registry)
    {
        yield return new ReportHeading(1, Title(run));
        yield return new ReportParagraph(Text($"{run.State} after {run.Step} of {run.TotalSteps} steps, {Duration(run.ElapsedSeconds)} of training.") + (run.Message is null ? "" : " " + run.Message));
        yield return new ReportTable(["", ""],
        [
            ["Model", run.Model], ["Adapter", run.AdapterName], ["Trainable parameters", Text($"{run.TrainableParameterCount:N0}")],
            ["Reason", run.Reason ?? ""], ["Exit code", Text($"{run.ExitCode}")], ["Began", Time(run.Created)], ["Ended", Time(run.Ended)], ["Attempts", Text($"{run.Attempt}")],
            ["Best step", Text($"{run.BestStep}")], ["Learning rate of the head", Text($"{run.HeadLearningRate:G4}")], ["Seed", Text($"{run.Seed}")], ["Device", Text($"{run.Device}, {run.Threads} threads")], ["Host", run.Host],
            .. run.Day is DateTime day ? (string[][])[["Day that the chat template writes", Text($"{day:yyyy-MM-dd}")]] : [],
            ["Versions", $"LoKr {run.Version}, libtorch {run.LibtorchVersion}"],
        ]);
        if (history.Count > 0)
        {
            yield return new ReportHeading(2, "Loss");
            yield return new ReportPicture("The loss over the steps: each step in gray, the running mean in blue, evaluations in orange.");
        }

        if (run.Before is not null || run.After is not null)
        {
            yield return new ReportHeading(2, "Evaluation");
            LoKrEvaluation either = run.After ?? run.Before!;
            yield return new ReportTable(
                either.NdcgAt10 is not null ? ["", "Rows", "Loss", "Recall@1", "Recall@10", "MRR@10", "nDCG@10"]
                    : either.Spearman is not null ? ["", "Rows", "Loss", "Spearman"]
                    : either.EntityF1 is not null ? ["", "Rows", "Loss", "Accuracy", "Entity F1", "Entity precision", "Entity recall", "Exact match"]
                    : ["", "Rows", "Loss", "Accuracy", "Macro F1", "Perplexity", "Exact match"],
                [.. new[] { ("Before", run.Before), ("After", run.After) }.Where(static pair => pair.Item2 is not null).Select(static pair => Row(pair.Item1, pair.Item2!))]);
        }

        foreach (ReportBlock block in folder.ReadGate() is LoKrGateResult gate ? Gate(gate) : [])
        {
            yield return block;
        }

        yield return new ReportHeading(2, "Lineage");
        yield return new ReportTable(["", "SHA-256"],
        [
            ["Data", run.Inputs.Data ?? ""], ["Validation data", run.Inputs.ValidationData ?? ""], ["Base model", run.Inputs.BaseModel],
            .. run.Inputs.ModelSettings is string settings ? new[] { (string[])["Configuration of the model", settings] } : [],
            ["Configuration", run.Inputs.Configuration], ["Adapter at the beginning", run.Inputs.StartAdapter],
        ]);
        IReadOnlyList<LoKrAdapterVersion> versions = registry?.OfRun(folder) ?? [];
        if (versions.Count > 0)
        {
            yield return new ReportTable(["Version", "Registered", "Aliases", "Comes from", "Weights"], [.. versions.Select(version => (string[])
            [
                Text($"{version.Name} {version.Version}"), Time(version.Created), string.Join(", ", version.Aliases),
                string.Join(" ← ", Ancestors(registry!, version).Select(static number => Text($"{number}"))), version.Card.Weights,
            ])]);
        }

        if (File.Exists(folder.ConfigFile))
        {
            yield return new ReportHeading(2, "Configuration");
            yield return new ReportCode(FileSystem.ReadText(folder.ConfigFile).TrimEnd());
        }
    }

    private static IEnumerable<ReportBlock> Gate(LoKrGateResult gate)
    {
        yield return new ReportHeading(2, "Gate");
        yield return new ReportParagraph($"{(gate.Passed ? "Passed." : "Not passed.")} {string.Join(" ", gate.Reasons)}");
        yield return new ReportTable(["", gate.Champion ?? "base model", gate.Challenger, "Better by", "Interval", "p"],
        [
            [gate.Metric.ToText(), Number(gate.ChampionValue), Number(gate.ChallengerValue), Number(gate.Improvement), $"{Number(gate.LowerBound)} to {Number(gate.UpperBound)}", Text($"{gate.PValue:G3} ({gate.Test})")],
        ]);
        if (gate.Labels.Count > 0)
        {
            yield return new ReportTable(["Label", "Rows", "Before", "After", "Newly right", "Newly wrong", ""], [.. gate.Labels.Select(static label => (string[])
            [
                label.Label, Text($"{label.RowCount}"), Number(label.ChampionValue), Number(label.ChallengerValue), Text($"{label.CorrectedCount}"), Text($"{label.BrokenCount}"), label.IsRegression ? "regression" : "",
            ])]);
        }
    }

    private static IEnumerable<int> Ancestors(AdapterRegistry registry, LoKrAdapterVersion version)
    {
        Dictionary<int, LoKrAdapterVersion> all = registry.GetVersions(version.Name).ToDictionary(static other => other.Version);
        for (int? number = version.Card.Parent; number is int parent && parent < version.Version; number = version.Card.Parent)
        {
            yield return parent;
            if (!all.TryGetValue(parent, out LoKrAdapterVersion? next))
            {
                yield break;
            }

            version = next;
        }
    }

    private static string[] Row(string name, LoKrEvaluation evaluation)
    {
        double?[] measures = evaluation.NdcgAt10 is not null ? [evaluation.RecallAt1, evaluation.RecallAt10, evaluation.MrrAt10, evaluation.NdcgAt10]
            : evaluation.Spearman is not null ? [evaluation.Spearman]
            : evaluation.EntityF1 is not null ? [evaluation.Accuracy, evaluation.EntityF1, evaluation.EntityPrecision, evaluation.EntityRecall, evaluation.ExactMatch]
            : [evaluation.Accuracy, evaluation.F1, evaluation.Perplexity, evaluation.ExactMatch];
        return [name, Text($"{evaluation.RowCount:N0}"), Number(evaluation.Loss), .. measures.Select(Number)];
    }

    private static string Number(double? value) => Text($"{value:0.0000}");

    private static string Time(DateTime? time) => Text($"{time:yyyy-MM-dd HH:mm:ss}") + (time is null ? "" : " UTC");

    private static string Duration(double seconds) => TimeSpan.FromSeconds(Math.Round(seconds)).ToString("c", CultureInfo.InvariantCulture);

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}

/// <summary>A part of a report.</summary>
internal abstract record ReportBlock;

/// <summary>A heading.</summary>
internal sealed record ReportHeading(int Level, string Text) : ReportBlock;

/// <summary>A paragraph.</summary>
internal sealed record ReportParagraph(string Text) : ReportBlock;

/// <summary>A table; a row whose second cell is empty is left out of a table with two columns.</summary>
internal sealed record ReportTable(string[] Headers, string[][] Rows) : ReportBlock
{
    /// <summary>The rows that say something.</summary>
    public IEnumerable<string[]> Shown => Rows.Where(row => Headers.Length != 2 || row[1].Length > 0);
}

/// <summary>The picture of the report.</summary>
internal sealed record ReportPicture(string Caption) : ReportBlock;

/// <summary>Preformatted text.</summary>
internal sealed record ReportCode(string Text) : ReportBlock;

/// <summary>Reports as text.</summary>
internal static class ReportText
{
    private const string Style = """
        body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
        table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
        img { max-width: 100%; height: auto; } figcaption { color: #666; } figure { margin: 1rem 0; } pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; }
        """;

    /// <summary>A page that needs nothing beside itself.</summary>
    public static string Html(string title, IEnumerable<ReportBlock> blocks, string picture)
    {
        StringBuilder html = new();
        html.Append(CultureInfo.InvariantCulture, $"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{Encode(title)}</title>\n<style>\n{Style}\n</style>\n</head>\n<body>\n");
        foreach (ReportBlock block in blocks)
        {
            html.Append(block switch
            {
                ReportHeading heading => Text($"<h{heading.Level}>{Encode(heading.Text)}</h{heading.Level}>\n"),
                ReportParagraph paragraph => $"<p>{Encode(paragraph.Text)}</p>\n",
                ReportPicture shown => $"<figure><img src=\"{picture}\" width=\"960\" height=\"480\" alt=\"{Encode(shown.Caption)}\"><figcaption>{Encode(shown.Caption)}</figcaption></figure>\n",
                ReportCode code => $"<pre>{Encode(code.Text)}</pre>\n",
                ReportTable table => $"<table>\n{Head(table)}{string.Concat(table.Shown.Select(static row => $"<tr>{string.Concat(row.Select(static cell => $"<td>{Encode(cell)}</td>"))}</tr>\n"))}</table>\n",
                _ => throw new InvalidOperationException(block.ToString()),
            });
        }

        return html.Append("</body>\n</html>\n").ToString();

        static string Head(ReportTable table) => table.Headers.All(static header => header.Length == 0) ? "" : $"<tr>{string.Concat(table.Headers.Select(static header => $"<th>{Encode(header)}</th>"))}</tr>\n";
    }

    /// <summary>Markdown with tables, as GitHub reads it.</summary>
    public static string Markdown(IEnumerable<ReportBlock> blocks, string picture) => string.Join("\n\n", blocks.Select(block => block switch
    {
        ReportHeading heading => $"{new string('#', heading.Level)} {heading.Text}",
        ReportParagraph paragraph => paragraph.Text,
        ReportPicture shown => $"![{shown.Caption}]({picture})\n\n{shown.Caption}",
        ReportCode code => $"```json\n{code.Text}\n```",
        ReportTable table => string.Join('\n', ((string[][])[table.Headers, [.. table.Headers.Select(static _ => "---")], .. table.Shown]).Select(static row => $"| {string.Join(" | ", row.Select(Cell))} |")),
        _ => throw new InvalidOperationException(block.ToString()),
    })) + "\n";

    private static string Cell(string text) => text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("|", "\\|", StringComparison.Ordinal).ReplaceLineEndings(" ");

    private static string Encode(string text) => WebUtility.HtmlEncode(text);

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
