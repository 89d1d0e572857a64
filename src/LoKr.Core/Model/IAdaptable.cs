using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>
/// One model, or a pipeline of several, that carries adapters. <see cref="AdaptableExtensions"/> adds, activates, merges and removes adapters
/// on all components together, so that callers do not ask which of the two they hold.
/// </summary>
public interface IAdaptable : IDisposable
{
    /// <summary>Class name of the model or the pipeline.</summary>
    string Name { get; }

    /// <summary>Folder that it was read from, or null.</summary>
    string? SourcePath { get; }

    /// <summary>
    /// The models that take adapters, by the names of their folders (<c>text_encoder</c>, <c>unet</c>). A single model is its own only
    /// component, under the empty name.
    /// </summary>
    IReadOnlyDictionary<string, LoKrModel> Models { get; }

    /// <summary>Device of the model, or of the main component.</summary>
    Device Device { get; }

    /// <summary>Element type of the model, or of the main component.</summary>
    ScalarType DType { get; }

    /// <summary>Result of the last training run on its adapters, or null.</summary>
    LoKrTrainingResult? LastTraining { get; set; }

    /// <summary>Trainable and total parameters; the total includes components that take no adapters.</summary>
    ParameterCount CountParameters();
}
