namespace LoKr.Core.Formats;

/// <summary>Writes a file to a temporary name in the same folder, flushes it to the disk and renames it.</summary>
public static class AtomicFile
{
    /// <summary>Writes a file through a stream.</summary>
    public static void Write(string path, Action<FileStream> write) => throw new NotImplementedException();

    /// <summary>Writes UTF-8 text without a byte order mark.</summary>
    public static void WriteText(string path, string text) => throw new NotImplementedException();
}
