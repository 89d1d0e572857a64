using LoKr.Core.Errors;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts.Names;

/// <summary>Module names of a base model from the headers of its safetensors files; no weights are read.</summary>
internal static class BaseModelNames
{
    private const string LdmUnet = "model.diffusion_model.";

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
        using CheckpointReader reader = CheckpointReader.Open(path, CheckpointReader.FindBaseName(path) ?? CheckpointReader.DefaultBaseName);
        return Modules(reader.Entries.Values, "");
    }

    private static KnownModule[] Modules(IEnumerable<SafetensorsEntry> entries, string prefix)
    {
        const string Weight = ".weight";
        return [.. entries.Where(entry => entry.Name.StartsWith(prefix, StringComparison.Ordinal) && entry.Name.EndsWith(Weight, StringComparison.Ordinal))
            .Select(entry => new KnownModule(entry.Name[prefix.Length..^Weight.Length], entry.Shape))];
    }
}

/// <summary>Which part of a pipeline modules belong to, by their names.</summary>
internal static class AdapterComponentGuess
{
    private static readonly string[] s_unet = ["down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block", "time_embed", "time_embedding", "conv_in", "conv_out", "add_embedding", "label_emb"];
    private static readonly string[] s_transformer =
        ["transformer_blocks", "single_transformer_blocks", "double_blocks", "single_blocks", "joint_blocks", "joint_transformer_blocks", "blocks", "noise_refiner", "context_refiner", "context_embedder", "x_embedder", "proj_in", "img_in", "txt_in"];

    private static readonly string[] s_textEncoder = ["text_model", "encoder", "text_projection", "shared"];

    /// <summary>The component that the first name which says something speaks for; null where none does.</summary>
    public static AdapterComponent? Of(IEnumerable<string> names)
    {
        foreach (string name in names)
        {
            AdapterComponent? found = StartsWith(s_unet, name) ? AdapterComponent.Unet
                : StartsWith(s_transformer, name) ? AdapterComponent.Transformer
                : StartsWith(s_textEncoder, name) ? AdapterComponent.TextEncoder
                : null;
            if (found is not null)
            {
                return found;
            }
        }

        return null;
    }

    private static bool StartsWith(string[] roots, string name) => Array.Exists(roots, root =>
        name.StartsWith(root, StringComparison.Ordinal) && (name.Length == root.Length || name[root.Length] is '.' or '_'));
}
