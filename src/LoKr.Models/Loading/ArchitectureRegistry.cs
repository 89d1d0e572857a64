using System.Collections.Frozen;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Models.Diffusion;
using LoKr.Models.Families;

namespace LoKr.Models.Loading;

/// <summary>The model families by <c>model_type</c>. A new family is a folder and a line in <see cref="Default"/>.</summary>
public sealed class ArchitectureRegistry
{
    private readonly FrozenDictionary<string, ModelArchitecture[]> _architectures;

    /// <summary>Makes a registry. Of several architectures with one model type, the first is what a configuration without a known class name means.</summary>
    public ArchitectureRegistry(IEnumerable<ModelArchitecture> architectures) =>
        _architectures = architectures.GroupBy(item => item.ModelType, StringComparer.Ordinal)
            .ToFrozenDictionary(group => group.Key, group => group.ToArray(), StringComparer.Ordinal);

    /// <summary>Every family of this library.</summary>
    public static ArchitectureRegistry Default { get; } = new([
        BertForSequenceClassification.Registration,
        RobertaForSequenceClassification.Registration,
        DistilBertForSequenceClassification.Registration,
        .. LlamaFamily.Registrations,
        Gpt2.Registration,
        VitForImageClassification.Registration,
        ClipTextModel.Registration,
        ClipTextModelWithProjection.Registration,
        UNet2DConditionModel.Registration,
        AutoencoderKL.Registration,
    ]);

    /// <summary>Known values of <c>model_type</c>, sorted.</summary>
    public IReadOnlyList<string> ModelTypes => [.. _architectures.Keys.Order(StringComparer.Ordinal)];

    /// <summary>The architecture of a configuration, by <c>model_type</c> and, where a family has several, by <c>architectures</c>; an unknown one is <see cref="ErrorIds.ModelTypeUnknown"/>, which lists the known ones.</summary>
    public ModelArchitecture Get(ModelConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        string modelType = config.ModelType;
        return _architectures.TryGetValue(modelType, out ModelArchitecture[]? candidates)
            ? Array.Find(candidates, candidate => config.GetStrings("architectures").Contains(candidate.Name, StringComparer.Ordinal)) ?? candidates[0]
            : throw new LoKrException(ErrorIds.ModelTypeUnknown, LoKrErrorKind.NotSupported,
                $"'{config.Source}' has the model_type '{modelType}', which is not known.",
                $"Known are: {string.Join(", ", ModelTypes)}.") { Target = modelType };
    }
}
