using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Tokenization;

namespace LoKr.Models.Loading;

/// <summary>Which folders are loaded as sentence encoders, and what of a family they build.</summary>
internal static class SentenceEncoders
{
    private const string Classifier = "ForSequenceClassification";

    /// <summary>How the texts of a folder become vectors; null where the model is to be something else.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="config">Its configuration.</param>
    /// <param name="options">What the caller asks for.</param>
    /// <param name="warnings">What the user should know is added here.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>: labels and pooling; <see cref="ErrorIds.TaskUnknown"/>; the errors of the folder's files.</exception>
    public static SentenceSettings? FindSettings(string folder, ModelConfig config, ModelLoadOptions options, List<string> warnings)
    {
        bool isAsked = options.Task is TaskType.FeatureExtraction || options.Pooling is not null || options.Normalize is not null;
        if (options.Labels is not null || options.Task is not (null or TaskType.FeatureExtraction))
        {
            return !isAsked ? null : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                "Labels and a task of another kind make the model something else; pooling makes it a sentence encoder.", "Leave one of them out.") { Target = config.Source };
        }

        if (isAsked && !ReadsTexts(config, options.Architectures))
        {
            throw new LoKrException(ErrorIds.TaskUnknown, LoKrErrorKind.NotSupported, $"The model type '{config.ModelType}' is not a sentence encoder.", "Load it without pooling.") { Target = config.Source };
        }

        SentenceSettings? own = SentenceFolder.Find(folder);
        if (own is null && !isAsked)
        {
            if (!IsWithoutHead(config, options.Architectures))
            {
                return null;
            }

            warnings.Add($"'{folder}' names no head and no pooling, and no labels were given: it is a sentence encoder, and the vector of a text is the mean of those of its tokens, as in sentence-transformers.");
        }

        own ??= new();
        return own with { Pooling = options.Pooling ?? own.Pooling, Normalize = options.Normalize ?? own.Normalize };
    }

    /// <summary>The architecture of a sentence encoder.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="source">The checkpoint.</param>
    /// <param name="sentences">How texts become vectors.</param>
    /// <param name="architectures">The known architectures.</param>
    public static ModelArchitecture Architect(ModelConfig config, ITensorSource source, SentenceSettings sentences, ArchitectureRegistry architectures)
    {
        ModelArchitecture whole = architectures.Candidates(config)[0];
        string prefix = CheckpointMap.IsBare(source, whole.Layout) ? "" : whole.Layout.BasePrefix;
        return SentenceEncoder.Architect(
            whole, BareName(config, architectures), sentences, static text => LowercaseNormalizer.Lower(new MappedText(text)).Text, name => source.Entries.ContainsKey(prefix + name));
    }

    // A model with a table of labels or of tokens in front of it is for something else; so is one of a class that is known.
    private static bool IsWithoutHead(ModelConfig config, ArchitectureRegistry architectures)
    {
        IReadOnlyList<string> names = config.Architectures;
        return ReadsTexts(config, architectures) && names.Count > 0
            && !architectures.Candidates(config).Any(candidate => names.Contains(candidate.Name, StringComparer.Ordinal))
            && (architectures.Candidates(config)[0].Layout.LabelWeight is not null || names.Contains(BareName(config, architectures), StringComparer.Ordinal));
    }

    private static bool ReadsTexts(ModelConfig config, ArchitectureRegistry architectures) =>
        architectures.Candidates(config) is [{ TakesTokens: true } first, ..] && (first.Layout.LabelWeight is not null || first.Name.EndsWith("ForCausalLM", StringComparison.Ordinal) || first.Name.EndsWith("LMHeadModel", StringComparison.Ordinal));

    // The class of transformers without a head: that of the classifier, whose name is more regular, without its ending.
    private static string BareName(ModelConfig config, ArchitectureRegistry architectures)
    {
        IReadOnlyList<ModelArchitecture> candidates = architectures.Candidates(config);
        string name = (candidates.FirstOrDefault(static candidate => candidate.Name.EndsWith(Classifier, StringComparison.Ordinal)) ?? candidates[0]).Name;
        foreach (string ending in new[] { Classifier, "ForCausalLM", "LMHeadModel" })
        {
            name = name.EndsWith(ending, StringComparison.Ordinal) ? name[..^ending.Length] : name;
        }

        return name + "Model";
    }
}
