using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>
/// A large file that appears complete or not at all: written in a hidden folder beside its destination, and renamed by <see cref="Commit"/>. The
/// folder has a name that later runs for the same destination use again, so that they find what an interrupted one left. One writer at a time
/// has a destination.
/// </summary>
internal sealed class StagedFile : IDisposable
{
    private readonly string _destination;
    private readonly bool _force;
    private readonly FileLock _lock;
    private bool _done;
    private bool _leave;

    /// <summary>Takes the destination and makes the folder; missing parents are created.</summary>
    /// <param name="destination">Full path of the file.</param>
    /// <param name="force">Replace an existing file.</param>
    /// <param name="resume">Part of the folder's name.</param>
    /// <exception cref="LoKrException"><c>LoKr.DestinationExists</c>, <c>LoKr.DestinationBusy</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public StagedFile(string destination, bool force, string resume)
    {
        (_destination, _force) = (destination, force);
        Folder = TemporaryName.Of(destination, resume);
        FileSystem.CreateFolder(Path.GetDirectoryName(destination)!);
        FileLock? held = null;
        try
        {
            held = DestinationLock.Take(destination);
            Check();
            if (!Path.Exists(Folder))
            {
                NativeFiles.CreateFolder(Folder);
            }
            else if (!NativeFiles.IsOwnFolder(Folder))
            {
                throw new IOException($"'{Folder}' is a link, or not a folder of this user. Remove it.");
            }

            _lock = held;
            held = null;
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(destination, exception);
        }
        finally
        {
            held?.Dispose();
        }
    }

    /// <summary>The folder to write into.</summary>
    public string Folder { get; }

    /// <summary>Renames a file of the folder, which was flushed, to the destination, and removes the folder. A file that is replaced leaves its mode.</summary>
    /// <param name="name">Name of the file in the folder.</param>
    /// <exception cref="LoKrException"><c>LoKr.DestinationExists</c> where something appeared there meanwhile, <c>LoKr.FileNotWritable</c>.</exception>
    public void Commit(string name)
    {
        string written = Path.Combine(Folder, name);
        try
        {
            Check();
            if (File.Exists(_destination))
            {
                NativeFiles.CopyAccess(_destination, written);
            }

            Contention.MoveFile(written, _destination);
            _done = true;
            NativeFiles.FlushFolder(Path.GetDirectoryName(_destination)!);
            Contention.DeleteFolder(Folder);
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
            if (!_done && !_leave && Directory.Exists(Folder))
            {
                Contention.DeleteFolder(Folder);
            }
        }
        finally
        {
            _done = true;
            _lock.Dispose();
        }
    }

    private void Check()
    {
        if (Directory.Exists(_destination))
        {
            throw FileErrors.Exists(_destination, $"'{_destination}' is a folder.", "Name a file.");
        }

        FileSystem.CheckReplaceable(_destination, _force);
    }
}
