namespace LoKr.Testing;

/// <summary>An empty folder that is removed with everything in it.</summary>
public sealed class TempFolder : IDisposable
{
    public TempFolder() => Path = Directory.CreateTempSubdirectory("lokr-test-").FullName;

    public string Path { get; }

    /// <summary>Full path of something in the folder.</summary>
    public string this[params string[] parts] => System.IO.Path.Combine([Path, .. parts]);

    /// <summary>Writes a text file.</summary>
    public TempFolder Write(string name, string content)
    {
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(this[name])!);
        File.WriteAllText(this[name], content);
        return this;
    }

    /// <summary>Writes a file of bytes.</summary>
    public TempFolder Write(string name, byte[] content)
    {
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(this[name])!);
        File.WriteAllBytes(this[name], content);
        return this;
    }

    /// <summary>Copies files of another folder.</summary>
    public TempFolder Copy(string folder, params string[] names)
    {
        foreach (string name in names)
        {
            File.Copy(System.IO.Path.Combine(folder, name), this[name], overwrite: true);
        }

        return this;
    }

    public void Dispose()
    {
        if (!Directory.Exists(Path))
        {
            return;
        }

        if (OperatingSystem.IsWindows())
        {
            // Windows removes no file that is only to be read.
            foreach (FileInfo file in new DirectoryInfo(Path).EnumerateFiles("*", SearchOption.AllDirectories).Where(static file => file.IsReadOnly))
            {
                file.IsReadOnly = false;
            }
        }

        Directory.Delete(Path, recursive: true);
    }
}
