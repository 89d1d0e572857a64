using LoKr.Core;
using LoKr.Core.Formats;
using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models;

/// <summary>
/// Puts real, frozen parameters in the place of those on <c>meta</c>, one at a time: read from the checkpoint straight into their memory, or initialised.
/// </summary>
internal sealed class WeightFiller(nn.Module module, Device device, ScalarType dtype)
{
    /// <summary>Reads a parameter from the checkpoint.</summary>
    /// <param name="source">The checkpoint.</param>
    /// <param name="key">Key in the checkpoint.</param>
    /// <param name="name">Name of the parameter.</param>
    /// <param name="shape">Its shape.</param>
    public void Read(ITensorSource source, string key, string name, long[] shape)
    {
        SafetensorsDType stored = source.Entries[key].DType;
        if (stored is not (SafetensorsDType.F64 or SafetensorsDType.F32 or SafetensorsDType.F16 or SafetensorsDType.BF16
            or SafetensorsDType.F8E4M3 or SafetensorsDType.F8E5M2))
        {
            throw new LoKrException(ErrorIds.TensorDTypeMismatch, LoKrErrorKind.InvalidData,
                $"'{key}' is stored as {stored}, but a weight is a floating-point number.",
                "Quantised checkpoints are not read; use the model's float32, float16 or bfloat16 weights.") { Target = key };
        }

        Tensor weight = empty(shape, dtype, device);
        try
        {
            source.ReadInto(key, weight);
        }
        catch
        {
            weight.Dispose();
            throw;
        }

        Set(name, weight);
    }

    /// <summary>Refuses a checkpoint that stores a tied parameter twice with different values: one of the two would be lost.</summary>
    /// <param name="source">The checkpoint.</param>
    /// <param name="duplicate">Key of the parameter that has no storage of its own.</param>
    /// <param name="saved">Name of the parameter it is tied to, which has been read.</param>
    public void CheckSame(ITensorSource source, string duplicate, string saved)
    {
        using DisposeScope scope = NewDisposeScope();
        Parameter parameter = module.get_parameter(saved)!;
        bool same = source.Entries[duplicate].Shape.SequenceEqual(parameter.shape);
        if (same)
        {
            Tensor stored = empty(parameter.shape, dtype, device);
            source.ReadInto(duplicate, stored);
            same = stored.eq(parameter).all().item<bool>();
        }

        if (!same)
        {
            throw new LoKrException(ErrorIds.CheckpointKeysMismatch, LoKrErrorKind.InvalidData,
                $"config.json says that '{duplicate}' and '{saved}' are one weight, but the checkpoint holds two different ones.",
                "Set tie_word_embeddings to false in config.json to use both.") { Target = duplicate };
        }
    }

    /// <summary>Initialises a parameter: normal for matrices, zero for biases, one for the weights of norms.</summary>
    /// <param name="name">Name of the parameter.</param>
    /// <param name="shape">Its shape.</param>
    /// <param name="deviation">Standard deviation of the normal distribution.</param>
    /// <param name="generator">Source of random numbers on the CPU, so that a seed means the same on every device; null for the global one.</param>
    public void Initialize(string name, long[] shape, double deviation, Generator? generator)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor values = shape.Length > 1 ? empty(shape, ScalarType.Float32).normal_(0, deviation, generator)
            : name.EndsWith(".bias", StringComparison.Ordinal) ? zeros(shape, ScalarType.Float32)
            : ones(shape, ScalarType.Float32);
        Set(name, values.to(dtype, device).MoveToOuterDisposeScope());
    }

    private void Set(string name, Tensor weight) =>
        ModuleParameters.Set(module, name, (Parameter)nn.Parameter(weight, requires_grad: false).DetachFromDisposeScope());
}
