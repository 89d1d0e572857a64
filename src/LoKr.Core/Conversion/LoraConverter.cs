using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>
/// Converts LoKr to LoRA as PEFT's <c>convert_to_lora</c> does, but without forming a delta weight: the singular value decomposition
/// of w1 ⊗ w2 follows from those of w1 and w2. Lossless where the rank is at least rank(w1)·rank(w2); otherwise the best approximation of
/// that rank in the Frobenius norm. Linear layers, GPT-2's Conv1D, embeddings and convolutions without groups can be converted.
/// </summary>
public static class LoraConverter
{
    /// <summary>Converts an adapter of a model; its modules to save are copied.</summary>
    /// <param name="adapter">The adapter, at its current strength.</param>
    /// <param name="rank">Rank of each layer.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException"><c>LoKr.LoraConversionNotSupported</c>, <c>LoKr.RankInvalid</c>, <c>LoKr.ModelHasNoWeights</c>.</exception>
    public static LoraAdapter Convert(LoKrAdapter adapter, LoraRank rank, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        foreach (LoKrLayer layer in adapter.Layers)
        {
            if (layer.BaseLayer.LoraObstacle is string obstacle)
            {
                throw NotSupported(layer.ModuleName, obstacle);
            }
        }

        if (adapter.Norms.Count > 0)
        {
            throw NotSupported(adapter.Norms[0].ModuleName, "LoRA has no changes of norms");
        }

        Dictionary<string, Tensor> saved = adapter.Copies
            .SelectMany(static copy => copy.LocalNames.Select(local => (Name: ModuleTree.Join(copy.ModuleName, local), Tensor: copy.Value(local))))
            .ToDictionary(static entry => entry.Name, static entry => entry.Tensor, StringComparer.Ordinal);
        bool transposed = adapter.Layers.Any(static layer => layer.BaseLayer is TransposedLinearBaseLayer);
        LoraSource[] sources = [.. adapter.Layers.Select(static layer => new LoraSource(layer.ModuleName, layer.Factors, layer.Scaling, layer.BaseLayer is EmbeddingBaseLayer))];
        LoraAdapter lora = Convert(adapter.Config, sources, saved, rank, transposed, cancellation);
        lora.BaseModels = new Dictionary<AdapterComponent, ModelIdentity> { [AdapterComponent.Model] = adapter.BaseModel };
        lora.Warnings = [.. AdapterWarnings.Unsaved(adapter.Name, adapter.UnsavedModules)];
        return lora;
    }

    /// <summary>Converts factors of any source, for example of a file.</summary>
    /// <param name="config">Configuration of the LoKr adapter.</param>
    /// <param name="layers">Its layers.</param>
    /// <param name="saved">Tensors of modules that were trained whole, by name; they are copied.</param>
    /// <param name="rank">Rank of each layer.</param>
    /// <param name="fanInFanOut">Whether the layers store their weight in×out.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException"><c>LoKr.LoraConversionNotSupported</c>, <c>LoKr.RankInvalid</c>, <c>LoKr.ModelHasNoWeights</c>.</exception>
    public static LoraAdapter Convert(
        LoKrConfig config,
        IReadOnlyList<LoraSource> layers,
        IReadOnlyDictionary<string, Tensor> saved,
        LoraRank rank,
        bool fanInFanOut = false,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(layers);
        ArgumentNullException.ThrowIfNull(saved);
        ArgumentNullException.ThrowIfNull(rank);
        Check(config, layers, rank);
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal);
        Dictionary<string, int> ranks = new(StringComparer.Ordinal);
        double energy = 0;
        double keptEnergy = 0;
        using IDisposable noGrad = no_grad();
        try
        {
            foreach (LoraSource layer in layers)
            {
                cancellation.ThrowIfCancellationRequested();
                ConvertedLayer converted = Convert(layer, rank, tensors);
                ranks.Add(layer.ModuleName, converted.Rank);
                energy += converted.Energy;
                keptEnergy += converted.KeptEnergy;
            }

            foreach ((string name, Tensor tensor) in saved)
            {
                tensors.Add(name, tensor.detach().clone().DetachFromDisposeScope());
            }
        }
        catch
        {
            foreach (Tensor tensor in tensors.Values)
            {
                tensor.Dispose();
            }

            throw;
        }

        return new(LoraConfigBuilder.Create(config, ranks, rank, fanInFanOut), tensors, ranks, energy > 0 ? keptEnergy / energy : 1);
    }

    private static void Check(LoKrConfig config, IReadOnlyList<LoraSource> layers, LoraRank rank)
    {
        if (layers.Count == 0)
        {
            throw new LoKrException(ErrorIds.LoraConversionNotSupported, LoKrErrorKind.NotSupported, "The adapter has no layers to convert.", "It trains only whole modules; export it unchanged.");
        }

        if (config.WeightDecompose)
        {
            throw NotSupported(layers[0].ModuleName, "DoRA's magnitudes depend on the base weight, which LoRA's two matrices cannot express");
        }

        foreach (LoraSource layer in layers)
        {
            if (layer.Factors.Tensors.Values.Any(static tensor => tensor.device_type == DeviceType.META))
            {
                throw new LoKrException(ErrorIds.ModelHasNoWeights, LoKrErrorKind.InvalidOperation, "The model was built without weights, and so was its adapter: there is nothing to convert.", "Load the model with its weights.");
            }

            if (layer.Factors.Tensors.FirstOrDefault(static factor => NonFinite.Count(factor.Value) > 0) is { Key: string suffix })
            {
                throw new LoKrException(ErrorIds.LoraConversionNotSupported, LoKrErrorKind.InvalidData,
                    $"'{layer.ModuleName}' cannot be converted to LoRA: its {suffix} has NaN or infinity, which have no singular values.", "The adapter is broken; train it again with a lower learning rate.") { Target = layer.ModuleName };
            }

            long limit = Math.Min(layer.Factors.OutFeatures, Columns(layer.Factors));
            if (rank.Fixed > limit)
            {
                throw new LoKrException(ErrorIds.RankInvalid, LoKrErrorKind.InvalidArgument,
                    $"Rank {rank.Fixed} is larger than the smaller side of '{layer.ModuleName}' ({limit}).", $"Choose a rank of at most {limit}, or an energy.") { Target = rank.Fixed };
            }
        }
    }

    private static ConvertedLayer Convert(LoraSource layer, LoraRank rank, Dictionary<string, Tensor> tensors)
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors factors = layer.Factors;
        double energy = 0;
        (Tensor left, Tensor values, Tensor right) = SingularValues.Leading(factors, layer.Scaling, all =>
        {
            energy = all.square().sum().ToDouble();
            return rank.Fixed is int size ? Math.Min(size, all.numel()) : Cutoff(all, rank.Energy!.Value);
        });

        // A rank beyond that of the delta is filled with zeros.
        int kept = rank.Fixed ?? (int)values.numel();
        Tensor a = Padded(right, 0, kept);
        Tensor b = Padded(left * values, 1, kept);
        ScalarType type = factors.DType;
        Device device = factors.Tensors.Values.First().device;
        if (layer.IsEmbedding)
        {
            // The table is rows by tokens: PEFT keeps the side of the tokens in A.
            Add("lora_embedding_A", b.t());
            Add("lora_embedding_B", a.t());
        }
        else
        {
            Add("lora_A.weight", a.reshape([kept, factors.InFeatures, .. factors.Kernel]));
            Add("lora_B.weight", b.reshape([factors.OutFeatures, kept, .. factors.Kernel.Select(static _ => 1L)]));
        }

        return new(kept, energy, values.square().sum().ToDouble());

        void Add(string suffix, Tensor tensor) =>
            tensors.Add(ModuleTree.Join(layer.ModuleName, suffix), tensor.to(type).to(device).contiguous().clone().DetachFromDisposeScope());
    }

    /// <summary>Returns the smallest number of leading values whose squares reach a share of the sum of all squares.</summary>
    private static long Cutoff(Tensor values, double share)
    {
        Tensor sums = values.square().cumsum(0);
        long below = sums.lt(sums[-1] * share).sum().ToInt64();
        return Math.Min(below + 1, values.numel());
    }

    private static Tensor Padded(Tensor tensor, int dimension, long size)
    {
        long missing = size - tensor.shape[dimension];
        if (missing <= 0)
        {
            return tensor;
        }

        long[] shape = [.. tensor.shape];
        shape[dimension] = missing;
        return cat([tensor, zeros(shape, dtype: tensor.dtype)], dimension);
    }

    private static long Columns(KroneckerFactors factors) => factors.InFeatures * factors.Kernel.Product();

    private static LoKrException NotSupported(string module, string why) => new(
        ErrorIds.LoraConversionNotSupported,
        LoKrErrorKind.NotSupported,
        $"'{module}' cannot be converted to LoRA: {why}.",
        "Export the adapter as LoKr, or merge it and export the model.")
    { Target = module };

    /// <summary>Rank of a converted layer, and the sums of all its squared singular values and of the kept ones.</summary>
    private readonly record struct ConvertedLayer(int Rank, double Energy, double KeptEnergy);
}

/// <summary>The rank of a conversion to LoRA: one rank for every layer, or for each layer the smallest that holds a share of its energy.</summary>
public sealed record LoraRank
{
    private LoraRank(int? rank, double? energy) => (Fixed, Energy) = (rank, energy);

    /// <summary>The rank of every layer; null for ranks by energy.</summary>
    public int? Fixed { get; }

    /// <summary>Least share of the sum of squared singular values that each layer keeps, in (0, 1]; null for one rank.</summary>
    public double? Energy { get; }

    /// <summary>Creates one rank for every layer.</summary>
    /// <param name="rank">Positive number.</param>
    /// <exception cref="LoKrException"><c>LoKr.RankInvalid</c>.</exception>
    public static LoraRank OfSize(int rank)
    {
        if (rank <= 0)
        {
            throw new LoKrException(ErrorIds.RankInvalid, LoKrErrorKind.InvalidArgument, $"The rank is {rank}; a rank is a positive number.", "Start with 8 or 16, or give an energy instead.") { Target = rank };
        }

        return new(rank, null);
    }

    /// <summary>Creates ranks by energy: on each layer the smallest that holds a share, as PEFT reads a rank that is a float.</summary>
    /// <param name="share">Share of the sum of squared singular values, in (0, 1].</param>
    /// <exception cref="LoKrException"><c>LoKr.EnergyInvalid</c>.</exception>
    public static LoraRank OfEnergy(double share)
    {
        if (share is not (> 0 and <= 1))
        {
            throw new LoKrException(ErrorIds.EnergyInvalid, LoKrErrorKind.InvalidArgument, $"The share of energy is {share}; it must be more than 0 and at most 1.", "0.9 keeps nine tenths of the squared norm of each layer.") { Target = share };
        }

        return new(null, share);
    }

    /// <inheritdoc/>
    public override string ToString() => Fixed is int rank ? $"rank {rank}" : FormattableString.Invariant($"energy {Energy}");
}

/// <summary>One layer of a LoKr adapter to convert.</summary>
/// <param name="ModuleName">Full name of the layer.</param>
/// <param name="Factors">Its factors.</param>
/// <param name="Scaling">Scale of w1 ⊗ w2; it becomes part of the LoRA weights.</param>
/// <param name="IsEmbedding">Whether the layer is an embedding, for which PEFT has other names and another layout.</param>
public sealed record LoraSource(string ModuleName, KroneckerFactors Factors, double Scaling, bool IsEmbedding = false);

/// <summary>The result of a conversion to LoRA. Flat and serializable.</summary>
public sealed record LoraConversionResult
{
    /// <summary>Full path of the folder.</summary>
    public required string Path { get; init; }

    /// <summary>Number of layers with LoRA.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Smallest rank of a layer.</summary>
    public required int SmallestRank { get; init; }

    /// <summary>Largest rank of a layer.</summary>
    public required int LargestRank { get; init; }

    /// <summary>Number of parameters in the LoRA weights and in modules saved whole.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Share of the squared norm of all deltas that the LoRA weights hold; 1 for a lossless conversion.</summary>
    public required double Energy { get; init; }

    /// <summary>Describes an adapter that was written to a folder.</summary>
    public static LoraConversionResult Of(string path, LoraAdapter adapter)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        return new()
        {
            Path = path,
            ModuleCount = adapter.Ranks.Count,
            SmallestRank = adapter.Ranks.Values.Min(),
            LargestRank = adapter.Ranks.Values.Max(),
            ParameterCount = adapter.Tensors.Values.Sum(static tensor => tensor.numel()),
            Energy = adapter.Energy,
        };
    }

    /// <inheritdoc/>
    public override string ToString() => Path;
}
