using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>
/// A folder that appears complete or not at all: written under a temporary name beside its destination and renamed by <see cref="Commit"/>.
/// Disposing without a commit removes what was written.
/// </summary>
public sealed class StagedDirectory : IDisposable
{
    private readonly string _destination;
    private readonly bool _force;
    private readonly bool _carryOver;
    private bool _done;
    private bool _leave;

    /// <summary>Starts a folder; missing parents are created.</summary>
    /// <param name="destination">Where it will be.</param>
    /// <param name="force">Replace what is there; otherwise an existing, non-empty destination is an error.</param>
    /// <param name="carryOver">Carry over files and folders of the former destination that the new one does not have.</param>
    /// <param name="resume">
    /// Part of the temporary name that later runs for the same destination use again, so that they find what an interrupted one left
    /// (<see cref="LeaveForResume"/>); null for a folder of this run alone.
    /// </param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.DestinationExists</c>; <c>LoKr.InvalidArgument</c> for a destination that must not be replaced as a whole
    /// (the current folder or one above it, a repository); <c>LoKr.FileNotWritable</c>.
    /// </exception>
    public StagedDirectory(string destination, bool force, bool carryOver = false, string? resume = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(destination);
        _force = force;
        _carryOver = carryOver;
        _destination = Resolve(destination);
        CheckDestination();
        string parent = System.IO.Path.GetDirectoryName(_destination)!;
        try
        {
            Directory.CreateDirectory(parent);
            Path = resume is null ? TemporaryName.Beside(_destination, "tmp") : System.IO.Path.Combine(parent, $".{System.IO.Path.GetFileName(_destination)}.{resume}");
            Directory.CreateDirectory(Path);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_destination, exception);
        }
    }

    /// <summary>Temporary folder to write into.</summary>
    public string Path { get; }

    /// <summary>Flushes and renames; the former folder, if any, is removed only after the new one is in place.</summary>
    /// <exception cref="LoKrException"><c>LoKr.DestinationExists</c> where something appeared there meanwhile, <c>LoKr.FileNotWritable</c>.</exception>
    public void Commit()
    {
        ObjectDisposedException.ThrowIf(_done, this);
        CheckDestination();
        try
        {
            FlushFiles();
            string? former = null;
            if (Directory.Exists(_destination))
            {
                former = TemporaryName.Beside(_destination, "old");
                Directory.Move(_destination, former);
            }

            try
            {
                Directory.Move(Path, _destination);
                _done = true;
            }
            catch when (former is not null)
            {
                Directory.Move(former, _destination);
                throw;
            }

            if (former is not null)
            {
                if (_carryOver)
                {
                    CarryOver(former);
                }

                Directory.Delete(former, recursive: true);
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_destination, exception);
        }
    }

    /// <summary>Lets <see cref="Dispose"/> leave what was written, for a later run to go on with.</summary>
    public void LeaveForResume() => _leave = true;

    /// <summary>Removes what was written, unless it was committed or is left for a later run.</summary>
    public void Dispose()
    {
        if (!_done && !_leave && Directory.Exists(Path))
        {
            Directory.Delete(Path, recursive: true);
        }

        _done = true;
    }

    private void CheckDestination()
    {
        if (File.Exists(_destination))
        {
            throw FileErrors.Exists(_destination, $"'{_destination}' is a file.", "Name a folder.");
        }

        if (!Directory.Exists(_destination))
        {
            return;
        }

        if (Directory.EnumerateFileSystemEntries(_destination).Any() && !_force)
        {
            throw FileErrors.Exists(_destination, $"'{_destination}' exists and is not empty.");
        }

        StringComparison comparison = OperatingSystem.IsLinux() ? StringComparison.Ordinal : StringComparison.OrdinalIgnoreCase;
        string current = Directory.GetCurrentDirectory() + System.IO.Path.DirectorySeparatorChar;
        if (current.StartsWith(_destination + System.IO.Path.DirectorySeparatorChar, comparison)
            || (!_carryOver && Directory.Exists(System.IO.Path.Combine(_destination, ".git"))))
        {
            throw new LoKrException(
                ErrorIds.InvalidArgument,
                LoKrErrorKind.InvalidArgument,
                $"'{_destination}' is the current folder, one above it, or a repository; it is not replaced as a whole.",
                "Name a folder of its own.")
            {
                Target = _destination,
            };
        }
    }

    private void CarryOver(string former)
    {
        foreach (string path in Directory.EnumerateFileSystemEntries(former).ToArray())
        {
            string target = System.IO.Path.Combine(_destination, System.IO.Path.GetFileName(path));
            if (!System.IO.Path.Exists(target))
            {
                Directory.Move(path, target);
            }
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

    // A link to a folder is followed: what it points to is replaced, not the link.
    private static string Resolve(string destination)
    {
        string full = System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(destination));
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

        FileSystemInfo? target = Directory.Exists(full) ? Directory.ResolveLinkTarget(full, returnFinalTarget: true) : null;
        return target is null ? full : System.IO.Path.TrimEndingDirectorySeparator(target.FullName);
    }
}
