using LoKr.Core.Errors;
using LoKr.Core.Gguf;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts.Names;

/// <summary>Module names of a base model from the headers of its files, safetensors or GGUF; no weights are read.</summary>
internal static class BaseModelNames
{
    /// <summary>The names of a model in memory, or of the files of one; null where neither is given.</summary>
    /// <param name="model">A model in memory, or null.</param>
    /// <param name="path">Folder or file of a base model, or null.</param>
    /// <exception cref="LoKrException">There are no weights, or they cannot be read.</exception>
    public static ModuleNameIndex? Find(LoKrModel? model, string? path) => model is not null ? ModuleNameIndex.FromModule(model.Module, model.Name)
        : path is not null ? Read(Path.GetFullPath(path))
        : null;

    /// <summary>Reads a model folder, a pipeline folder or one file.</summary>
    /// <exception cref="LoKrException">There are no weights, or they cannot be read.</exception>
    private static ModuleNameIndex Read(string path)
    {
        Dictionary<AdapterComponent, IReadOnlyList<KnownModule>> modules = [];
        if (GgufReader.IsGguf(path))
        {
            using GgufModel model = GgufModel.Open(path);
            modules[AdapterComponent.Model] = Modules(model.Entries.Values, "");
            return ModuleNameIndex.FromFiles(path, modules);
        }

        if (File.Exists(path))
        {
            using SafetensorsReader reader = SafetensorsReader.Open(path);
            SingleFile(reader.Entries.Values, modules);
            return ModuleNameIndex.FromFiles(path, modules);
        }

        foreach ((string folder, AdapterComponent component) in AdapterComponents.ByFolder)
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

    /// <summary>Sorts the tensors of a single file by the parts of its pipeline.</summary>
    private static void SingleFile(IEnumerable<SafetensorsEntry> entries, Dictionary<AdapterComponent, IReadOnlyList<KnownModule>> modules)
    {
        SafetensorsEntry[] all = [.. entries];
        foreach (ModelPart part in ModelRecognizer.OfCheckpoint(all.Select(static entry => entry.Name))?.Candidates[0].Parts ?? [])
        {
            // The longest prefix under which the file has names of the part.
            foreach (string prefix in part.CheckpointPrefixes.OrderByDescending(static prefix => prefix.Length))
            {
                KnownModule[] found = [.. Modules(all, prefix).Where(module => prefix.Length > 0 || part.Find(SplitName.Of(module.Name), isUnderscored: false).Any())];
                if (found.Length > 0 && !modules.ContainsKey(part.Component))
                {
                    modules[part.Component] = found;
                }
            }
        }

        if (modules.Count == 0)
        {
            modules[AdapterComponent.Model] = Modules(all, "");
        }
    }

    private static KnownModule[] Folder(string path)
    {
        using CheckpointReader reader = CheckpointReader.OpenFolder(path);
        return Modules(reader.Entries.Values, "");
    }

    private static KnownModule[] Modules(IEnumerable<SafetensorsEntry> entries, string prefix)
    {
        const string Weight = ".weight";
        return [.. entries.Where(entry => entry.Name.StartsWith(prefix, StringComparison.Ordinal) && entry.Name.EndsWith(Weight, StringComparison.Ordinal))
            .Select(entry => new KnownModule(entry.Name[prefix.Length..^Weight.Length], entry.Shape))];
    }
}
