using LoKr.Core.Data;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>Promotion of an adapter that a job trained: the gate compares it with the one in use, and the registry takes and publishes it.</summary>
/// <param name="job">The job.</param>
/// <param name="services">Gets lines and the progress of the comparison.</param>
/// <param name="survey">Reads the rows of the gate.</param>
/// <param name="training">Makes tasks of rows.</param>
/// <param name="registry">Where versions are; null without one.</param>
internal sealed class JobPromotion(LoKrJob job, JobServices services, JobSurvey survey, JobTraining training, AdapterRegistry? registry)
{
    /// <summary>Asks the gate, and registers and publishes what passes it.</summary>
    /// <param name="night">What the job has found.</param>
    /// <param name="model">The model with the trained adapter.</param>
    /// <param name="folder">The run folder.</param>
    /// <param name="trained">The result of the training.</param>
    /// <param name="cancellation">Ends it.</param>
    /// <returns>The result, with what the gate said and the version.</returns>
    public LoKrJobResult Run(JobNight night, LoKrModel model, RunFolder folder, LoKrJobResult trained, CancellationToken cancellation)
    {
        if (job.Gate is not null)
        {
            LoKrGateResult gate = AskGate(night, model, job.Gate, cancellation);
            folder.WriteGate(gate);
            trained = trained with { Gate = gate.ToString() };
            services.OnLog($"Gate {gate}");
            if (!gate.Passed)
            {
                return trained with { State = LoKrJobState.NotBetter, ExitCode = RunExitCodes.NotBetter, Message = string.Join(" ", gate.Reasons) };
            }
        }

        return registry is null ? trained : Publish(registry, night, folder, trained);
    }

    private LoKrGateResult AskGate(JobNight night, LoKrModel model, JobGate gate, CancellationToken cancellation)
    {
        IReadOnlyList<DataRow> rows = gate.Data.Count == 0 ? night.ValidationRows : survey.Read(gate.Data, "gate.data", cancellation);
        AdapterReference? champion = null;
        if (night.Champion is not null)
        {
            // A label that it does not know is never its answer.
            string name = training.AdapterName == "champion" ? "champion-in-use" : "champion";
            JobTraining.Import(model, night, name, trainable: false, HeadGrowth.Never);
            champion = AdapterReference.OfModel(model, name);
        }

        using ITrainingTask task = training.CreateTask(model, rows, cancellation);
        return PromotionGate.Evaluate(model, champion, AdapterReference.OfModel(model, training.AdapterName), task, new()
        {
            Metric = gate.Metric,
            MinimumImprovement = gate.MinimumImprovement,
            MaximumRegression = gate.MaximumRegression,
            Confidence = gate.Confidence,
            BatchSize = job.Training.EvaluationBatchSize ?? job.Training.BatchSize,
            MaxLength = job.Training.MaxLength,
        }, services.OnEvaluation, cancellation) with
        {
            Champion = night.Champion?.ToString(),
        };
    }

    private LoKrJobResult Publish(AdapterRegistry versions, JobNight night, RunFolder folder, LoKrJobResult trained)
    {
        // A job that was killed between its registration and its publication has a version already.
        string run = folder.Read().Id;
        LoKrAdapterVersion? registered = versions.Contains(job.AdapterName) ? versions.GetVersions(job.AdapterName).FirstOrDefault(version => version.Card.Run == run) : null;
        LoKrAdapterVersion version = registered ?? versions.Register(job.AdapterName, folder.Path, new()
        {
            Parent = night.Champion?.Version,
            Gate = trained.Gate,
            Labels = night.Labels,
            Job = job.Name,
            JobInputs = night.Inputs,
        });
        return Publish(versions, version, folder, trained);
    }

    private LoKrJobResult Publish(AdapterRegistry versions, LoKrAdapterVersion version, RunFolder folder, LoKrJobResult trained)
    {
        folder.NoteRegistered(new(version.Name, version.Version));
        versions.Publish(version.Name, version.Version, job.Alias);
        services.OnLog(FormattableString.Invariant($"Version {version.Version} of {version.Name} is the {job.Alias} in {versions.Path}."));
        return trained with
        {
            State = LoKrJobState.Published,
            Version = version.Version,
            Message = FormattableString.Invariant($"Version {version.Version} of {version.Name} is the {job.Alias}{(version.Card.Parent is int parent ? $", in place of version {parent}" : "")}."),
        };
    }

    /// <summary>
    /// Goes on with a job that was killed after it had published its result, and before it told anybody: the version in use is one of the job, with a higher
    /// number than its last result knows.
    /// </summary>
    /// <param name="champion">The version in use; null without one.</param>
    /// <param name="last">The last result of the job; null without one.</param>
    /// <param name="runs">The folder of its runs.</param>
    /// <param name="result">Makes the result of a run.</param>
    /// <returns>The result of the job that was killed; null where there is none.</returns>
    public LoKrJobResult? Complete(LoKrAdapterVersion? champion, LoKrJobResult? last, string runs, Func<RunFolder, LoKrJobResult> result)
    {
        if (registry is null || champion is null || champion.Card.Job != job.Name || champion.Version <= Math.Max(last?.Version ?? 0, last?.Champion ?? 0))
        {
            return null;
        }

        RunFolder? folder = Directory.EnumerateDirectories(runs).Select(static path => new RunFolder(path)).FirstOrDefault(run => run.Exists && run.Read().Id == champion.Card.Run);
        return folder is null ? null : Publish(registry, champion, folder, result(folder) with { Champion = champion.Card.Parent, Gate = champion.Card.Gate });
    }
}
