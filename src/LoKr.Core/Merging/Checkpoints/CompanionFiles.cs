using LoKr.Core.IO;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// The files beside the weights that are copied: configuration, tokenizer, code. Other forms of the weights are left out, because the merge
/// does not change them, and so is the model card, which describes the base model.
/// </summary>
internal static class CompanionFiles
{
    private static readonly HashSet<string> s_weights = new(
        [".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".onnx", ".gguf", ".ggml", ".tflite", ".mlmodel", ".ot", ".npz"],
        StringComparer.OrdinalIgnoreCase);

    /// <summary>Files to copy, as paths relative to the folder.</summary>
    public static IReadOnlyList<string> List(string folder) =>
    [
        .. Directory.EnumerateFiles(folder).Select(static path => Path.GetFileName(path)).Where(IsCompanion).Order(StringComparer.Ordinal),
        .. Directory.EnumerateDirectories(folder).Where(static path => !Path.GetFileName(path).StartsWith('.')).SelectMany(Inside).Select(path => Path.GetRelativePath(folder, path)).Order(StringComparer.Ordinal),
    ];

    /// <summary>Copies the content of a file, not its permissions: the copy of a read-only file would be read-only too.</summary>
    public static void Copy(string source, string destination)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(destination)!);
        using FileStream content = File.OpenRead(source);
        AtomicFile.Write(destination, content.CopyTo);
    }

    // A folder beside the weights belongs to them (1_Pooling) unless it has weights of its own.
    private static string[] Inside(string folder)
    {
        EnumerationOptions options = new() { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint };
        string[] files = [.. Directory.EnumerateFiles(folder, "*", options)];
        return Array.Exists(files, static path => s_weights.Contains(Path.GetExtension(path))) ? [] : files;
    }

    private static bool IsCompanion(string name) => !name.StartsWith('.')
        && !s_weights.Contains(Path.GetExtension(name))
        && !name.EndsWith(".index.json", StringComparison.OrdinalIgnoreCase)
        && !name.StartsWith("adapter_", StringComparison.OrdinalIgnoreCase)
        && !name.Equals("README.md", StringComparison.OrdinalIgnoreCase);
}
