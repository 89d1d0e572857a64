using System.Collections.Concurrent;
using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runs;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// Runs the jobs of a submission in child processes of this machine, as many at a time as the submission says. It does what Slurm does for a job
/// array, and leaves the same files. It runs in a process of its own (<see cref="Start"/>), which ends with the last job.
/// </summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public sealed class LocalScheduler : IDisposable
{
    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(250);

    private readonly SubmissionFolder _folder;
    private readonly SubmissionAttempt _attempt;
    private readonly SubmissionOptions _options;
    private readonly Queue<(int Index, int Restart)> _waiting;
    private readonly List<Child> _running = [];
    private readonly BlockingCollection<Child> _ended = [];
    private readonly SortedSet<int> _slots;
    private volatile bool _isEnding;

    private LocalScheduler(SubmissionFolder folder)
    {
        _folder = folder;
        (_attempt, _options) = folder.ReadAttempt();
        _waiting = new(_attempt.Indexes.Select(static index => (index, 0)));
        _slots = [.. Enumerable.Range(0, SlotCount(_options))];
    }

    /// <summary>Starts the process that runs the jobs of the last attempt, and comes back when it has begun.</summary>
    /// <param name="folder">The submission folder.</param>
    /// <param name="shell">PowerShell: the program, and arguments before its own.</param>
    /// <param name="module">Name or path of the module.</param>
    /// <param name="cancellation">Ends the process instead.</param>
    /// <returns>The process, in words.</returns>
    /// <exception cref="LoKrException"><c>LoKr.SchedulerFailed</c>: it did not begin.</exception>
    internal static string Start(SubmissionFolder folder, IReadOnlyList<string> shell, string module, CancellationToken cancellation)
    {
        string script = Path.Combine(folder.Path, "local.ps1");
        AtomicFile.WriteText(script, $"""
            # Runs the jobs of the last attempt on this machine.
            $ErrorActionPreference = 'Stop'
            Import-Module -Name {JobArrayScript.Quote(module)}
            [{typeof(LocalScheduler).FullName}]::Run($PSScriptRoot)

            """);

        // A session of its own: neither Ctrl+C nor the end of this terminal reaches the jobs.
        string[] command = [.. Detached(), .. shell, "-NoProfile", "-NonInteractive", "-File", script];
        ProcessStartInfo start = ShellProgram.StartInfo(command[0], command[1..]);
        if (OperatingSystem.IsWindows())
        {
            start.CreateNewProcessGroup = true;
        }

        using Process process = ShellProgram.Start(start);
        process.StandardInput.Close();
        Task<string> said = process.StandardError.ReadToEndAsync(cancellation);
        while (!process.WaitForExit(s_poll))
        {
            if (cancellation.IsCancellationRequested)
            {
                process.Kill(entireProcessTree: true);
                cancellation.ThrowIfCancellationRequested();
            }

            if (folder.IsLocked)
            {
                return Describe(process);
            }
        }

        return process.ExitCode == 0 ? Describe(process)
            : throw ShellProgram.Failed($"The process that starts the jobs ended with exit code {process.ExitCode}: {said.GetAwaiter().GetResult().Trim()}");
    }

    /// <summary>Runs the jobs of the last attempt.</summary>
    /// <param name="path">The submission folder.</param>
    /// <exception cref="LoKrException"><c>LoKr.RunBusy</c>, <c>LoKr.SubmissionNotFound</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public static void Run(string path)
    {
        SubmissionFolder folder = new(path);
        using IDisposable held = folder.Lock();
        using LocalScheduler scheduler = new(folder);
        using PosixSignalRegistration terminated = PosixSignalRegistration.Create(PosixSignal.SIGTERM, scheduler.End);
        using PosixSignalRegistration hungUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, scheduler.End);
        scheduler.Run();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Child child in _running)
        {
            child.Dispose();
        }

        _ended.Dispose();
    }

    private static int SlotCount(SubmissionOptions options)
    {
        int count = options.MaxConcurrent ?? Math.Max(1, Environment.ProcessorCount / options.ThreadsPerJob);
        return options.Gpu == 0 ? count : Math.Min(count, options.Devices.Count / options.Gpu);
    }

    private static string[] Detached() => OperatingSystem.IsLinux() && (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(static folder => File.Exists(Path.Combine(folder, "setsid"))) ? ["setsid"] : [];

    private static string Describe(Process process) => string.Create(CultureInfo.InvariantCulture, $"process {process.Id} on {Environment.MachineName}");

    // The system shuts down, or a person ends the process: the jobs end with checkpoints, and none is started.
    private void End(PosixSignalContext context)
    {
        context.Cancel = true;
        _isEnding = true;
    }

    private void Run()
    {
        while (_waiting.Count + _running.Count > 0)
        {
            while (_waiting.Count > 0 && _slots.Count > 0)
            {
                (int index, int restart) = _waiting.Dequeue();
                if (!_isEnding && !_folder.IsStopRequested(index))
                {
                    Begin(index, restart);
                }
            }

            if (_running.Count > 0 && _ended.TryTake(out Child? child, s_poll))
            {
                Finish(child);
            }

            foreach (Child running in _running)
            {
                Watch(running);
            }
        }
    }

    private void Begin(int index, int restart)
    {
        int slot = _slots.Min;
        ProcessStartInfo start = ShellProgram.StartInfo(_options.Command[0], _options.Command.Skip(1).Append(index.ToString(CultureInfo.InvariantCulture)));
        start.WorkingDirectory = _folder.Path;
        foreach (string variable in ShellProgram.ThreadVariables)
        {
            start.Environment[variable] = _options.ThreadsPerJob.ToString(CultureInfo.InvariantCulture);
        }

        if (_options.Gpu > 0)
        {
            start.Environment["CUDA_VISIBLE_DEVICES"] = string.Join(',', _options.Devices.Skip(slot * _options.Gpu).Take(_options.Gpu));
        }

        _folder.WriteStarted(index, _attempt.Number, restart);
        Child child = new(index, restart, slot, ShellProgram.Start(start), _folder.LogOf(index));
        _slots.Remove(slot);
        _running.Add(child);
        child.Watch(_ended.Add);
    }

    private void Finish(Child child)
    {
        int code = child.Complete();
        _running.Remove(child);
        _slots.Add(child.Slot);
        _folder.WriteExit(child.Index, _attempt.Number, child.Restart, code);
        if (code == RunExitCodes.RunAgain && child.Restart < _options.RestartLimit && !_isEnding && !_folder.IsStopRequested(child.Index))
        {
            _waiting.Enqueue((child.Index, child.Restart + 1));
        }

        child.Dispose();
    }

    // Told before its time is up, so that it writes a checkpoint; killed when it is.
    private void Watch(Child child)
    {
        bool isLate = child.Elapsed >= _options.TimeLimit - _options.Notice;
        if (isLate || _isEnding || _folder.IsStopRequested(child.Index))
        {
            child.Stop(() => _folder.StopRun(child.Index));
        }

        if (child.Elapsed >= _options.TimeLimit)
        {
            child.Kill();
        }
    }

    /// <summary>The process of a job.</summary>
    private sealed class Child(int index, int restart, int slot, Process process, string logPath) : IDisposable
    {
        private readonly StreamWriter _log = new(logPath, append: true, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false)) { AutoFlush = true };
        private readonly long _clock = Stopwatch.GetTimestamp();
        private bool _isTold;

        public int Index => index;

        public int Restart => restart;

        public int Slot => slot;

        public TimeSpan Elapsed => Stopwatch.GetElapsedTime(_clock);

        public void Watch(Action<Child> onEnd)
        {
            process.StandardInput.Close();
            process.OutputDataReceived += (_, line) => Write(line.Data);
            process.ErrorDataReceived += (_, line) => Write(line.Data);
            process.BeginOutputReadLine();
            process.BeginErrorReadLine();
            process.Exited += (_, _) => onEnd(this);
            process.EnableRaisingEvents = true;
        }

        /// <summary>Asks it to end, as SIGTERM does; systems without signals have the stop file of a run instead, as soon as there is a run.</summary>
        public void Stop(Action stopRun)
        {
            if (OperatingSystem.IsWindows())
            {
                stopRun();
            }
            else if (!_isTold)
            {
                _isTold = true;
                ShellProgram.Run("sh", "-c", "kill -TERM \"$0\" 2>/dev/null", process.Id.ToString(CultureInfo.InvariantCulture));
            }
        }

        public void Kill() => process.Kill(entireProcessTree: true);

        /// <summary>The exit code, when all of its output is in the log.</summary>
        public int Complete()
        {
            process.WaitForExit();
            return process.ExitCode;
        }

        public void Dispose()
        {
            process.Dispose();
            lock (_log)
            {
                _log.Dispose();
            }
        }

        private void Write(string? line)
        {
            if (line is not null)
            {
                lock (_log)
                {
                    _log.WriteLine(line);
                }
            }
        }
    }
}
