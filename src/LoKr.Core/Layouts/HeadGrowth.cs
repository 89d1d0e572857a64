using LoKr.Core.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>
/// Loads an adapter with a classification head onto a model that has more labels: those of the adapter in the same order, and new ones behind
/// them. The rows of the adapter's labels keep their weights.
/// </summary>
public static class HeadGrowth
{
    /// <summary>A bias with which a label is never the answer.</summary>
    public const double Never = -1e4;

    /// <summary>Loads the adapter.</summary>
    /// <param name="model">A classifier.</param>
    /// <param name="folder">A PEFT folder.</param>
    /// <param name="name">Name of the adapter on the model.</param>
    /// <param name="trainable">Whether it takes gradients while it is active.</param>
    /// <param name="bias">
    /// Bias of the rows of new labels, whose weights are zero. 0 to train them; <see cref="Never"/> to have the answers of the adapter as it is. A head
    /// without bias keeps 0.
    /// </param>
    /// <exception cref="Errors.LoKrException">As for <see cref="PeftAdapterFolder.Read"/> and <see cref="LoKrModel.LoadAdapter"/>.</exception>
    public static LoKrAdapter Import(LoKrModel model, string folder, string name, bool trainable, double bias = 0)
    {
        ArgumentNullException.ThrowIfNull(model);
        using PeftAdapterFolder files = PeftAdapterFolder.Read(folder);
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, long[]> shapes = model.Module.named_parameters().ToDictionary(static entry => entry.name, static entry => entry.parameter.shape, StringComparer.Ordinal);
        Dictionary<string, Tensor> tensors = files.Tensors.Entries.Keys.ToDictionary(
            static key => key,
            key => Grow(files.Tensors.Read(key), shapes.GetValueOrDefault(key), key.EndsWith(".bias", StringComparison.Ordinal) ? bias : 0),
            StringComparer.Ordinal);
        return model.LoadAdapter(files.Config with { InferenceMode = !trainable }, tensors, name, trainable);
    }

    // Only a tensor that has fewer rows than the model's, and is like it otherwise, is of a head.
    private static Tensor Grow(Tensor own, long[]? shape, double value) =>
        shape is not null && own.shape.Length == shape.Length && own.shape[0] < shape[0] && own.shape.AsSpan(1).SequenceEqual(shape.AsSpan(1))
            ? cat([own, full([shape[0] - own.shape[0], .. shape[1..]], value, dtype: own.dtype)], 0)
            : own;
}
