using System.Collections.Frozen;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;

namespace LoKr.Core.Gguf;

/// <summary>
/// How llama.cpp's converter stores the weights of one architecture: the names that transformers' modules get, the projections whose rows
/// are reordered within each head, and norms that are stored one larger. The tables are data, in <c>Architectures.json</c>.
/// </summary>
internal sealed class GgufArchitecture
{
    /// <summary>Last part of the name of a weight that holds query, key and value one below the other.</summary>
    public const string FusedAttention = "attn_qkv";

    private const string LayerModule = "model.layers.";
    private const string LayerTensor = "blk.";

    private static readonly FrozenDictionary<string, GgufArchitecture> s_all = Load();

    private readonly FrozenDictionary<string, string> _tensors;
    private readonly FrozenDictionary<string, string> _modules;
    private readonly FrozenSet<string> _permuted;

    private GgufArchitecture(string name, JsonObject json, JsonObject shared)
    {
        Name = name;
        ModelTypes = [.. json["modelTypes"]!.AsArray().Select(static type => type!.GetValue<string>())];
        NormsPlusOne = json["normsPlusOne"]?.GetValue<bool>() ?? false;
        TiesByDefault = json["tiesByDefault"]?.GetValue<bool>() ?? false;
        _permuted = (json["permuted"]?.AsArray() ?? []).Select(static part => part!.GetValue<string>()).ToFrozenSet(StringComparer.Ordinal);
        Dictionary<string, string?> layer = Names(shared["layer"]);
        foreach ((string module, string? tensor) in Names(json["layer"]))
        {
            layer[module] = tensor;
        }

        (string Module, string Tensor)[] names =
        [
            .. Names(shared["model"]).Select(static pair => (pair.Key, pair.Value!)),
            .. layer.Where(static pair => pair.Value is not null).Select(static pair => (LayerModule + pair.Key, LayerTensor + pair.Value)),
        ];
        _tensors = names.ToFrozenDictionary(static pair => pair.Module, static pair => pair.Tensor, StringComparer.Ordinal);
        _modules = names.ToFrozenDictionary(static pair => pair.Tensor, static pair => pair.Module, StringComparer.Ordinal);
    }

    /// <summary>Name in <c>general.architecture</c>.</summary>
    public string Name { get; }

    /// <summary>Names of the architecture in transformers' config.json.</summary>
    public IReadOnlyList<string> ModelTypes { get; }

    /// <summary>Whether the weights of norms are stored one larger than transformers has them.</summary>
    public bool NormsPlusOne { get; }

    /// <summary>Whether the output uses the input embeddings where config.json does not say.</summary>
    public bool TiesByDefault { get; }

    /// <summary>The architecture of a name in <c>general.architecture</c>.</summary>
    /// <exception cref="LoKrException"><c>LoKr.ModelTypeUnknown</c>.</exception>
    public static GgufArchitecture Of(string name) => s_all.GetValueOrDefault(name) ?? throw Unknown($"The GGUF architecture '{name}'", s_all.Keys, name);

    /// <summary>Whether the names of an architecture are known.</summary>
    public static bool IsKnown(string name) => s_all.ContainsKey(name);

    /// <summary>The architecture that the converter gives a <c>model_type</c> of transformers.</summary>
    /// <exception cref="LoKrException"><c>LoKr.ModelTypeUnknown</c>.</exception>
    public static GgufArchitecture OfModelType(string modelType) => s_all.Values.FirstOrDefault(architecture => architecture.ModelTypes.Contains(modelType))
        ?? throw Unknown($"The model type '{modelType}'", s_all.Values.SelectMany(static architecture => architecture.ModelTypes), modelType);

    /// <summary>The tensor of a module, without <c>.weight</c>; null for a module that the architecture does not have.</summary>
    public string? TensorOf(string module)
    {
        (string key, string? layer) = Split(module, LayerModule);
        return _tensors.TryGetValue(key, out string? tensor) ? Join(tensor, LayerTensor, layer) : null;
    }

    /// <summary>The module of a tensor, without <c>.weight</c>; null for a tensor that transformers does not have.</summary>
    public string? ModuleOf(string tensor)
    {
        (string key, string? layer) = Split(tensor, LayerTensor);
        return _modules.TryGetValue(key, out string? module) ? Join(module, LayerModule, layer) : null;
    }

    /// <summary>Whether the rows of a tensor are reordered within each head: the halves of a head alternate, as the rotation of llama.cpp wants them.</summary>
    /// <param name="tensor">Its name, without <c>.weight</c>.</param>
    public bool IsPermuted(string tensor) => _permuted.Contains(tensor[(tensor.LastIndexOf('.') + 1)..]);

    private static FrozenDictionary<string, GgufArchitecture> Load()
    {
        using Stream stream = typeof(GgufArchitecture).Assembly.GetManifestResourceStream("GgufArchitectures.json")!;
        JsonObject json = JsonSerializer.Deserialize<JsonObject>(stream)!;
        return json["architectures"]!.AsObject().ToFrozenDictionary(
            static pair => pair.Key, pair => new GgufArchitecture(pair.Key, pair.Value!.AsObject(), json), StringComparer.Ordinal);
    }

    private static Dictionary<string, string?> Names(JsonNode? node) =>
        (node?.AsObject() ?? []).ToDictionary(static pair => pair.Key, static pair => pair.Value?.GetValue<string>(), StringComparer.Ordinal);

    // "model.layers.12.mlp.up_proj" is "model.layers.mlp.up_proj" of layer 12.
    private static (string Key, string? Layer) Split(string name, string start)
    {
        if (!name.StartsWith(start, StringComparison.Ordinal))
        {
            return (name, null);
        }

        int end = name.IndexOf('.', start.Length);
        string layer = end < 0 ? "" : name[start.Length..end];
        return layer.Length > 0 && layer.All(char.IsAsciiDigit) ? (string.Concat(start, name.AsSpan(end + 1)), layer) : ("", null);
    }

    private static string Join(string name, string start, string? layer) =>
        layer is null ? name : string.Create(CultureInfo.InvariantCulture, $"{start}{layer}.{name.AsSpan(start.Length)}");

    private static LoKrException Unknown(string what, IEnumerable<string> known, string target) => new(
        ErrorIds.ModelTypeUnknown,
        LoKrErrorKind.NotSupported,
        $"{what} is not one whose names in GGUF files are known.",
        $"Known are {string.Join(", ", known.Order(StringComparer.Ordinal))}. Merge the adapter into the model's safetensors folder and convert the result with llama.cpp.")
    {
        Target = target,
    };
}
