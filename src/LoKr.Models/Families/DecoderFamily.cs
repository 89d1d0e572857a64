using System.Text.Json.Nodes;
using LoKr.Core.Configuration;

namespace LoKr.Models.Families;

/// <summary>Names of the classes of a family in transformers.</summary>
/// <param name="Language">The language model.</param>
/// <param name="Texts">What scores texts; null where there is none.</param>
/// <param name="Tokens">What scores tokens; null where there is none.</param>
internal readonly record struct DecoderClasses(string Language, string? Texts, string? Tokens);

/// <summary>The classes of a family of decoders: one for each task.</summary>
internal static class DecoderFamily
{
    /// <summary>Registers a family.</summary>
    /// <param name="modelType">The <c>model_type</c> of config.json.</param>
    /// <param name="classes">Its classes.</param>
    /// <param name="read">Reads and checks a configuration.</param>
    /// <param name="layout">How the keys of a language model's checkpoint become parameter names.</param>
    /// <param name="tokenHead">Name of the head that scores tokens.</param>
    /// <param name="oldTokenHead">Its name in earlier releases of transformers, which is read too; null where it was the same.</param>
    public static IEnumerable<ModelArchitecture> Register(
        string modelType,
        DecoderClasses classes,
        Func<ModelConfig, ModelBuildOptions, DecoderSettings> read,
        CheckpointLayout layout,
        string tokenHead = DecoderClassifier.HeadName,
        string? oldTokenHead = null)
    {
        void WriteSpellings(ModelConfig config, JsonObject json) => read(config, new()).WriteSpellings(json);

        yield return new(modelType, classes.Language, (config, options) => new CausalLanguageModel(config, read(config, options)), layout)
        {
            Task = TaskType.CausalLanguageModeling,
            WriteSpellings = WriteSpellings,
        };
        if (classes.Texts is string texts)
        {
            yield return new(modelType, texts, (config, options) => new DecoderClassifier(config, options, read(config, options) with { ClassName = texts }), DecoderClassifier.Layout(layout))
            {
                Task = TaskType.SequenceClassification,
                WriteSpellings = WriteSpellings,
            };
        }

        if (classes.Tokens is string tokens)
        {
            yield return new(
                modelType,
                tokens,
                (config, options) => new TokenClassifier(config, options, TokenClassifierSettings.Of(tokens, read(config, options), TokenHead(config, tokenHead))),
                TokenLayout(layout, tokenHead, oldTokenHead))
            {
                Task = TaskType.TokenClassification,
                WriteSpellings = WriteSpellings,
            };
        }
    }

    private static CheckpointLayout TokenLayout(CheckpointLayout language, string head, string? oldHead)
    {
        CheckpointLayout layout = DecoderClassifier.Layout(language, head);
        return oldHead is null ? layout : layout with
        {
            RenamedSuffixes = new Dictionary<string, string>(layout.RenamedSuffixes) { [oldHead + ".weight"] = head + ".weight", [oldHead + ".bias"] = head + ".bias" },
        };
    }

    private static HeadSettings TokenHead(ModelConfig config, string name) => new()
    {
        Dropout = config.GetProbability("classifier_dropout", config.GetProbability("hidden_dropout", 0.1)),
        OutputName = name,
        HasOutputBias = config.GetBool("token_classification_bias", true),
    };
}
