using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>An architecture: how to build its module tree and how to read its checkpoints.</summary>
/// <param name="ModelType">The <c>model_type</c> of config.json.</param>
/// <param name="Name">Class name in transformers, for example <c>BertForSequenceClassification</c>.</param>
/// <param name="Build">
/// Builds the root module, which implements <see cref="Core.Nn.IPretrainedModel"/>, with the device and type of the options. Loading weights,
/// tying, freezing and evaluation mode are the loader's work.
/// </param>
/// <param name="Layout">How the keys of a checkpoint become parameter names.</param>
public sealed record ModelArchitecture(string ModelType, string Name, Func<ModelConfig, ModelBuildOptions, nn.Module> Build, CheckpointLayout Layout)
{
    /// <summary>Whether the model takes token ids, so that its folder is expected to hold a tokenizer.</summary>
    public bool TakesTokens { get; init; } = true;

    /// <summary>Task of the head; null for a model without tasks to choose from.</summary>
    public TaskType? Task { get; init; }

    /// <summary>Completes a copy of a model's configuration by the keys that other releases of transformers have for the same; null where there are none.</summary>
    internal Action<ModelConfig, JsonObject>? WriteSpellings { get; init; }

    /// <summary>A copy of a model's configuration that names the class in <c>architectures</c>.</summary>
    internal static JsonObject Describe(ModelConfig config, string className)
    {
        JsonObject copy = config.ToJsonObject();
        copy["architectures"] = new JsonArray(className);
        return copy;
    }
}

/// <summary>Options of building a module tree, beside the configuration.</summary>
public sealed record ModelBuildOptions
{
    /// <summary>Labels of a classification head in the order of the logits; null takes those of the configuration.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>Task of the head; null takes the class that the configuration names.</summary>
    public TaskType? Task { get; init; }

    /// <summary>Id of padding of the model's tokenizer, for a configuration that has none; or null.</summary>
    public int? PadId { get; init; }

    /// <summary>Device of the parameters; the loader builds on <c>meta</c>, where they take no memory.</summary>
    public Device Device
    {
        // Not an initializer: options may be created before the runtime is loaded.
        get => field ?? META;
        init;
    }

    /// <summary>Type of the parameters.</summary>
    public ScalarType DType { get; init; } = ScalarType.Float32;
}

/// <summary>How the keys of a published checkpoint become the parameter names of the model, and which differences are harmless.</summary>
public sealed record CheckpointLayout
{
    /// <summary>Name of the weights file without extension: <c>model</c>, or <c>diffusion_pytorch_model</c> of diffusers.</summary>
    public string WeightsName { get; init; } = "model";

    /// <summary>
    /// Prefix of the bare model inside the model with a head, for example <c>bert.</c>. A checkpoint in which no key has it is a bare model:
    /// every key that is not a head's gets the prefix.
    /// </summary>
    public string BasePrefix { get; init; } = "";

    /// <summary>Whether the model has no head, so that its parameters have no <see cref="BasePrefix"/>: keys lose it, and keys without it in a checkpoint that has it are heads.</summary>
    public bool IsBare { get; init; }

    /// <summary>Prefixes of the task head's parameters (<c>classifier.</c>): initialized where a checkpoint has none of them, read where it has.</summary>
    public IReadOnlyList<string> HeadPrefixes { get; init; } = [];

    /// <summary>The head's weight with one row per label (<c>classifier.weight</c>); null for a model without labels.</summary>
    public string? LabelWeight { get; init; }

    /// <summary>Prefixes of other parameters that a checkpoint may leave out as a whole (<c>bert.pooler.</c>): initialized, with a warning.</summary>
    public IReadOnlyList<string> OptionalPrefixes { get; init; } = [];

    /// <summary>Prefixes of weights that the model has no place for (<c>cls.</c>, <c>lm_head.</c>): skipped and reported.</summary>
    public IReadOnlyList<string> SkippedPrefixes { get; init; } = [];

    /// <summary>Endings of keys that hold no weights (<c>.position_ids</c>): skipped and not reported.</summary>
    public IReadOnlyList<string> SkippedSuffixes { get; init; } = [];

    /// <summary>Endings of keys: old name → new name (<c>LayerNorm.gamma</c> → <c>LayerNorm.weight</c>).</summary>
    public IReadOnlyDictionary<string, string> RenamedSuffixes { get; init; } = new Dictionary<string, string>();

    /// <summary>Published names beside those of the module tree; a checkpoint may have either. Null where they are the same.</summary>
    internal PublishedNames? Names { get; init; }
}

/// <summary>
/// Published names of a family beside those of its module tree: pairs of prefixes of dotted names, of which the first match applies.
/// <c>*</c> stands for one part, the number of a layer.
/// </summary>
internal sealed class PublishedNames : IModuleAliases
{
    private readonly (Regex Pattern, string Replacement)[] _toCanonical;
    private readonly (Regex Pattern, string Replacement)[] _toPublished;

    /// <summary>Creates a table.</summary>
    /// <param name="pairs">Published and canonical prefixes with the same stars.</param>
    public PublishedNames(params (string Published, string Canonical)[] pairs)
    {
        _toCanonical = [.. pairs.Select(pair => (Pattern(pair.Published), Replacement(pair.Canonical)))];
        _toPublished = [.. pairs.Select(pair => (Pattern(pair.Canonical), Replacement(pair.Published)))];
    }

    /// <summary>The name in the module tree; the same where the table has none.</summary>
    public string Canonical(string name) => Replace(_toCanonical, name);

    /// <summary>The published name; the same where the table has none.</summary>
    public string Published(string name) => Replace(_toPublished, name);

    private static string Replace((Regex Pattern, string Replacement)[] rules, string name)
    {
        foreach ((Regex pattern, string replacement) in rules)
        {
            if (pattern.IsMatch(name))
            {
                return pattern.Replace(name, replacement);
            }
        }

        return name;
    }

    // A prefix ends where a part of the name does.
    private static Regex Pattern(string prefix) => new(
        "^" + Regex.Escape(prefix).Replace(@"\*", @"(\d+)", StringComparison.Ordinal) + @"(?=\.|$)",
        RegexOptions.CultureInvariant);

    private static string Replacement(string prefix)
    {
        int star = 0;
        return string.Concat(prefix.Select(letter => letter == '*' ? $"${{{++star}}}" : letter.ToString()));
    }
}

/// <summary>A model with published names. It remembers which names its checkpoint had, so that an export has the same.</summary>
internal interface IPublishedNames : IModuleAliases
{
    /// <summary>Whether an exported checkpoint has the published names. The initial value is what transformers does; the loader sets that of the checkpoint.</summary>
    bool SavesPublishedNames { get; set; }
}
