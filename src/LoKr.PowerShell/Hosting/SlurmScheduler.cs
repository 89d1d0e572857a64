using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runs;

namespace LoKr.PowerShell.Hosting;

/// <summary>Runs the jobs of a submission as one job array of Slurm, by its programs sbatch, squeue, sacct and scancel.</summary>
internal static class SlurmScheduler
{
    // A task that ends keeps its nodes for a moment, and one that is requeued waits again.
    private static readonly HashSet<string> s_waiting = new(StringComparer.Ordinal) { "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT" };
    private static readonly HashSet<string> s_running = new(StringComparer.Ordinal) { "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING" };

    /// <summary>Submits the jobs of the last attempt.</summary>
    /// <param name="folder">The submission folder.</param>
    /// <param name="name">Name of the job array.</param>
    /// <returns>Its id.</returns>
    /// <exception cref="LoKrException"><c>LoKr.SchedulerFailed</c> with the words of sbatch.</exception>
    public static string Start(SubmissionFolder folder, string name)
    {
        (SubmissionAttempt attempt, SubmissionOptions options) = folder.ReadAttempt();
        string script = Path.Combine(folder.Path, "array.sbatch");
        AtomicFile.WriteText(script, CreateScript(folder.Path, name, attempt, options));

        // "42", or "42;cluster".
        return Require("sbatch", ["--parsable", script]).Trim().Split(';')[0];
    }

    /// <summary>The batch script of a job array.</summary>
    /// <param name="folder">The submission folder.</param>
    /// <param name="name">Name of the job array.</param>
    /// <param name="attempt">Its jobs.</param>
    /// <param name="options">How they are run.</param>
    public static string CreateScript(string folder, string name, SubmissionAttempt attempt, SubmissionOptions options)
    {
        string log = Path.Combine(folder.Replace("%", "%%", StringComparison.Ordinal), "jobs", "%4a", "log.txt");
        string[] lines =
        [
            $"--job-name={ShellText.BatchWord(name)}",
            $"--chdir={ShellText.BatchWord(folder)}",
            $"--output={ShellText.BatchWord(log)}",
            "--open-mode=append",
            $"--array={Ranges(attempt.Indexes)}{(options.MaxConcurrent is int limit ? FormattableString.Invariant($"%{limit}") : "")}",
            FormattableString.Invariant($"--cpus-per-task={options.ThreadsPerJob}"),
            FormattableString.Invariant($"--signal=B:USR1@{(int)options.Notice.TotalSeconds}"),
            "--requeue",
            .. options.TimeLimit is TimeSpan time ? [FormattableString.Invariant($"--time={(int)Math.Ceiling(time.TotalMinutes)}")] : Array.Empty<string>(),
            .. options.Partition is string partition ? [$"--partition={ShellText.BatchWord(partition)}"] : Array.Empty<string>(),
            .. options.Gpu > 0 ? [FormattableString.Invariant($"--gres=gpu:{options.Gpu}")] : Array.Empty<string>(),
            .. options.SchedulerOptions,
        ];
        return $$"""
            #!/bin/bash
            # The jobs of a list. A job that stops with a checkpoint is requeued; what it leaves tells the rest.
            {{string.Join('\n', lines.Select(static line => $"#SBATCH {line}"))}}

            job=$(printf '%s/jobs/%04d' {{ShellText.Word(folder)}} "$SLURM_ARRAY_TASK_ID")
            restart=${SLURM_RESTART_COUNT:-0}
            export {{string.Join(' ', ShellProgram.ThreadVariables.Select(name => $"{name}={options.ThreadsPerJob}"))}}

            # Whole lines or none, whoever reads them.
            note() {
                printf '%s %s %s %s\n' {{attempt.Number}} "$restart" "$(date +%s)" "$2" > "$job/.$1.$$" && mv -f "$job/.$1.$$" "$job/$1"
            }

            note started "${SLURMD_NODENAME:-$HOSTNAME}"
            if [ -e "$job/stop" ]; then
                # It was stopped while it was on its way back into the queue.
                note exit 75
                exit 75
            fi

            # Before the time is up, and when the job is stopped: end after the step, with a checkpoint.
            {{ShellText.RunAndForward([.. options.Command.Select(ShellText.Word), "\"$SLURM_ARRAY_TASK_ID\""])}}
            note exit "$code"

            case $code in
                75)
                    if [ "$restart" -lt {{options.RestartLimit}} ] && [ ! -e "$job/stop" ]; then
                        scontrol requeue "$SLURM_JOB_ID"
                        exit 0
                    fi
                    ;;
                2 | 4)
                    code=0
                    ;;
            esac
            exit "$code"

            """;
    }

    /// <summary>The tasks of job arrays that Slurm knows: those in the queue, and those that its accounting has, where there is one.</summary>
    /// <param name="ids">Ids of job arrays.</param>
    /// <exception cref="LoKrException"><c>LoKr.SchedulerFailed</c>: squeue is missing, or its controller does not answer.</exception>
    public static IReadOnlyDictionary<(string Id, int Index), SubmissionTask> Query(IReadOnlyList<string> ids)
    {
        Dictionary<(string, int), SubmissionTask> tasks = [];
        string jobs = string.Join(',', ids);

        // Where accounting is off or not installed, the queue and the files of the jobs say what there is to know.
        if (Find("sacct") && ShellProgram.Run("sacct", "--noheader", "--parsable2", "--array", "--allocations", $"--jobs={jobs}", "--format=JobID,State,ExitCode,NodeList") is { Code: 0 } accounted)
        {
            Read(accounted.Output, tasks);
        }

        (int code, string output, string error) = ShellProgram.Run("squeue", "--noheader", "--array", "--states=all", $"--jobs={jobs}", "--format=%i|%T|%r|%N");
        if (code != 0 && !error.Contains("Invalid job id", StringComparison.OrdinalIgnoreCase))
        {
            throw ShellProgram.Failed($"squeue ended with exit code {code}: {error.Trim()}");
        }

        // The queue is newer than the accounting.
        Read(output, tasks);
        return tasks;
    }

    /// <summary>Ends jobs: those that wait are taken out of the queue, those that run are told to write a checkpoint.</summary>
    /// <param name="ids">Ids of tasks, such as 42_7.</param>
    /// <exception cref="LoKrException"><c>LoKr.SchedulerFailed</c> with the words of scancel.</exception>
    public static void Stop(IReadOnlyList<string> ids)
    {
        foreach (string[] what in (string[][])[["--state=PENDING"], ["--batch", "--signal=USR1", "--state=RUNNING"]])
        {
            (int code, _, string error) = ShellProgram.Run("scancel", [.. what, .. ids]);

            // One that has ended since it was asked for is as it is wanted.
            if (code != 0 && error.Split('\n', StringSplitOptions.RemoveEmptyEntries).FirstOrDefault(static line =>
                !line.Contains("Invalid job id", StringComparison.OrdinalIgnoreCase) && !line.Contains("already complet", StringComparison.OrdinalIgnoreCase)) is string refused)
            {
                throw ShellProgram.Failed($"scancel ended with exit code {code}: {refused.Trim()}");
            }
        }
    }

    /// <summary>Numbers as Slurm writes them: 1-3,7.</summary>
    internal static string Ranges(IReadOnlyList<int> indexes)
    {
        List<string> ranges = [];
        for (int i = 0; i < indexes.Count;)
        {
            int end = i;
            while (end + 1 < indexes.Count && indexes[end + 1] == indexes[end] + 1)
            {
                end++;
            }

            ranges.Add(end == i ? FormattableString.Invariant($"{indexes[i]}") : FormattableString.Invariant($"{indexes[i]}-{indexes[end]}"));
            i = end + 1;
        }

        return string.Join(',', ranges);
    }

    /// <summary>Lines of squeue (id, state, reason, node) and of sacct (id, state, exit code, node).</summary>
    internal static void Read(string output, IDictionary<(string Id, int Index), SubmissionTask> tasks)
    {
        foreach (string line in output.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] cells = line.Trim().Split('|');
            string[] name = cells[0].Split('_');
            if (cells.Length < 4 || name.Length != 2 || !int.TryParse(name[1], NumberStyles.None, CultureInfo.InvariantCulture, out int index))
            {
                // A task of the array that is not one of its jobs, such as 42_[8-40] in old versions.
                continue;
            }

            // "CANCELLED by 1000".
            string state = cells[1].Split(' ')[0].TrimEnd('+');
            bool isRunning = s_running.Contains(state);
            bool isActive = isRunning || s_waiting.Contains(state);
            tasks[(name[0], index)] = new()
            {
                IsActive = isActive,
                IsRunning = isRunning,
                Text = !isActive ? state : isRunning || cells[2] is "None" or "" ? null : $"{state} ({cells[2]})",
                Node = cells[3] is "" or "None assigned" ? null : cells[3],
                ExitCode = isActive ? null : ExitCode(cells[2]),
            };
        }
    }

    // "3:0" is an exit code, "0:9" a signal.
    private static int? ExitCode(string text) =>
        text.Split(':') is [string code, string signal] && int.TryParse(code, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && int.TryParse(signal, NumberStyles.None, CultureInfo.InvariantCulture, out int killed)
            ? killed > 0 ? 128 + killed : number
            : null;

    private static bool Find(string program) => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Any(folder => File.Exists(Path.Combine(folder, program)));

    private static string Require(string program, IEnumerable<string> arguments)
    {
        (int code, string output, string error) = ShellProgram.Run(program, arguments);
        return code == 0 ? output : throw ShellProgram.Failed($"{program} ended with exit code {code}: {error.Trim()}");
    }
}
