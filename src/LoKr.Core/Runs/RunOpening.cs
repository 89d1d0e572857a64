using System.Globalization;
using System.Security.Cryptography;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using LoKr.Core.Training;
using TorchSharp;

namespace LoKr.Core.Runs;

/// <summary>How a run folder opens: with a new run, in the middle of one that goes on, or with one that had ended. The caller holds the folder's lock.</summary>
/// <param name="Run">The state of the run.</param>
internal sealed record RunOpening(LoKrRun Run)
{
    /// <summary>Where the run goes on, whose tensors the caller owns; null for the beginning.</summary>
    public TrainingState? Start { get; private init; }

    /// <summary>The result of a run that had ended, whose values the adapters have now; null where there is something to train.</summary>
    public LoKrTrainingResult? Finished { get; private init; }

    /// <summary>Warnings.</summary>
    public IReadOnlyList<string> Warnings { get; private init; } = [];

    /// <summary>Opens a folder.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="options">What to do with a run that is in it.</param>
    /// <param name="target">The model or the pipeline to train.</param>
    /// <param name="plan">The plan of the training.</param>
    /// <param name="training">Options of the training.</param>
    /// <param name="description">What the run is made of.</param>
    /// <exception cref="LoKrException">As for <see cref="RunRecorder.Record"/>.</exception>
    public static RunOpening Of(RunFolder folder, RunOptions options, IAdaptable target, TrainingPlan plan, TrainingOptions training, RunDescription description)
    {
        LoKrRun fresh = New(target, plan, training, description.Inputs);
        folder.RemoveLeftovers();
        if (folder.IsForeign)
        {
            throw new LoKrException(ErrorIds.RunExists, LoKrErrorKind.AlreadyExists, $"'{folder.Path}' holds files, but no run.", "Use a folder of its own.") { Target = folder.Path };
        }

        new RunCheckpoints(folder.CheckpointFolder).RemoveLeftovers();
        LoKrRun? former = folder.Exists ? folder.Read() : null;
        if (former is not null && options.Resume is RunResume.Never && !options.Force)
        {
            throw new LoKrException(ErrorIds.RunExists, LoKrErrorKind.AlreadyExists, $"'{folder.Path}' has the run {former.Id}.",
                "Use another folder, or allow to begin anew.") { Target = folder.Path };
        }

        if (former is not null && options.Resume is not RunResume.Never && Continue(folder, options, target, plan, former, fresh) is RunOpening continued)
        {
            if (!File.Exists(folder.ConfigFile))
            {
                // Killed as it began.
                AtomicFile.WriteText(folder.ConfigFile, description.Json);
            }

            return continued;
        }

        if (options.Resume is RunResume.Required)
        {
            throw new LoKrException(ErrorIds.RunNotFound, LoKrErrorKind.NotFound, $"'{folder.Path}' has no run to continue.", "Check the path, or allow a new run.") { Target = folder.Path };
        }

        folder.RequireSpace(options.MinimumFreeSpace);
        if (former is not null || folder.IsHalfRemoved)
        {
            folder.Clear();
        }

        // The state first: a folder without one is somebody else's.
        folder.Write(fresh);
        AtomicFile.WriteText(folder.ConfigFile, description.Json);
        return new(fresh);
    }

    private static LoKrRun New(IAdaptable target, TrainingPlan plan, TrainingOptions training, RunInputs inputs)
    {
        DateTime now = DateTime.UtcNow;
        LoKrRuntimeInfo? runtime = TorchRuntime.Current;
        return new()
        {
            Id = string.Create(CultureInfo.InvariantCulture, $"{now:yyyyMMdd'T'HHmmss'Z'}-{RandomNumberGenerator.GetHexString(8, lowercase: true)}"),
            State = RunState.Running,
            Model = target.Name,
            AdapterName = plan.AdapterName,
            Seed = training.Seed ?? Random.Shared.NextInt64(),
            HeadLearningRate = plan.HeadLearningRate,
            Device = target.Models.Values.First().Device.ToString(),
            Threads = torch.get_num_threads(),
            BatchesPerStep = plan.BatchesPerStep,
            Workers = plan.Workers,
            Day = plan.Day,
            TotalSteps = plan.TotalSteps,
            Host = Environment.MachineName,
            ProcessId = Environment.ProcessId,
            Created = now,
            Updated = now,
            TrainableParameterCount = plan.TrainableParameterCount,
            Inputs = inputs,
            Version = typeof(RunOpening).Assembly.GetName().Version?.ToString(3) ?? "",
            LibtorchVersion = runtime?.LibtorchVersion ?? "",
        };
    }

    // Null where the run in the folder may be replaced, or has nothing to go on from.
    private static RunOpening? Continue(RunFolder folder, RunOptions options, IAdaptable target, TrainingPlan plan, LoKrRun former, LoKrRun fresh)
    {
        string[] differences = [.. fresh.Inputs.DifferencesFrom(former.Inputs)];
        if (differences.Length > 0)
        {
            return options.Force ? null : throw new LoKrException(ErrorIds.RunMismatch, LoKrErrorKind.InvalidOperation,
                $"The run {former.Id} in '{folder.Path}' began with another {string.Join(" and another ", differences)}.",
                "Use what it began with, another folder, or allow to begin anew.") { Target = folder.Path };
        }

        if (former.HasDiverged)
        {
            // The same steps would diverge again.
            return options.Force ? null : throw new LoKrException(ErrorIds.RunExists, LoKrErrorKind.InvalidOperation,
                FormattableString.Invariant($"The run {former.Id} in '{folder.Path}' diverged after step {former.Step}."),
                "Change the learning rate or the data, and begin anew or in another folder.") { Target = folder.Path };
        }

        if (former.IsFinished)
        {
            return new(former) { Finished = ReadResult(folder, target, plan.AdapterNames, former) };
        }

        List<string> warnings = [];
        TrainingState? start = new RunCheckpoints(folder.CheckpointFolder).ReadLast(folder.LogFile, warnings);
        if (start is null)
        {
            if (warnings.Count > 0 && !options.Force)
            {
                throw new LoKrException(ErrorIds.RunInvalid, LoKrErrorKind.InvalidData, $"'{folder.Path}' has no checkpoint that can be used. {warnings[0]}",
                    "Restore the folder from a copy, or begin anew.") { Target = folder.Path };
            }

            // Killed before its first checkpoint: it begins again, with the same seed.
            if (options.Resume is RunResume.Required)
            {
                return null;
            }
        }

        double? ofHead = start is null ? fresh.HeadLearningRate : start.HeadLearningRate;
        if (ofHead != fresh.HeadLearningRate)
        {
            warnings.Add($"The run {former.Id} began with {Rate(ofHead)} and keeps it, not {Rate(fresh.HeadLearningRate)}.");
        }

        return new(former with
        {
            State = RunState.Running,
            HeadLearningRate = ofHead,
            Reason = null,
            Message = null,
            ExitCode = null,
            Ended = null,
            Attempt = former.Attempt + 1,
            Host = fresh.Host,
            ProcessId = fresh.ProcessId,
            Device = fresh.Device,
            Threads = fresh.Threads,
            Workers = fresh.Workers,
            Version = fresh.Version,
            LibtorchVersion = fresh.LibtorchVersion,
            Step = start?.History.Count ?? 0,
            Updated = DateTime.UtcNow,
        })
        {
            Start = start,
            Warnings = warnings,
        };
    }

    private static string Rate(double? ofHead) => ofHead is double rate ? FormattableString.Invariant($"a learning rate of {rate:G4} for the head") : "one learning rate for all parameters";

    // Gives the adapters the values of the run.
    private static LoKrTrainingResult ReadResult(RunFolder folder, IAdaptable target, IEnumerable<string> adapterNames, LoKrRun run)
    {
        foreach ((string component, LoKrAdapter adapter) in adapterNames.SelectMany(target.GetAdapters))
        {
            using PeftAdapterFolder files = PeftAdapterFolder.Read(component.Length == 0 ? folder.AdapterFolder : Path.Combine(folder.AdapterFolder, component));
            using DisposeScope scope = torch.NewDisposeScope();
            AdapterLoader.Load(adapter, files.Tensors.Entries.Keys.ToDictionary(static name => name, name => files.Tensors.Read(name), StringComparer.Ordinal));
        }

        LoKrTrainingResult result = new()
        {
            AdapterName = run.AdapterName,
            History = RunLog.Read(folder.LogFile),
            StopReason = run.Reason ?? StopReasons.Completed,
            Before = run.Before,
            After = run.After,
            BestStep = run.BestStep,
            Seed = run.Seed,
            HeadLearningRate = run.HeadLearningRate,
            TrainableParameterCount = run.TrainableParameterCount,
            Elapsed = TimeSpan.FromSeconds(run.ElapsedSeconds),
        };
        target.LastTraining = result;
        return result;
    }
}
