using System.Text.Json.Nodes;
using LoKr.Core.Configuration;

namespace LoKr.Models.Families;

/// <summary>The classes of a family of bidirectional encoders: one for each task.</summary>
internal static class EncoderFamily
{
    private const string TextClass = "ForSequenceClassification";
    private const string TokenClass = "ForTokenClassification";
    private const string TokenHead = "classifier.";

    /// <summary>Registers a family.</summary>
    /// <param name="modelType">The <c>model_type</c> of config.json.</param>
    /// <param name="className">Name of the class in transformers that scores texts.</param>
    /// <param name="read">Reads and checks a configuration.</param>
    /// <param name="layout">How the keys of a checkpoint of that class become parameter names.</param>
    public static IReadOnlyList<ModelArchitecture> Register(
        string modelType, string className, Func<ModelConfig, ModelBuildOptions, EncoderSettings> read, CheckpointLayout layout)
    {
        void WriteSpellings(ModelConfig config, JsonObject json) => read(config, new()).WriteSpellings(json);

        string tokens = className.Replace(TextClass, TokenClass, StringComparison.Ordinal);
        return
        [
            new(modelType, className, (config, options) => new EncoderClassifier(config, options.Labels, read(config, options)), layout)
            {
                Task = TaskType.SequenceClassification,
                WriteSpellings = WriteSpellings,
            },
            new(modelType, tokens, (config, options) => new TokenClassifier(config, options, TokenClassifierSettings.Of(tokens, read(config, options))), OfTokens(layout))
            {
                Task = TaskType.TokenClassification,
                WriteSpellings = WriteSpellings,
            },
        ];
    }

    // What only the head of texts has, a pooler for example, is skipped.
    private static CheckpointLayout OfTokens(CheckpointLayout texts) => texts with
    {
        HeadPrefixes = [TokenHead],
        LabelWeight = TokenHead + "weight",
        SkippedPrefixes = [.. texts.SkippedPrefixes, .. texts.OptionalPrefixes, .. texts.HeadPrefixes.Where(static prefix => prefix != TokenHead)],
    };
}
