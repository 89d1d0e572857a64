namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>Module names of a base model from the headers of its safetensors files; no weights are read.</summary>
internal static class BaseModelNames
{
    private const string LdmUnet = "model.diffusion_model.";

    private static readonly string[] s_baseNames = ["model", "diffusion_pytorch_model"];

    private static readonly (string Folder, AdapterComponent Component)[] s_components =
        [.. AdapterLayouts.Prefixes(AdapterLayout.Diffusers).Select(static entry => (entry.Prefix[..^1], entry.Component))];

    /// <summary>Reads a model folder, a pipeline folder or one file.</summary>
    /// <exception cref="LoKrException">There are no weights, or they cannot be read.</exception>
    public static ModuleNameIndex Read(string path)
    {
        Dictionary<AdapterComponent, IReadOnlyList<KnownModule>> modules = [];
        if (File.Exists(path))
        {
            using SafetensorsReader reader = SafetensorsReader.Open(path);
            IReadOnlyDictionary<string, SafetensorsEntry> entries = reader.Entries;
            bool isCheckpoint = entries.Keys.Any(static name => name.StartsWith(LdmUnet, StringComparison.Ordinal));
            modules[isCheckpoint ? AdapterComponent.Unet : AdapterComponent.Model] = Modules(entries.Values, isCheckpoint ? LdmUnet : "");
            return ModuleNameIndex.FromFiles(path, modules);
        }

        foreach ((string folder, AdapterComponent component) in s_components)
        {
            if (Directory.Exists(Path.Combine(path, folder)))
            {
                modules[component] = Folder(Path.Combine(path, folder));
            }
        }

        if (modules.Count == 0)
        {
            modules[AdapterComponent.Model] = Folder(path);
        }

        return ModuleNameIndex.FromFiles(path, modules);
    }

    private static KnownModule[] Folder(string path)
    {
        string baseName = s_baseNames.FirstOrDefault(name => File.Exists(Path.Combine(path, $"{name}.safetensors")) || File.Exists(Path.Combine(path, $"{name}.safetensors.index.json"))) ?? s_baseNames[0];
        using CheckpointReader reader = CheckpointReader.Open(path, baseName);
        return Modules(reader.Entries.Values, "");
    }

    private static KnownModule[] Modules(IEnumerable<SafetensorsEntry> entries, string prefix)
    {
        const string Weight = ".weight";
        return [.. entries.Where(entry => entry.Name.StartsWith(prefix, StringComparison.Ordinal) && entry.Name.EndsWith(Weight, StringComparison.Ordinal))
            .Select(entry => new KnownModule(entry.Name[prefix.Length..^Weight.Length], entry.Shape))];
    }
}
