using System.Collections.Frozen;
using LoKr.Core;
using LoKr.Models.Bert;
using LoKr.Models.DistilBert;
using LoKr.Models.Llama;
using LoKr.Models.Roberta;

namespace LoKr.Models;

/// <summary>The model families by <c>model_type</c>. A new family is a folder and a line in <see cref="Default"/>.</summary>
public sealed class ArchitectureRegistry
{
    private readonly FrozenDictionary<string, ModelArchitecture> _architectures;

    /// <summary>Makes a registry.</summary>
    public ArchitectureRegistry(IEnumerable<ModelArchitecture> architectures) =>
        _architectures = architectures.ToFrozenDictionary(item => item.ModelType, StringComparer.Ordinal);

    /// <summary>Every family of this library.</summary>
    public static ArchitectureRegistry Default { get; } = new([
        BertForSequenceClassification.Registration,
        RobertaForSequenceClassification.Registration,
        DistilBertForSequenceClassification.Registration,
        .. LlamaForCausalLM.Registrations,
    ]);

    /// <summary>Known values of <c>model_type</c>, sorted.</summary>
    public IReadOnlyList<string> ModelTypes => [.. _architectures.Keys.Order(StringComparer.Ordinal)];

    /// <summary>The family of a configuration; an unknown one is <see cref="ErrorIds.ModelTypeUnknown"/>, which lists the known ones.</summary>
    public ModelArchitecture Get(ModelConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        string modelType = config.ModelType;
        return _architectures.TryGetValue(modelType, out ModelArchitecture? architecture)
            ? architecture
            : throw new LoKrException(ErrorIds.ModelTypeUnknown, LoKrErrorKind.NotSupported,
                $"'{config.Source}' has the model_type '{modelType}', which is not known.",
                $"Known are: {string.Join(", ", ModelTypes)}.") { Target = modelType };
    }
}
