namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>Finds the file of weights, and the configuration beside it, that a path stands for.</summary>
internal static class AdapterFileLocator
{
    /// <summary>The file of weights, and adapter_config.json where it belongs to it.</summary>
    public static (string Weights, string? Config) Find(string path)
    {
        if (!Directory.Exists(path))
        {
            string config = Path.Combine(Path.GetDirectoryName(path) ?? "", PeftAdapterFolder.ConfigFile);
            return (path, Path.GetFileName(path) == PeftAdapterFolder.WeightsFile && File.Exists(config) ? config : null);
        }

        string weights = Path.Combine(path, PeftAdapterFolder.WeightsFile);
        string peft = Path.Combine(path, PeftAdapterFolder.ConfigFile);
        if (File.Exists(peft))
        {
            if (!File.Exists(weights))
            {
                PickleGuard.ThrowIfOnlyPickles(path, "adapter_model");
                throw Missing(weights, "Name a folder that PEFT's save_pretrained or Export-LoKrAdapter wrote.");
            }

            return (weights, peft);
        }

        string diffusers = Path.Combine(path, AdapterFile.DiffusersFile);
        if (File.Exists(diffusers))
        {
            return (diffusers, null);
        }

        string[] files = Directory.GetFiles(path, "*.safetensors");
        if (files.Length == 1)
        {
            return (files[0], null);
        }

        if (files.Length == 0)
        {
            PickleGuard.ThrowIfOnlyPickles(path, "adapter_model", "pytorch_lora_weights");
        }

        string[] inside = [.. Directory.EnumerateDirectories(path)
            .Where(static folder => File.Exists(Path.Combine(folder, PeftAdapterFolder.ConfigFile)))
            .Select(static folder => Path.GetFileName(folder))
            .Order(StringComparer.Ordinal)];
        throw Missing(peft, files.Length > 1 ? $"The folder has {files.Length} safetensors files; name one of them."
            : inside.Length > 0 ? $"There are adapters in its folders: {string.Join(", ", inside)}."
            : "Name an adapter folder or a safetensors file.");
    }

    private static LoKrException Missing(string path, string advice) =>
        new(ErrorIds.AdapterFileNotFound, LoKrErrorKind.NotFound, $"There is no '{path}'.", advice) { Target = path };
}
