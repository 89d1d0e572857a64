using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
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
    // The relative error below which a rank is suggested in place of a large exact one.
    private const double Small = 0.01;

    /// <summary>Converts an adapter of a model; its modules to save are copied.</summary>
    /// <param name="adapter">The adapter, at its current strength.</param>
    /// <param name="rank">Rank of each layer.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException"><c>LoKr.LoraConversionNotSupported</c>, <c>LoKr.RankInvalid</c>, <c>LoKr.ModelHasNoWeights</c>.</exception>
    public static LoraAdapter Convert(LoKrAdapter adapter, LoraRank rank, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        LoraSource[] sources = SourcesOf(adapter);
        Dictionary<string, Tensor> saved = SavedOf(adapter);
        bool transposed = adapter.Layers.Any(static layer => layer.BaseLayer is TransposedLinearBaseLayer);
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
        List<ConvertedLayer> converted = [];
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal);
        using IDisposable noGrad = no_grad();
        try
        {
            foreach (LoraSource layer in layers)
            {
                cancellation.ThrowIfCancellationRequested();
                converted.Add(Convert(layer, rank));
            }

            int uniform = Uniform(rank, converted);

            // Matrices that are kept have their scale in alpha where all have the same; otherwise it is multiplied into them.
            double scale = converted[0].Scale != 0 && converted.TrueForAll(layer => layer.Scale == converted[0].Scale) ? converted[0].Scale : 1;
            foreach (ConvertedLayer layer in converted)
            {
                layer.AddTo(tensors, rank.Patterned ? layer.Measures.Rank : uniform, layer.Scale / scale);
            }

            foreach ((string name, Tensor tensor) in saved)
            {
                tensors.Add(name, tensor.detach().clone().DetachFromDisposeScope());
            }

            LoraLayer[] measures = [.. converted.Select(static layer => layer.Measures)];
            Dictionary<string, int> ranks = measures.ToDictionary(static layer => layer.Name, static layer => layer.Rank, StringComparer.Ordinal);
            return new(LoraConfigBuilder.Create(config, ranks, rank.Patterned ? rank.Fixed ?? 1 : uniform, rank.Patterned, fanInFanOut) with { Scale = scale }, tensors, uniform, measures);
        }
        catch
        {
            foreach (Tensor tensor in tensors.Values)
            {
                tensor.Dispose();
            }

            throw;
        }
        finally
        {
            converted.ForEach(static layer => layer.Dispose());
        }
    }

    /// <summary>The rank of all layers: the given one or the largest that a layer needs, and one that the program accepts.</summary>
    private static int Uniform(LoraRank rank, List<ConvertedLayer> layers)
    {
        int needed = rank.Fixed ?? layers.Max(static layer => layer.Measures.Rank);
        if (rank.Accepted is not { } accepted)
        {
            return needed;
        }

        int[] enough = [.. accepted.Where(size => size >= needed).Order()];
        return enough.Length > 0 ? enough[0] : throw new LoKrException(ErrorIds.RankInvalid, LoKrErrorKind.InvalidArgument,
            $"The adapter needs rank {needed}, and the program accepts {string.Join(", ", accepted)}.",
            $"With rank {layers.Max(static layer => layer.Measures.RankOfOnePercent)} no layer is off by more than 1%. Give a rank, or a smaller share of energy.") { Target = needed };
    }

    /// <summary>The tensors of modules that an adapter of a model trained whole, by name.</summary>
    internal static Dictionary<string, Tensor> SavedOf(LoKrAdapter adapter) => adapter.Copies
        .SelectMany(static copy => copy.LocalNames.Select(local => (Name: ModuleTree.Join(copy.ModuleName, local), Tensor: copy.Value(local))))
        .ToDictionary(static entry => entry.Name, static entry => entry.Tensor, StringComparer.Ordinal);

    /// <summary>The layers of an adapter of a model.</summary>
    /// <exception cref="LoKrException"><c>LoKr.LoraConversionNotSupported</c>.</exception>
    internal static LoraSource[] SourcesOf(LoKrAdapter adapter)
    {
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

        return [.. adapter.Layers.Select(static layer => new LoraSource(layer.ModuleName, layer.Factors, layer.Scaling, layer.BaseLayer is EmbeddingBaseLayer))];
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

        }

        // Layers that need less are filled with zeros; a rank that no layer can use is a mistake.
        long limit = layers.Max(static layer => Math.Min(layer.Factors.OutFeatures, Columns(layer.Factors)));
        if (rank.Fixed > limit)
        {
            throw new LoKrException(ErrorIds.RankInvalid, LoKrErrorKind.InvalidArgument,
                $"Rank {rank.Fixed} is larger than the smaller side of every layer ({limit}).", $"Choose a rank of at most {limit}, or an energy.") { Target = rank.Fixed };
        }
    }

    private static ConvertedLayer Convert(LoraSource layer, LoraRank rank)
    {
        using DisposeScope scope = NewDisposeScope();
        if (rank is { KeepsLora: true, Patterned: false } && layer.Lora is (Tensor up, Tensor down))
        {
            return Kept(layer, up, down);
        }

        double energy = 0;
        int exact = 0;
        int close = 0;
        (Tensor left, Tensor values, Tensor right) = SingularValues.Leading(layer.Factors, layer.Scaling, all =>
        {
            energy = all.square().sum().ToDouble();

            // What rounding leaves of the values of a smaller rank is far below this.
            exact = Math.Max((int)all.gt(all[0] * 1e-10).sum().ToInt64(), 1);
            close = (int)SingularValues.CountFor(all, 1 - (Small * Small));
            return rank.Fixed is int size ? Math.Min(size, all.numel()) : SingularValues.CountFor(all, rank.Energy!.Value);
        });
        double kept = values.square().sum().ToDouble();
        ScalarType type = layer.Factors.DType;
        Device device = layer.Factors.Tensors.Values.First().device;
        return new(
            layer,
            right.to(type).to(device).contiguous().DetachFromDisposeScope(),
            (left * values).to(type).to(device).contiguous().DetachFromDisposeScope(),
            new(layer.ModuleName, (int)values.numel(), exact, Math.Min(close, exact), energy, kept));
    }

    /// <summary>A layer that is LoRA already, with its own matrices.</summary>
    private static ConvertedLayer Kept(LoraSource layer, Tensor up, Tensor down)
    {
        Tensor values = SingularValues.Of(layer.Factors) * Math.Abs(layer.Scaling);
        double energy = values.square().sum().ToDouble();
        int exact = Math.Max((int)values.gt(values[0] * 1e-10).sum().ToInt64(), 1);
        int close = (int)SingularValues.CountFor(values, 1 - (Small * Small));
        return new(
            layer,
            down.contiguous().clone().DetachFromDisposeScope(),
            up.contiguous().clone().DetachFromDisposeScope(),
            new(layer.ModuleName, (int)down.shape[0], exact, Math.Min(close, exact), energy, energy))
        { Scale = layer.Scaling };
    }

    private static long Columns(KroneckerFactors factors) => factors.InFeatures * factors.Kernel.Product();

    private static LoKrException NotSupported(string module, string why) => new(
        ErrorIds.LoraConversionNotSupported,
        LoKrErrorKind.NotSupported,
        $"'{module}' cannot be converted to LoRA: {why}.",
        "Export the adapter as LoKr, or merge it and export the model.")
    { Target = module };

    /// <summary>The two matrices of a layer at the rank that it needs.</summary>
    private sealed record ConvertedLayer(LoraSource Source, Tensor Right, Tensor Left, LoraLayer Measures) : IDisposable
    {
        /// <summary>Scale of the product of the two matrices.</summary>
        public double Scale { get; init; } = 1;

        public void AddTo(Dictionary<string, Tensor> tensors, int rank, double scale)
        {
            using DisposeScope scope = NewDisposeScope();
            KroneckerFactors factors = Source.Factors;
            Tensor a = ZeroPadding.Pad(Right, 0, rank);
            Tensor b = ZeroPadding.Pad(ScaledMatrix.Times(Left, scale), 1, rank);
            if (Source.IsEmbedding)
            {
                // The table is rows by tokens: PEFT keeps the side of the tokens in A.
                Add("lora_embedding_A", b.t());
                Add("lora_embedding_B", a.t());
            }
            else
            {
                Add("lora_A.weight", a.reshape([rank, factors.InFeatures, .. factors.Kernel]));
                Add("lora_B.weight", b.reshape([factors.OutFeatures, rank, .. factors.Kernel.Select(static _ => 1L)]));
            }

            void Add(string suffix, Tensor tensor) => tensors.Add(ModuleTree.Join(Source.ModuleName, suffix), tensor.contiguous().clone().DetachFromDisposeScope());
        }

        public void Dispose()
        {
            Right.Dispose();
            Left.Dispose();
        }
    }
}

/// <summary>The rank of a conversion to LoRA: one rank for every layer, or for each layer the smallest that holds a share of its energy.</summary>
public sealed record LoraRank
{
    private LoraRank(int? rank, double? energy) => (Fixed, Energy) = (rank, energy);

    /// <summary>The rank of every layer; null for ranks by energy.</summary>
    public int? Fixed { get; }

    /// <summary>Least share of the sum of squared singular values that each layer keeps, in (0, 1]; null for one rank.</summary>
    public double? Energy { get; }

    /// <summary>
    /// Whether every layer keeps the rank that it needs, named in the patterns of the configuration, which PEFT alone reads. Without it all layers have
    /// one rank, filled with zeros where a layer needs less: every program reads that.
    /// </summary>
    public bool Patterned { get; init; }

    /// <summary>The rank of every delta; a layer that is LoRA already keeps its two matrices as they are, filled with zeros up to the rank of all layers.</summary>
    public static LoraRank Exact { get; } = new(null, 1) { KeepsLora = true };

    /// <summary>Whether layers that are LoRA already keep their matrices, in place of the singular vectors of their product.</summary>
    internal bool KeepsLora { get; init; }

    /// <summary>The ranks that the program accepts; null for any. The smallest that is enough is taken.</summary>
    public IReadOnlyList<int>? Accepted { get; init; }

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
    public override string ToString() => KeepsLora ? "the rank of every layer" : Fixed is int rank ? $"rank {rank}" : FormattableString.Invariant($"energy {Energy}");
}

/// <summary>One layer of a LoKr adapter to convert.</summary>
/// <param name="ModuleName">Full name of the layer.</param>
/// <param name="Factors">Its factors.</param>
/// <param name="Scaling">Scale of w1 ⊗ w2; it becomes part of the LoRA weights.</param>
/// <param name="IsEmbedding">Whether the layer is an embedding, for which PEFT has other names and another layout.</param>
public sealed record LoraSource(string ModuleName, KroneckerFactors Factors, double Scaling, bool IsEmbedding = false)
{
    /// <summary>The two matrices of a layer that is LoRA: 1 ⊗ (up · down), out×r and r×(in·kernel); null for another product.</summary>
    internal (Tensor Up, Tensor Down)? Lora => !IsEmbedding && Factors is { L: 1, M: 1, Core: null, W2A: Tensor up, W2B: Tensor down } && Factors.Tensors.GetValueOrDefault(FactorNames.W1) is Tensor one
        && !Factors.Tensors.ContainsKey(FactorNames.Scalar) && one.to(ScalarType.Float64).ToDouble() == 1 ? (up, down) : null;

    /// <summary>The same layer with factors of a type, which the matrices of LoRA get too.</summary>
    internal LoraSource In(ScalarType type) =>
        this with { Factors = new(Factors.Tensors.ToDictionary(static factor => factor.Key, factor => factor.Value.to(type), StringComparer.Ordinal), Factors.Kernel, Factors.IsReversed) };
}

/// <summary>The result of a conversion to LoRA. Flat and serializable.</summary>
public sealed record LoraConversionResult
{
    // Programs and graphics cards handle ranks up to this well.
    private const int Large = 64;

    /// <summary>Full path of the folder.</summary>
    public required string Path { get; init; }

    /// <summary>Number of layers with LoRA.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Rank of the matrices of every layer; the largest with patterns.</summary>
    public required int Rank { get; init; }

    /// <summary>The smallest number of singular values that a layer keeps.</summary>
    public required int SmallestRank { get; init; }

    /// <summary>The largest number of singular values that a layer keeps.</summary>
    public required int LargestRank { get; init; }

    /// <summary>The rank from which on the conversion is exact.</summary>
    public required int ExactRank { get; init; }

    /// <summary>The largest relative error of a layer, ‖Δ - BA‖ / ‖Δ‖ in the Frobenius norm; 0 for an exact conversion.</summary>
    public required double LargestError { get; init; }

    /// <summary>The layer with the largest error.</summary>
    public required string LargestErrorModule { get; init; }

    /// <summary>Where the exact rank is large: the rank with which no layer has an error of more than 1%; else null.</summary>
    public int? SuggestedRank { get; init; }

    /// <summary>Number of parameters in the LoRA weights and in modules saved whole.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Share of the squared norm of all deltas that the LoRA weights hold; 1 for a lossless conversion.</summary>
    public required double Energy { get; init; }

    /// <summary>Rank and error of every layer.</summary>
    public required IReadOnlyList<LoraLayer> Layers { get; init => field = ValueList.Of(value); }

    /// <summary>Describes an adapter that was written to a folder.</summary>
    public static LoraConversionResult Of(string path, LoraAdapter adapter)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        int exact = adapter.Layers.Max(static layer => layer.ExactRank);
        LoraLayer worst = adapter.Layers.MaxBy(static layer => layer.Error)!;
        return new()
        {
            Path = path,
            ModuleCount = adapter.Ranks.Count,
            Rank = adapter.Rank,
            ExactRank = exact,
            LargestError = worst.Error,
            LargestErrorModule = worst.Name,
            SuggestedRank = exact > Large && adapter.Layers.Max(static layer => layer.RankOfOnePercent) is int enough && enough < exact ? enough : null,
            Layers = adapter.Layers,
            SmallestRank = adapter.Ranks.Values.Min(),
            LargestRank = adapter.Ranks.Values.Max(),
            ParameterCount = adapter.Tensors.Values.Sum(static tensor => tensor.numel()),
            Energy = adapter.Energy,
        };
    }

    /// <inheritdoc/>
    public override string ToString() => Path;
}

/// <summary>One layer of a conversion to LoRA. Flat and serializable.</summary>
/// <param name="Name">Full name of the layer.</param>
/// <param name="Rank">Number of singular values that are kept.</param>
/// <param name="ExactRank">Number of singular values that are not zero.</param>
/// <param name="RankOfOnePercent">The rank from which on the relative error is at most 1%.</param>
/// <param name="Energy">Squared norm of the delta.</param>
/// <param name="KeptEnergy">Squared norm of the part that is kept.</param>
public sealed record LoraLayer(string Name, int Rank, int ExactRank, int RankOfOnePercent, double Energy, double KeptEnergy)
{
    /// <summary>‖Δ - BA‖ / ‖Δ‖ in the Frobenius norm.</summary>
    public double Error => Rank >= ExactRank || Energy == 0 ? 0 : Math.Sqrt(Math.Max(Energy - KeptEnergy, 0) / Energy);

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Name}: rank {Rank}, error {Error:P2}");
}
