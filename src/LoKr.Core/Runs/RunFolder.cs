using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.Runs;

/// <summary>
/// The files of a run folder, and what can be done with one from outside:
/// <c>run.json</c> (<see cref="LoKrRun"/>), <c>config.json</c> (configuration and options), <c>log.jsonl</c> (<see cref="RunLog"/>),
/// <c>events.out.tfevents.*</c> (<see cref="EventFile"/>), <c>loss.png</c> and <c>report.md</c> (<see cref="RunReport"/>),
/// <c>checkpoints/000400/</c> (<see cref="RunCheckpoints"/>), <c>adapter/</c> (the result, as PEFT stores it),
/// <c>gate.json</c> (<see cref="LoKrGateResult"/>), <c>registered.jsonl</c> (the versions that the result became).
/// </summary>
public sealed class RunFolder
{
    private const string StopFile = "stop";
    private const string LockFile = "run.lock";
    private const string RemovedSuffix = "old";

    private static readonly JsonErrors s_errors = new(ErrorIds.RunInvalid, ErrorIds.RunInvalid, "Restore the file from a copy, or begin a new run.");

    /// <summary>Names a folder; nothing is read or written.</summary>
    /// <param name="path">The run folder.</param>
    public RunFolder(string path)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        Path = System.IO.Path.GetFullPath(path);
    }

    /// <summary>Full path.</summary>
    public string Path { get; }

    /// <summary>The state of the run.</summary>
    public string StateFile => Of("run.json");

    /// <summary>The configuration of the adapter and the options of the training.</summary>
    public string ConfigFile => Of("config.json");

    /// <summary>One line for each step.</summary>
    public string LogFile => Of("log.jsonl");

    /// <summary>The course of the loss as a picture, written at the end of a run.</summary>
    public string ChartFile => Of("loss.png");

    /// <summary>The report, written at the end of a run.</summary>
    public string ReportFile => Of("report.md");

    /// <summary>The checkpoints.</summary>
    public string CheckpointFolder => Of("checkpoints");

    /// <summary>The adapter of a finished run, as PEFT stores it.</summary>
    public string AdapterFolder => Of("adapter");

    /// <summary>The verdict of the gate on the result, where one was asked for.</summary>
    public string GateFile => Of("gate.json");

    private string RegisteredFile => Of("registered.jsonl");

    /// <summary>Whether there is a run in the folder.</summary>
    public bool Exists => File.Exists(StateFile);

    /// <summary>Whether the folder holds files, but no run, nor what is left of one.</summary>
    internal bool IsForeign => !Exists && !IsHalfRemoved && Directory.Exists(Path) && Directory.EnumerateFileSystemEntries(Path).Any(static entry => System.IO.Path.GetFileName(entry) is not LockFile);

    /// <summary>Whether a process was killed while it removed the run: the state is there under another name.</summary>
    internal bool IsHalfRemoved => !Exists && Directory.Exists(Path) && Directory.EnumerateFiles(Path, ".*").Any(IsRemovedState);

    /// <summary>Whether another process has asked the run to end.</summary>
    internal bool IsStopRequested => File.Exists(Of(StopFile));

    /// <summary>Reads the state of a run. A run whose process is gone is <see cref="RunState.Interrupted"/>.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunNotFound</c>, <c>LoKr.RunInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public LoKrRun Read()
    {
        if (!Exists)
        {
            throw new LoKrException(ErrorIds.RunNotFound, LoKrErrorKind.NotFound, $"'{Path}' has no run.", "Check the path.") { Target = Path };
        }

        LoKrRun run = JsonRecords.Read<LoKrRun>(StateFile, s_errors) with { Path = Path };
        return run.State is RunState.Running && !RunLock.IsHeld(Of(LockFile)) ? run with { State = RunState.Interrupted, SecondsRemaining = null } : run;
    }

    /// <summary>The adapter of a run that ended with a result.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunNotFound</c>: there is no run, or it has no result yet; <c>LoKr.RunInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public string RequireResult()
    {
        LoKrRun run = Read();
        return run.IsFinished && Directory.Exists(AdapterFolder) ? AdapterFolder : throw new LoKrException(
            ErrorIds.RunNotFound, LoKrErrorKind.InvalidOperation, $"The run {run.Id} in '{Path}' has no result: it is {run.State}.", "Let it finish first.") { Target = Path };
    }

    /// <summary>Keeps the verdict of the gate on the result of the run, also in its report.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunNotFound</c>, <c>LoKr.RunInvalid</c>, <c>LoKr.RunBusy</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public void WriteGate(LoKrGateResult gate)
    {
        LoKrRun run = Read();
        using RunLock held = Lock();
        JsonRecords.Write(GateFile, gate);
        RunReport.Write(this, run);
    }

    /// <summary>The verdict of the gate, or null.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public LoKrGateResult? ReadGate() => File.Exists(GateFile) ? JsonRecords.Read<LoKrGateResult>(GateFile, s_errors) : null;

    /// <summary>The versions that the result of the run became, in any registry, in the order in which they were registered.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    internal IReadOnlyList<RegisteredVersion> ReadRegistered() => JsonRecords.ReadLines<RegisteredVersion>(RegisteredFile, s_errors);

    /// <summary>Notes, once, that the result of the run became a version, so that a report finds it in a registry of any size.</summary>
    internal void NoteRegistered(RegisteredVersion version)
    {
        if (ReadRegistered().Contains(version))
        {
            return;
        }

        try
        {
            JsonRecords.Append(RegisteredFile, version);
        }
        catch (Exception exception) when (FileErrors.IsProtected(exception))
        {
            // A run of somebody else may be registered without the right to write there; its report then does not name the version.
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(RegisteredFile, exception);
        }
    }

    /// <summary>Asks the process that works on the run to end after its step, from any process on any machine that shares the folder.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunNotFound</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public void RequestStop()
    {
        _ = Read();
        AtomicFile.WriteText(Of(StopFile), FileLock.DescribeHolder() + "\n");
    }

    /// <summary>Removes a run that no process works on, or what is left of one whose removal was killed.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunNotFound</c>, <c>LoKr.RunBusy</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public void Remove()
    {
        RequireRemovable();
        using (Lock())
        {
            Clear();
        }

        Try(Contention.DeleteEmptyFolder);
    }

    private void RequireRemovable()
    {
        if (!IsHalfRemoved)
        {
            _ = Read();
        }
    }

    /// <summary>Throws what <see cref="Remove"/> would throw for a run that a process works on, and changes nothing.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunNotFound</c>, <c>LoKr.RunBusy</c>.</exception>
    public void CheckRemove()
    {
        RequireRemovable();
        RunLock.CheckFree(Path, Of(LockFile));
    }

    /// <summary>Takes the right to work on the run.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunBusy</c>, <c>LoKr.FileNotWritable</c>.</exception>
    internal RunLock Lock()
    {
        FileSystem.CreateFolder(Path);
        return RunLock.Take(Path, Of(LockFile));
    }

    /// <summary>
    /// Removes everything that belongs to a run. The state gets a name that is not read first, and goes last: a kill meanwhile leaves no run,
    /// and a folder that is known for what it is.
    /// </summary>
    internal void Clear() => Try(path =>
    {
        if (File.Exists(StateFile))
        {
            Contention.MoveFile(StateFile, TemporaryName.Beside(StateFile, RemovedSuffix));
        }

        string[] files = [.. Directory.EnumerateFiles(path).Where(static file => System.IO.Path.GetFileName(file) is not LockFile)];
        foreach (string folder in Directory.EnumerateDirectories(path).ToArray())
        {
            Contention.DeleteFolder(folder);
        }

        foreach (string file in files.OrderBy(IsRemovedState))
        {
            Contention.DeleteFile(file);
        }
    });

    /// <summary>Removes the unfinished files of killed processes. The caller holds the lock, so that nobody else writes; but anybody may ask for an end.</summary>
    internal void RemoveLeftovers() => AtomicFile.RemoveLeftoversOfOwn(StateFile, ConfigFile, ChartFile, ReportFile, GateFile);

    /// <summary>Forgets a request to end, since the run goes on.</summary>
    internal void ForgetStop() => Try(_ => Contention.DeleteFile(Of(StopFile)));

    internal void Write(LoKrRun run) => JsonRecords.Write(StateFile, run);

    /// <summary>Refuses to write on a disk that is nearly full.</summary>
    /// <exception cref="LoKrException"><c>LoKr.DiskSpaceLow</c>.</exception>
    internal void RequireSpace(long minimum)
    {
        if (minimum <= 0)
        {
            return;
        }

        long free = Try(static path => new DriveInfo(path).AvailableFreeSpace);
        if (free < minimum)
        {
            throw new LoKrException(ErrorIds.DiskSpaceLow, LoKrErrorKind.InputOutput,
                string.Create(CultureInfo.InvariantCulture, $"The disk of '{Path}' has {free >> 20} MiB of free space; {minimum >> 20} MiB have to stay free."),
                "Free some space and run again: the run goes on from its last checkpoint.") { Target = Path };
        }
    }

    internal string Of(string name) => System.IO.Path.Combine(Path, name);

    private bool IsRemovedState(string file) => TemporaryName.IsBeside(file, StateFile, RemovedSuffix);

    private void Try(Action<string> action) => Try(path =>
    {
        action(path);
        return 0;
    });

    private T Try<T>(Func<string, T> action)
    {
        try
        {
            return action(Path);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(Path, exception);
        }
    }
}

/// <summary>
/// The right to work on a run: a <see cref="FileLock"/> in its folder, with a count that rises while the holder lives. Where the file
/// system does not share locks between machines, another machine sees by the count whether the holder is alive; no clock is compared.
/// </summary>
internal sealed class RunLock : IDisposable
{
    private readonly FileLock _file;
    private readonly Timer _timer;
    private readonly string _holder = FileLock.DescribeHolder();
    private readonly System.Threading.Lock _gate = new();
    private long _beats;
    private bool _released;

    private RunLock(FileLock file)
    {
        _file = file;
        Beat();
        _timer = new Timer(_ => TryBeat(), null, Interval, Interval);
    }

    /// <summary>Time between two counts.</summary>
    internal static TimeSpan Interval { get; } = TimeSpan.FromSeconds(5);

    /// <summary>Takes the lock; waits a few counts where a holder on another machine left it.</summary>
    /// <param name="folder">The run folder, for messages.</param>
    /// <param name="path">The file.</param>
    /// <exception cref="LoKrException"><c>LoKr.RunBusy</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public static RunLock Take(string folder, string path) => Take(folder, path, Interval * 3);

    /// <inheritdoc cref="Take(string, string)"/>
    internal static RunLock Take(string folder, string path, TimeSpan patience)
    {
        FileLock? file = null;
        try
        {
            file = FileLock.Take(path, holder => Busy(folder, holder));
            string former = file.Former;
            if (former.Length > 0 && !IsOfThisMachine(former))
            {
                // A dead holder's count stands still. The lock itself may be worth nothing between machines.
                Thread.Sleep(patience);
                if (file.Read() != former)
                {
                    throw Busy(folder, FileLock.HolderIn(former));
                }
            }

            RunLock taken = new(file);
            file = null;
            return taken;
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(folder, exception);
        }
        finally
        {
            file?.Dispose();
        }
    }

    /// <summary>Throws where a process works on the run.</summary>
    /// <param name="folder">The run folder, for messages.</param>
    /// <param name="path">The file.</param>
    /// <exception cref="LoKrException"><c>LoKr.RunBusy</c>.</exception>
    public static void CheckFree(string folder, string path)
    {
        if (IsHeld(path))
        {
            throw Busy(folder, FileLock.HolderIn(FileLock.Peek(path)));
        }
    }

    /// <summary>Whether a process works on the run; on another machine it is one that counted within the last minute.</summary>
    public static bool IsHeld(string path)
    {
        if (!File.Exists(path))
        {
            return false;
        }

        string text = FileLock.Peek(path);
        if (text.Length > 0 && !IsOfThisMachine(text))
        {
            return DateTime.UtcNow - File.GetLastWriteTimeUtc(path) < TimeSpan.FromMinutes(1);
        }

        try
        {
            using SafeFileHandle file = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
            return false;
        }
        catch (FileNotFoundException)
        {
            return false;
        }
        catch (IOException)
        {
            return true;
        }
        catch (UnauthorizedAccessException)
        {
            // Of another user: its state says that it runs, and nothing here can tell otherwise.
            return true;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _timer.Dispose();
        lock (_gate)
        {
            _released = true;
            _file.Dispose();
        }
    }

    private static bool IsOfThisMachine(string holder) => holder.Contains($" on {Environment.MachineName}, since ", StringComparison.Ordinal);

    // The holder works on, and counts the next time: it is the one who learns, by its own files, that nothing can be written.
    private void TryBeat()
    {
        try
        {
            Beat();
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
        }
    }

    private void Beat()
    {
        lock (_gate)
        {
            if (!_released)
            {
                _file.Write(string.Create(CultureInfo.InvariantCulture, $"{_holder}\n{++_beats}\n"));
            }
        }
    }

    private static LoKrException Busy(string folder, string holder) => new(
        ErrorIds.RunBusy, LoKrErrorKind.InvalidOperation, $"{char.ToUpperInvariant(holder[0])}{holder[1..]} works on the run '{folder}'.",
        "Wait until it has ended, or stop it.")
    {
        Target = folder,
    };
}

/// <summary>A version that the result of a run became.</summary>
/// <param name="Name">Name of the adapter in the registry.</param>
/// <param name="Version">Number of the version.</param>
internal sealed record RegisteredVersion(string Name, int Version);
