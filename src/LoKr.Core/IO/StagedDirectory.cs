using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>
/// A folder that appears complete or not at all: written under a temporary name beside its destination, and swapped with it in one step by
/// <see cref="Commit"/>. Disposing without a commit removes what was written. One writer at a time has a destination; it also removes what
/// killed writers of the same destination left.
/// </summary>
public sealed class StagedDirectory : IDisposable
{
    private const string FormerSuffix = "old";

    // One of these directly in a folder shows that this module or a trainer wrote it.
    private static readonly string[] s_marks =
        ["config.json", "model_index.json", "adapter_config.json", "adapter_model.bin", "*.safetensors", "*.safetensors.index.json"];

    // Everything below a folder that belongs to it; links are not followed.
    private static readonly EnumerationOptions s_withoutLinks = new() { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint, IgnoreInaccessible = false };

    private readonly string _destination;
    private readonly bool _force;
    private readonly bool _carryOver;
    private readonly string? _mark;
    private readonly FileLock _lock;
    private bool _done;
    private bool _leave;

    /// <summary>Starts a folder; missing parents are created.</summary>
    /// <param name="destination">Where it will be. Links in it are followed: what they point to is replaced, not the link.</param>
    /// <param name="force">Replace what is there; otherwise an existing, non-empty destination is an error.</param>
    /// <param name="carryOver">Carry over files and folders of the former destination that the new one does not have.</param>
    /// <param name="resume">
    /// Part of the temporary name that later runs for the same destination use again, so that they find what an interrupted one left
    /// (<see cref="LeaveForResume"/>); null or empty for a folder of this run alone.
    /// </param>
    /// <param name="mark">File that shows that a former destination may be replaced; null for those of models and adapters.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.DestinationExists</c>; <c>LoKr.DestinationForeign</c> for a folder that holds neither a model nor an adapter;
    /// <c>LoKr.InvalidArgument</c> for a destination that must not be replaced as a whole (the current folder or one above it, the home
    /// folder, a repository); <c>LoKr.DestinationBusy</c> while another writer has it; <c>LoKr.FileNotWritable</c>.
    /// </exception>
    public StagedDirectory(string destination, bool force, bool carryOver = false, string? resume = null, string? mark = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(destination);
        _force = force;
        _carryOver = carryOver;
        _mark = mark;
        _destination = Resolve(destination);
        CheckDestination(_destination, force, carryOver, mark);
        FileLock? held = null;
        try
        {
            Directory.CreateDirectory(System.IO.Path.GetDirectoryName(_destination)!);
            held = DestinationLock.Take(_destination);
            RemoveLeftovers();
            CheckDestination(_destination, force, carryOver, mark);
            Path = string.IsNullOrEmpty(resume) ? TemporaryName.Beside(_destination, TemporaryName.Suffix) : TemporaryName.Of(_destination, resume);
            CreateFolder(!string.IsNullOrEmpty(resume));
            _lock = held;
            held = null;
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_destination, exception);
        }
        finally
        {
            held?.Dispose();
        }
    }

    /// <summary>Throws for a destination that a writer would refuse. Nothing is created.</summary>
    /// <param name="destination">Where the folder would be.</param>
    /// <param name="force">Whether it may replace what is there.</param>
    /// <param name="carryOver">Whether files of the former destination would be carried over.</param>
    /// <exception cref="LoKrException">As for the constructor, but for locks and permissions.</exception>
    public static void Check(string destination, bool force, bool carryOver = false)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(destination);
        CheckDestination(Resolve(destination), force, carryOver, mark: null);
    }

    /// <summary>Temporary folder to write into.</summary>
    public string Path { get; }

    /// <summary>
    /// Flushes, and swaps the folder with the former one, which is removed afterwards. The modes of the former folder and its files stay, and
    /// so do their owners where this process may set them; files that are new are not open to more users than the former ones were.
    /// </summary>
    /// <exception cref="LoKrException"><c>LoKr.DestinationExists</c> where something appeared there meanwhile, <c>LoKr.FileNotWritable</c>.</exception>
    public void Commit()
    {
        ObjectDisposedException.ThrowIf(_done, this);
        CheckDestination(_destination, _force, _carryOver, _mark);
        try
        {
            FlushFiles();
            if (Directory.Exists(_destination))
            {
                CopyAccess();
                if (_carryOver)
                {
                    CarryOver(_destination, Path);
                }

                FlushFolders();
                NativeFiles.CopyAccess(_destination, Path);
                string former = NativeFiles.TryExchange(Path, _destination) ? Path : SwapByRenames(Path, _destination);
                _done = true;
                NativeFiles.FlushFolder(System.IO.Path.GetDirectoryName(_destination)!);
                RemoveFormer(former);
            }
            else
            {
                FlushFolders();
                Contention.MoveFolder(Path, _destination);
                _done = true;
                NativeFiles.FlushFolder(System.IO.Path.GetDirectoryName(_destination)!);
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_destination, exception);
        }
    }

    /// <summary>Lets <see cref="Dispose"/> leave what was written, for a later run to go on with.</summary>
    public void LeaveForResume() => _leave = true;

    /// <summary>Removes what was written, unless it was committed or is left for a later run, and lets the next writer in.</summary>
    public void Dispose()
    {
        try
        {
            if (!_done && !_leave && Directory.Exists(Path))
            {
                Contention.DeleteFolder(Path);
            }
        }
        finally
        {
            _done = true;
            _lock.Dispose();
        }
    }

    /// <summary>Replaces a folder where the system cannot swap two; the next writer repairs what a kill between the steps leaves.</summary>
    /// <returns>Where the former folder is.</returns>
    internal static string SwapByRenames(string staged, string destination)
    {
        string former = TemporaryName.Beside(destination, FormerSuffix);
        Contention.MoveFolder(destination, former);
        try
        {
            Contention.MoveFolder(staged, destination);
        }
        catch
        {
            Contention.MoveFolder(former, destination);
            throw;
        }

        return former;
    }

    private void RemoveFormer(string former)
    {
        try
        {
            // A kill while it is removed leaves a name that no writer resumes or restores.
            Contention.RemoveFolder(former, owner: _destination);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            // The new folder is complete and in place, so this is not a failure; the next writer tries again.
        }
    }

    // Nobody else writes this destination while the lock is held, so these are of writers that were killed.
    private void RemoveLeftovers()
    {
        string[] former = Leftovers(FormerSuffix);
        if (former.Length == 1 && !System.IO.Path.Exists(_destination))
        {
            // Killed between two renames: this is the destination.
            Contention.MoveFolder(former[0], _destination);
        }

        foreach (string path in Leftovers(TemporaryName.Suffix).Concat(Leftovers(FormerSuffix)))
        {
            Contention.DeleteFolder(path);
        }
    }

    private string[] Leftovers(string suffix) =>
    [
        .. Directory.EnumerateDirectories(System.IO.Path.GetDirectoryName(_destination)!)
            .Where(path => TemporaryName.IsBeside(path, _destination, suffix) && NativeFiles.IsOwnFolder(path)),
    ];

    private void CreateFolder(bool resume)
    {
        if (resume && System.IO.Path.Exists(Path))
        {
            if (!NativeFiles.IsOwnFolder(Path))
            {
                throw new IOException($"'{Path}' is a link, or not a folder of this user. Remove it.");
            }
        }
        else
        {
            NativeFiles.CreateFolder(Path);
        }

        if (!OperatingSystem.IsWindows() && Directory.Exists(_destination))
        {
            // Not open to more users than the folder that it replaces.
            File.SetUnixFileMode(Path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
    }

    private static void CheckDestination(string destination, bool force, bool carryOver, string? mark)
    {
        if (File.Exists(destination))
        {
            throw FileErrors.Exists(destination, $"'{destination}' is a file.", "Name a folder.");
        }

        if (!Directory.Exists(destination))
        {
            return;
        }

        bool isEmpty = !Directory.EnumerateFileSystemEntries(destination).Any();
        if (!isEmpty && !force)
        {
            throw FileErrors.Exists(destination, $"'{destination}' exists and is not empty.");
        }

        string home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        if (FolderPaths.Contains(destination, FolderPaths.Resolve(Directory.GetCurrentDirectory()))
            || (home.Length > 0 && FolderPaths.Contains(destination, FolderPaths.Resolve(home)))
            || (!carryOver && Directory.Exists(System.IO.Path.Combine(destination, ".git"))))
        {
            throw new LoKrException(
                ErrorIds.InvalidArgument,
                LoKrErrorKind.InvalidArgument,
                $"'{destination}' is the current folder or the home folder, one above it, or a repository; it is not replaced as a whole.",
                "Name a folder of its own.")
            {
                Target = destination,
            };
        }

        if (!isEmpty && !carryOver && !Array.Exists(mark is null ? s_marks : [mark], file => Directory.EnumerateFiles(destination, file).Any()))
        {
            throw new LoKrException(
                ErrorIds.DestinationForeign,
                LoKrErrorKind.AlreadyExists,
                $"'{destination}' holds {(mark is null ? "neither a model nor an adapter" : $"no {mark}")}, so it is not replaced.",
                "Choose another destination, or empty the folder first.")
            {
                Target = destination,
            };
        }
    }

    // What the user has in the former folder gets a second name in the new one, so that a kill at any moment loses neither.
    private static void CarryOver(string former, string staged)
    {
        foreach (FileSystemInfo entry in new DirectoryInfo(former).EnumerateFileSystemInfos())
        {
            string target = System.IO.Path.Combine(staged, entry.Name);
            if (new FileInfo(target).LinkTarget is not null || System.IO.Path.Exists(target))
            {
                continue;
            }

            if (entry.LinkTarget is { } link)
            {
                _ = entry is DirectoryInfo ? Directory.CreateSymbolicLink(target, link) : File.CreateSymbolicLink(target, link);
            }
            else if (entry is DirectoryInfo)
            {
                NativeFiles.CreateFolder(target);
                CarryOver(entry.FullName, target);
                NativeFiles.CopyAccess(entry.FullName, target);
            }
            else
            {
                NativeFiles.LinkOrCopy(entry.FullName, target);
            }
        }
    }

    private void CopyAccess()
    {
        if (OperatingSystem.IsWindows())
        {
            return;
        }

        UnixFileMode[] modes = [.. Directory.EnumerateFiles(_destination, "*", s_withoutLinks).Select(File.GetUnixFileMode)];
        UnixFileMode widest = modes.Length == 0 ? (UnixFileMode)0x1ff : modes.Aggregate(UnixFileMode.UserRead | UnixFileMode.UserWrite, static (all, mode) => all | mode);
        foreach (string file in Directory.EnumerateFiles(Path, "*", s_withoutLinks))
        {
            string former = System.IO.Path.Combine(_destination, System.IO.Path.GetRelativePath(Path, file));
            if (File.Exists(former))
            {
                NativeFiles.CopyAccess(former, file);
            }
            else
            {
                NativeFiles.CopyOwner(_destination, file);
                File.SetUnixFileMode(file, File.GetUnixFileMode(file) & widest);
            }
        }

        foreach (string folder in Directory.EnumerateDirectories(Path, "*", s_withoutLinks))
        {
            string former = System.IO.Path.Combine(_destination, System.IO.Path.GetRelativePath(Path, folder));
            NativeFiles.CopyAccess(Directory.Exists(former) ? former : _destination, folder);
        }
    }

    // Files written through AtomicFile are on the disk already; this is for all others.
    private void FlushFiles()
    {
        foreach (string file in Directory.EnumerateFiles(Path, "*", SearchOption.AllDirectories))
        {
            using FileStream stream = new(file, FileMode.Open, FileAccess.ReadWrite, FileShare.Read);
            stream.Flush(flushToDisk: true);
        }
    }

    private void FlushFolders()
    {
        foreach (string folder in Directory.EnumerateDirectories(Path, "*", s_withoutLinks).Append(Path))
        {
            NativeFiles.FlushFolder(folder);
        }
    }

    private static string Resolve(string destination)
    {
        string full = FolderPaths.Resolve(destination);
        if (System.IO.Path.GetDirectoryName(full) is null)
        {
            throw new LoKrException(
                ErrorIds.InvalidArgument,
                LoKrErrorKind.InvalidArgument,
                $"'{destination}' is the root of a drive.",
                "Name a folder of its own.")
            {
                Target = destination,
            };
        }

        return full;
    }
}
