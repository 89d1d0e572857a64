using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>Metadata of the header of an adapter file.</summary>
internal static class AdapterHeader
{
    private static readonly JsonSerializerOptions s_json = new() { WriteIndented = true };

    // What described the former file, or is written anew.
    private static readonly string[] s_replaced = ["format", AdapterLayouts.DiffusersMetadata, AdapterFileConfigs.OwnKey, "sshs_model_hash", "sshs_legacy_hash"];

    /// <summary>Metadata of a trainer is kept; configurations and dotted names are added where the layout has no other place for them.</summary>
    /// <param name="layout">Layout of the file.</param>
    /// <param name="content">The adapter.</param>
    /// <param name="configs">Configurations under which PEFT reads the file, by component.</param>
    /// <param name="originals">Dotted names behind those with underscores.</param>
    public static Dictionary<string, string> Build(
        AdapterLayout layout, AdapterContent content, IReadOnlyDictionary<AdapterComponent, LoKrConfig> configs, IReadOnlyDictionary<string, string> originals)
    {
        Dictionary<string, string> metadata = new(StringComparer.Ordinal) { ["format"] = "pt" };
        foreach ((string key, string value) in content.Metadata.Where(static pair => !s_replaced.Contains(pair.Key)))
        {
            metadata[key] = value;
        }

        if (layout is AdapterLayout.Diffusers or AdapterLayout.DiffusersModel)
        {
            metadata[AdapterLayouts.DiffusersMetadata] = layout == AdapterLayout.DiffusersModel ? LoKrConfigJson.Write(configs.Values.First()) : Prefixed(configs);
        }
        else
        {
            metadata[AdapterFileConfigs.OwnKey] = AdapterFileConfigs.Write(layout, AdapterLayouts.HasAlphaTensors(layout) ? content.Configs : configs, originals);
        }

        return metadata;
    }

    /// <summary>The form in which diffusers saves the configurations of a whole pipeline: a component's name before each key.</summary>
    private static string Prefixed(IReadOnlyDictionary<AdapterComponent, LoKrConfig> configs)
    {
        JsonObject root = [];
        foreach ((AdapterComponent component, LoKrConfig config) in configs)
        {
            string prefix = AdapterLayouts.Prefixes(AdapterLayout.Diffusers).First(entry => entry.Component == component).Prefix;
            foreach ((string key, JsonNode? value) in JsonNode.Parse(LoKrConfigJson.Write(config))!.AsObject())
            {
                root[prefix + key] = value?.DeepClone();
            }
        }

        return root.ToJsonString(s_json);
    }
}
