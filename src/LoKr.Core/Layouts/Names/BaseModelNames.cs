using LoKr.Core.Errors;
using LoKr.Core.Gguf;
using LoKr.Core.Merging.Checkpoints;
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

    /// <summary>The modules of a model whose files are open.</summary>
    public static ModuleNameIndex Of(MergeBase model)
    {
        if (model.Parts is [{ Folder: "" } whole])
        {
            return model.IsFile ? SingleFile(model.Path, whole.Traits.Entries.Values)
                : ModuleNameIndex.FromFiles(model.Path, isSingleFile: false, [new(AdapterComponent.Model, null, Modules(whole.Traits.Entries.Values, "", ""), whole.Traits.Aliases)]);
        }

        return ModuleNameIndex.FromFiles(model.Path, isSingleFile: false,
        [
            .. model.Parts.Where(static part => AdapterComponents.ByFolder.ContainsKey(part.Folder))
                .Select(static part => new StoredComponent(AdapterComponents.ByFolder[part.Folder], null, Modules(part.Traits.Entries.Values, "", part.Folder), part.Traits.Aliases)),
        ]);
    }

    /// <summary>Reads a model folder, a pipeline folder or one file.</summary>
    /// <exception cref="LoKrException">There are no weights, or they cannot be read.</exception>
    private static ModuleNameIndex Read(string path)
    {
        if (GgufReader.IsGguf(path))
        {
            using GgufModel model = GgufModel.Open(path);
            return ModuleNameIndex.FromFiles(path, isSingleFile: false, [new(AdapterComponent.Model, null, Modules(model.Entries.Values, "", ""))]);
        }

        if (File.Exists(path))
        {
            using ITensorSource source = CheckpointReader.OpenWeights(path);
            return SingleFile(path, source.Entries.Values);
        }

        List<StoredComponent> components = [];
        foreach ((string folder, AdapterComponent component) in AdapterComponents.ByFolder)
        {
            if (Directory.Exists(Path.Combine(path, folder)))
            {
                components.Add(new(component, null, Folder(Path.Combine(path, folder), folder)));
            }
        }

        if (components.Count == 0)
        {
            components.Add(new(AdapterComponent.Model, null, Folder(path, "")));
        }

        return ModuleNameIndex.FromFiles(path, isSingleFile: false, components);
    }

    /// <summary>Sorts the tensors of a single file by the parts of its pipeline.</summary>
    private static ModuleNameIndex SingleFile(string path, IEnumerable<SafetensorsEntry> entries)
    {
        SafetensorsEntry[] all = [.. entries];
        List<StoredComponent> components = [];
        foreach (ModelPart part in ModelRecognizer.OfCheckpoint(all.Select(static entry => entry.Name))?.Candidates[0].Parts ?? [])
        {
            // The longest prefix under which the file has names of the part.
            foreach (string prefix in part.CheckpointPrefixes.OrderByDescending(static prefix => prefix.Length))
            {
                KnownModule[] found = [.. Modules(all, prefix, "").Where(module => prefix.Length > 0 || part.Find(SplitName.Of(module.Name), isUnderscored: false).Any())];
                if (Array.Exists(found, static module => !module.IsParameter) && !components.Exists(component => component.Component == part.Component))
                {
                    components.Add(new(part.Component, part, found));
                }
            }
        }

        if (components.Count == 0)
        {
            components.Add(new(AdapterComponent.Model, null, Modules(all, "", "")));
        }

        return ModuleNameIndex.FromFiles(path, isSingleFile: true, components);
    }

    private static KnownModule[] Folder(string path, string folder)
    {
        using ITensorSource source = CheckpointReader.OpenWeights(path);
        return Modules(source.Entries.Values, "", folder);
    }

    // Tensors that end with neither .weight nor .bias are parameters, which some tables have.
    private static KnownModule[] Modules(IEnumerable<SafetensorsEntry> entries, string prefix, string folder)
    {
        const string Weight = ".weight";
        return
        [
            .. entries.Where(entry => entry.Name.Length > prefix.Length && entry.Name.StartsWith(prefix, StringComparison.Ordinal) && !entry.Name.EndsWith(".bias", StringComparison.Ordinal)).Select(entry =>
            {
                bool isParameter = !entry.Name.EndsWith(Weight, StringComparison.Ordinal);
                return new KnownModule(isParameter ? entry.Name[prefix.Length..] : entry.Name[prefix.Length..^Weight.Length], entry.Shape)
                {
                    IsParameter = isParameter,
                    Folder = folder,
                    Places = [new(entry.Name, 0, 0, entry.Shape.Count > 0 ? entry.Shape[0] : 1)],
                };
            }),
        ];
    }
}
