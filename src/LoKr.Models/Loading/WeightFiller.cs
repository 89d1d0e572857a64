using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Loading;

/// <summary>
/// Replaces parameters on <c>meta</c> by real, frozen ones, which are read from the checkpoint straight into their memory or initialized.
/// </summary>
internal sealed class WeightFiller(nn.Module module, Device device, ScalarType dtype)
{
    // Loading mostly maps new memory and copies from the page cache; more threads would only wait for each other.
    private const int MostThreads = 4;

    /// <summary>Reads parameters from the checkpoint, several at a time where the device is the CPU.</summary>
    /// <param name="source">The checkpoint.</param>
    /// <param name="values">Its tensors as numbers; the checkpoint itself where no weight is quantized.</param>
    /// <param name="mapped">Keys in the checkpoint and the parameters they fill.</param>
    /// <param name="shapes">Shapes of the parameters by name.</param>
    /// <param name="sharePages">Whether weights of the CPU whose type is that of the file stay in the pages of the file, which other processes share.</param>
    /// <param name="onProgress">Called after every tensor with the share of the bytes that are read, on any thread.</param>
    /// <param name="cancellationToken">Checked before every tensor.</param>
    public void Read(
        CheckpointReader source,
        ITensorSource values,
        IReadOnlyList<(string Key, string Parameter)> mapped,
        IReadOnlyDictionary<string, long[]> shapes,
        bool sharePages,
        Action<double>? onProgress,
        CancellationToken cancellationToken)
    {
        foreach ((string key, _) in mapped)
        {
            CheckType(values, key);
        }

        long total = mapped.Sum(item => source.Entries[item.Key].ByteCount);
        long read = 0;
        Tensor?[] shared = [.. mapped.Select(item => sharePages && device.type == TorchSharp.DeviceType.CPU && source.Entries[item.Key].Shape.SequenceEqual(shapes[item.Parameter]) ? source.Map(item.Key, dtype) : null)];
        Tensor[] weights = [.. mapped.Select((item, i) => shared[i] ?? empty(shapes[item.Parameter], dtype, device))];
        try
        {
            int threads = device.type == TorchSharp.DeviceType.CPU ? Math.Min(MostThreads, Environment.ProcessorCount) : 1;
            Parallel.ForEach(
                Enumerable.Range(0, weights.Length).OrderByDescending(i => source.Entries[mapped[i].Key].ByteCount),
                new ParallelOptions { MaxDegreeOfParallelism = threads, CancellationToken = cancellationToken },
                i =>
                {
                    // The loop itself learns of it a few tensors later.
                    cancellationToken.ThrowIfCancellationRequested();
                    if (shared[i] is null)
                    {
                        values.ReadInto(mapped[i].Key, weights[i]);
                    }
                    else
                    {
                        source.Prefetch(mapped[i].Key);
                    }

                    onProgress?.Invoke((double)Interlocked.Add(ref read, source.Entries[mapped[i].Key].ByteCount) / total);
                });
        }
        catch (OperationCanceledException)
        {
            Array.ForEach(weights, static weight => weight.Dispose());
            throw;
        }
        catch (AggregateException exception)
        {
            Array.ForEach(weights, static weight => weight.Dispose());
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(exception.InnerExceptions[0]);
        }

        for (int i = 0; i < weights.Length; i++)
        {
            Set(mapped[i].Parameter, weights[i]);
        }
    }

    private static void CheckType(ITensorSource source, string key)
    {
        SafetensorsDType stored = source.Entries[key].DType;
        if (stored is not (SafetensorsDType.F64 or SafetensorsDType.F32 or SafetensorsDType.F16 or SafetensorsDType.BF16
            or SafetensorsDType.F8E4M3 or SafetensorsDType.F8E5M2))
        {
            throw new LoKrException(ErrorIds.TensorDTypeMismatch, LoKrErrorKind.InvalidData,
                $"'{key}' is stored as {stored}, but weights are floating-point numbers.",
                "Weights that are quantized in this way are not read; use the model's float32, float16 or bfloat16 weights.") { Target = key };
        }
    }

    /// <summary>Refuses a checkpoint that stores a tied parameter twice with different values, one of which would be lost.</summary>
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

    /// <summary>Initializes a parameter: normal for matrices, zero for biases, one for the weights of norms.</summary>
    /// <param name="name">Name of the parameter.</param>
    /// <param name="shape">Its shape.</param>
    /// <param name="deviation">Standard deviation of the normal distribution (<c>initializer_range</c>).</param>
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
