namespace LoKr.Models.Tests.Tokenization;

/// <summary>A folder that goes with the test.</summary>
internal sealed class TempFolder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("lokr-tokenizer-").FullName;

    public TempFolder Write(string name, string content)
    {
        File.WriteAllText(System.IO.Path.Combine(Path, name), content);
        return this;
    }

    public TempFolder Write(string name, byte[] content)
    {
        File.WriteAllBytes(System.IO.Path.Combine(Path, name), content);
        return this;
    }

    public TempFolder Copy(string folder, params string[] names)
    {
        foreach (string name in names)
        {
            Write(name, File.ReadAllBytes(System.IO.Path.Combine(folder, name)));
        }

        return this;
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
