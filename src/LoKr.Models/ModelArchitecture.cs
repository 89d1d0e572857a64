using static TorchSharp.torch;

namespace LoKr.Models;

/// <summary>One model family: how to build its module tree and how to read its checkpoints.</summary>
/// <param name="ModelType">The <c>model_type</c> of config.json.</param>
/// <param name="Name">Class name as transformers has it, for example <c>BertForSequenceClassification</c>.</param>
/// <param name="Build">
/// Builds the root module, which implements <see cref="Core.Modeling.IPretrainedModel"/>. It only makes modules with the device and type
/// of the options; weights, ties, freezing and evaluation mode are the loader's.
/// </param>
/// <param name="Layout">How the keys of a checkpoint become parameter names.</param>
public sealed record ModelArchitecture(string ModelType, string Name, Func<ModelConfig, ModelBuildOptions, nn.Module> Build, CheckpointLayout Layout)
{
    /// <summary>Whether the model takes token ids, so that its folder is expected to hold a tokenizer.</summary>
    public bool TakesTokens { get; init; } = true;
}
