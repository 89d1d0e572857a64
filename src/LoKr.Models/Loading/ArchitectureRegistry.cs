using System.Collections.Frozen;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Models.Diffusion;
using LoKr.Models.Families;

namespace LoKr.Models.Loading;

/// <summary>The architectures by <c>model_type</c>. A new family is a file in Families and a line in <see cref="Default"/>.</summary>
public sealed class ArchitectureRegistry
{
    private readonly FrozenDictionary<string, ModelArchitecture[]> _architectures;

    /// <summary>Creates a registry. Of several architectures with one model type, the first is the default for configurations without a known class name.</summary>
    public ArchitectureRegistry(IEnumerable<ModelArchitecture> architectures)
    {
        All = [.. architectures];
        _architectures = All.GroupBy(item => item.ModelType, StringComparer.Ordinal)
            .ToFrozenDictionary(group => group.Key, group => group.ToArray(), StringComparer.Ordinal);
    }

    /// <summary>Every family of this library.</summary>
    public static ArchitectureRegistry Default { get; } = new([
        .. Bert.Registrations,
        .. Roberta.Registrations,
        .. DistilBert.Registrations,
        .. ModernBert.Registrations,
        .. DebertaV2.Registrations,
        .. Mpnet.Registrations,
        .. Electra.Registrations,
        .. Albert.Registrations,
        .. LlamaFamily.Registrations,
        .. Gemma3.Registrations,
        .. Phi3.Registrations,
        .. SmolLm3.Registrations,
        .. Granite.Registrations,
        .. Olmo.Registrations,
        .. Gpt2.Registrations,
        VitForImageClassification.Registration,
        ClipTextModel.Registration,
        ClipTextModelWithProjection.Registration,
        UNet2DConditionModel.Registration,
        AutoencoderKL.Registration,
    ]);

    /// <summary>The architectures, in the order in which they were given; a registry with more of them starts from these.</summary>
    public IReadOnlyList<ModelArchitecture> All { get; }

    /// <summary>Known values of <c>model_type</c>, sorted.</summary>
    public IReadOnlyList<string> ModelTypes => [.. _architectures.Keys.Order(StringComparer.Ordinal)];

    /// <summary>The architecture of a configuration, by <c>model_type</c> and, where a family has several, by <c>architectures</c>.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelTypeMissing"/> or <see cref="ErrorIds.ModelTypeUnknown"/>, which lists the known ones.</exception>
    public ModelArchitecture Get(ModelConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return Find(config) ?? throw new LoKrException(ErrorIds.ModelTypeUnknown, LoKrErrorKind.NotSupported,
            $"'{config.Source}' has the model_type '{config.ModelType}', which is not known.",
            $"{(FindNearest(config) is string nearest ? $"The nearest is '{nearest}', but its modules and rules may differ. " : "")}"
            + "Merging, converting and inspecting adapters on disk work without the model's architecture. "
            + $"Known are: {string.Join(", ", ModelTypes)}.") { Target = config.ModelType };
    }

    /// <summary>
    /// The architecture for labels: that of <see cref="Get"/>, or, where it does not classify, the first one of the model type that does, so that
    /// a language model becomes a classifier with a new head.
    /// </summary>
    /// <exception cref="LoKrException">As for <see cref="Get"/>; <see cref="ErrorIds.LabelsInvalid"/> where no architecture of the model type classifies.</exception>
    public ModelArchitecture GetClassifier(ModelConfig config)
    {
        ModelArchitecture architecture = Get(config);
        return architecture.Layout.LabelWeight is not null
            ? architecture
            : Array.Find(_architectures[architecture.ModelType], static candidate => candidate.Layout.LabelWeight is not null)
                ?? throw WithoutLabels(architecture, config);
    }

    /// <summary>The architecture for a task: that of <see cref="Get"/> where it is for the task, or the first one of the model type that is, so that a model gets a new head.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="task">The task.</param>
    /// <exception cref="LoKrException">As for <see cref="Get"/>; <see cref="ErrorIds.TaskUnknown"/> where no architecture of the model type is for the task.</exception>
    public ModelArchitecture GetForTask(ModelConfig config, TaskType task)
    {
        ModelArchitecture architecture = Get(config);
        ModelArchitecture[] family = _architectures[architecture.ModelType];
        return architecture.Task == task
            ? architecture
            : Array.Find(family, candidate => candidate.Task == task)
                ?? throw new LoKrException(ErrorIds.TaskUnknown, LoKrErrorKind.NotSupported,
                    $"The model type '{architecture.ModelType}' has no class for {task}.",
                    $"It has {string.Join(", ", family.Select(static candidate => candidate.Name))}.") { Target = config.Source };
    }

    /// <summary>The architectures of a configuration's model type; none where it has no type or an unknown one. The first is the default.</summary>
    internal IReadOnlyList<ModelArchitecture> Candidates(ModelConfig config) =>
        config.FindModelType() is string modelType && _architectures.TryGetValue(modelType, out ModelArchitecture[]? candidates) ? candidates : [];

    /// <summary>The same as <see cref="Get"/>; null where the configuration has no <c>model_type</c> or an unknown one.</summary>
    public ModelArchitecture? Find(ModelConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return Candidates(config) is [ModelArchitecture first, ..] and var candidates
            ? candidates.FirstOrDefault(candidate => config.GetStrings("architectures").Contains(candidate.Name, StringComparer.Ordinal)) ?? first
            : null;
    }

    /// <summary>The error of labels for an architecture that does not classify.</summary>
    internal static LoKrException WithoutLabels(ModelArchitecture architecture, ModelConfig config) => new(
        ErrorIds.LabelsInvalid, LoKrErrorKind.InvalidArgument, $"Labels were given, but {architecture.Name} does not classify.", "Leave the labels out.") { Target = config.Source };

    /// <summary>
    /// The known model type that is most like an unknown one: by its name, of which families of one descent share the beginning (<c>qwen2_moe</c>
    /// and <c>qwen2</c>), else by what the classes in <c>architectures</c> do. Null where neither says anything.
    /// </summary>
    private string? FindNearest(ModelConfig config)
    {
        const int telling = 3;
        string name = config.ModelType;
        string? byName = ModelTypes.Select(known => (Known: known, Shared: Shared(name, known)))
            .Where(static item => item.Shared >= telling)
            .OrderByDescending(static item => item.Shared).ThenBy(static item => item.Known.Length)
            .Select(static item => item.Known)
            .FirstOrDefault();
        return byName ?? (config.PredictsTokens, config.Architectures.Any(static item => item.Contains("MaskedLM", StringComparison.Ordinal))) switch
        {
            (null, _) => null,
            (true, false) => Known("llama"),
            _ => Known("bert"),
        };

        string? Known(string modelType) => _architectures.ContainsKey(modelType) ? modelType : null;

        // The longest beginning of one name that is anywhere in the other.
        static int Shared(string one, string other) => Math.Max(Beginning(one, other), Beginning(other, one));

        static int Beginning(string one, string other)
        {
            int length = one.Length;
            while (length > 0 && !other.Contains(one[..length], StringComparison.OrdinalIgnoreCase))
            {
                length--;
            }

            return length;
        }
    }
}
