using System.Globalization;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>State of data, run and registry at the start of a job.</summary>
internal sealed record JobNight(IReadOnlyList<DataRow> Rows, IReadOnlyList<DataRow> ValidationRows, JobInputs Inputs, LoKrAdapterVersion? Champion)
{
    /// <summary>Whether data, base model and configuration are those of the version in use.</summary>
    public bool IsNothingNew { get; init; }

    /// <summary>Labels of the head; null for a model that does not classify.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>How many of them the champion knows; null without a champion.</summary>
    public int? KnownLabels { get; init; }

    /// <summary>Labels that the head is grown for.</summary>
    public IReadOnlyList<string> NewLabels { get; init; } = [];
}

/// <summary>Finds what a job has to do, before a model is loaded: its data within their limits, the version in use, the labels of the head.</summary>
/// <param name="job">The job.</param>
/// <param name="registry">Where its versions are; null without one.</param>
/// <param name="services">Gets lines and warnings.</param>
internal sealed class JobSurvey(LoKrJob job, AdapterRegistry? registry, JobServices services)
{
    /// <summary>The day that templates write; null until the run is known, which keeps that of its start.</summary>
    public DateTime? Day { get; set; }

    /// <summary>How the rows of the job are read.</summary>
    public DataReading BeginReading() => new() { Columns = job.Data.Columns, SkipInvalid = job.Data.SkipInvalid, LossOn = job.Training.LossOn, Day = Day ?? DateTime.Today };

    /// <summary>Reads the data, checks it, and finds the version in use.</summary>
    /// <param name="cancellation">Ends it.</param>
    /// <exception cref="LoKrException">Data are missing, invalid or beyond a limit.</exception>
    public JobNight Look(CancellationToken cancellation)
    {
        string[] data = Files(job.Data.Path, "data.path");
        string[] validation = job.Data.Validation.Count == 0 ? [] : Files(job.Data.Validation, "data.validation");
        DataRow[] rows = Read(data, cancellation);
        DataRow[] validationRows = Read(validation, cancellation);
        services.OnLog(string.Create(CultureInfo.InvariantCulture,
            $"{rows.Length} rows of {Count(data.Length, "file")}{(validation.Length == 0 ? "" : $", {validationRows.Length} rows to evaluate on")}."));
        CheckData(rows, validationRows, null, cancellation);
        JobInputs inputs = JobInputs.Of(job, data, validation);
        LoKrAdapterVersion? champion = registry?.Find(job.AdapterName, job.Alias);
        return new(rows, validationRows, inputs, champion) { IsNothingNew = champion?.Card.JobInputs == inputs };
    }

    /// <summary>Measures the data against the limits of the job.</summary>
    /// <param name="rows">The rows to train on.</param>
    /// <param name="validation">The rows to evaluate on.</param>
    /// <param name="model">Its tokenizer tells what counts tokens; null checks all else.</param>
    /// <param name="cancellation">Ends it.</param>
    /// <exception cref="LoKrException">A limit is exceeded.</exception>
    public void CheckData(IReadOnlyList<DataRow> rows, IReadOnlyList<DataRow> validation, LoKrModel? model, CancellationToken cancellation)
    {
        Dictionary<DataFindingKind, double> limits = job.Data.Limits.Where(pair => IsOfTokens(pair.Key) == (model is not null)).ToDictionary();
        if (model is not null && limits.Count == 0)
        {
            return;
        }

        LoKrDataSummary summary = DataMeasurement.Measure(rows, new()
        {
            Reference = job.Data.Reference.Count == 0 ? null : Read(job.Data.Reference, "data.reference", cancellation),
            Validation = validation.Count == 0 ? null : validation,
            Model = model,
            MaxLength = model is null ? null : job.Training.MaxLength,
            Reading = BeginReading(),
            Thresholds = limits,
        }, null, cancellation);
        foreach (LoKrDataFinding finding in summary.Findings.Where(finding => IsOfTokens(finding.Kind) == (model is not null)))
        {
            services.OnLog($"Data: {finding.Message}");
        }

        if (summary.Findings.FirstOrDefault(static finding => finding.IsExceeded) is LoKrDataFinding exceeded)
        {
            throw exceeded.ToException();
        }
    }

    private static bool IsOfTokens(DataFindingKind kind) => kind is DataFindingKind.UnknownTokens or DataFindingKind.Cut or DataFindingKind.CutAnswers
        or DataFindingKind.JoinedAnswers or DataFindingKind.UnplacedAnswers;

    private string[] Files(IReadOnlyList<string> patterns, string key)
    {
        List<string> files = [];
        foreach (string pattern in patterns)
        {
            IReadOnlyList<string> found = FilePatterns.Expand(job.FullPath(pattern));
            files.AddRange(found.Count > 0 ? found : throw new LoKrException(ErrorIds.JobInvalid, LoKrErrorKind.InvalidData,
                $"'{key}' of '{job.Path}': no file is '{pattern}' ({job.FullPath(pattern)}).", "Correct the path, or wait for the data.") { Target = key });
        }

        return [.. files.Distinct(StringComparer.Ordinal)];
    }

    /// <summary>Reads the rows of files.</summary>
    /// <param name="patterns">Paths with wildcards, relative to the job.</param>
    /// <param name="key">The key of the job that has them.</param>
    /// <param name="cancellation">Ends it.</param>
    /// <exception cref="LoKrException">No file has such a name, or a row is invalid.</exception>
    public DataRow[] Read(IReadOnlyList<string> patterns, string key, CancellationToken cancellation) => Read(Files(patterns, key), cancellation);

    private DataRow[] Read(IEnumerable<string> files, CancellationToken cancellation)
    {
        DataReading reading = BeginReading();
        DataRow[] rows = [.. files.SelectMany(file => DataReader.ReadFile(file, reading, onRows: null, cancellation))];
        foreach (string note in reading.Notes)
        {
            services.OnLog(note);
        }

        foreach (string warning in reading.Warnings)
        {
            services.OnWarning(warning);
        }

        return rows;
    }

    /// <summary>Finds the labels of the head. The champion's come first and keep their order, so that its head can be continued and compared.</summary>
    /// <param name="night">What the job has found.</param>
    /// <exception cref="LoKrException">A label that the job refuses.</exception>
    public JobNight ChooseLabels(JobNight night)
    {
        (string Label, string Origin)[] used = [.. night.Rows.SelectMany(row => LabelsOf(row).Select(label => (label, row.Origin))).DistinctBy(static pair => pair.label, StringComparer.Ordinal)];
        if (used.Length == 0)
        {
            return night with { Labels = job.Base.Labels };
        }

        IReadOnlyList<string>? inUse = night.Champion is null ? null : night.Champion.Card.Labels ?? AdapterLabels.Read(night.Champion.Path);
        IReadOnlyList<string>? known = inUse ?? job.Base.Labels ?? LabelsOfBase();
        if (known is { Count: 1 })
        {
            // One label is a score or a number, and what rows have is its value.
            return night with { Labels = known, KnownLabels = inUse?.Count };
        }

        if (known is null)
        {
            return night with { Labels = [.. used.Select(static pair => pair.Label).Order(StringComparer.Ordinal)] };
        }

        string[] named = [.. (job.Base.Labels ?? []).Except(known, StringComparer.Ordinal)];
        (string Label, string Origin)[] unknown = [.. used.Where(pair => !known.Contains(pair.Label) && !named.Contains(pair.Label)).OrderBy(static pair => pair.Label, StringComparer.Ordinal)];
        if (unknown.Length > 0 && job.Data.NewLabels is NewLabels.Refuse)
        {
            throw new LoKrException(ErrorIds.LabelUnknown, LoKrErrorKind.InvalidData,
                $"The label '{unknown[0].Label}' ({unknown[0].Origin}) is new; {(inUse is null ? "the model" : $"version {night.Champion!.Version}")} knows {string.Join(", ", known)}.",
                "Correct the row, or let the job grow the head for new labels.") { Target = unknown[0].Label };
        }

        string[] added = [.. named, .. unknown.Select(static pair => pair.Label)];
        if (added.Length > 0)
        {
            services.OnLog($"The head grows for {string.Join(", ", added)}.");
        }

        return night with { Labels = [.. known, .. added], KnownLabels = inUse?.Count, NewLabels = added };
    }

    private IReadOnlyList<string> LabelsOf(DataRow row) =>
        job.Base.Task is TaskType.TokenClassification ? TaggedWords.HasTags(row) ? TaggedWords.Names(row) : []
        : RowFields.Has(row, "text") && RowFields.Has(row, "label") ? RowFields.Labels(row, "label", "text and label")
        : [];

    private IReadOnlyList<string>? LabelsOfBase()
    {
        string config = Path.Combine(job.FullPath(job.Base.Path), "config.json");
        return ModelLabels.FindNamed(JsonFields.Read(config, new(ErrorIds.ModelConfigInvalid, ErrorIds.ModelConfigInvalid)).ToJsonObject());
    }

    /// <summary>A number with its noun.</summary>
    internal static string Count(int count, string what) => FormattableString.Invariant($"{count} {what}{(count == 1 ? "" : "s")}");
}
