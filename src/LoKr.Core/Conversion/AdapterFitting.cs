using System.Globalization;
using System.Runtime.ExceptionServices;
using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>What an adapter that is fitted to given deltas may cost, and how it is written. At most one of rank, full matrices, energy, error and parameters limits it.</summary>
public sealed record AdapterFitOptions
{
    /// <summary>Rank of every layer; null for another limit.</summary>
    public int? R { get; init; }

    /// <summary>Whether w1 and w2 are full matrices, which is a limit too.</summary>
    public bool FullMatrix { get; init; }

    /// <summary>Candidates for the decompose factor. One is taken for the whole adapter, as PEFT has it; empty for the one that is natural to the command.</summary>
    public IReadOnlyList<int> DecomposeFactors { get; init; } = [];

    /// <summary>Least share of the squared norm of the nearest full w2 that the rank of each layer keeps, in (0, 1].</summary>
    public double? Energy { get; init; }

    /// <summary>Largest relative error of each layer, in (0, 1): each gets the fewest parameters that reach it.</summary>
    public double? MaxError { get; init; }

    /// <summary>Largest number of parameters of all factors together: they go where they lower the error most.</summary>
    public long? MaxParameters { get; init; }

    /// <summary>Whether w1 is low-rank too where the rank is small enough (PEFT <c>decompose_both</c>).</summary>
    public bool DecomposeBoth { get; init; }

    /// <summary>Whether a low-rank w2 of a convolution is a Tucker product (PEFT <c>use_effective_conv2d</c>); null for what the command takes by itself.</summary>
    public bool? UseEffectiveConv2d { get; init; }

    /// <summary>Type of the written factors; null for what the command takes by itself.</summary>
    public ScalarType? DType { get; init; }

    /// <summary>Layout to write; null for PEFT's, or that of the first source.</summary>
    public AdapterLayout? Layout { get; init; }

    /// <summary>Replace an existing destination.</summary>
    public bool Force { get; init; }

    /// <summary>Whether no rank, energy, error or number of parameters is given.</summary>
    internal bool HasNoLimit => !FullMatrix && R is null && Energy is null && MaxError is null && MaxParameters is null;

    /// <summary>Checks the values.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RankInvalid</c>, <c>LoKr.EnergyInvalid</c>, <c>LoKr.InvalidArgument</c>.</exception>
    internal void Check()
    {
        if (R is int rank)
        {
            LoraRank.OfSize(rank);
        }

        if (Energy is double energy)
        {
            LoraRank.OfEnergy(energy);
        }

        if (MaxError is double error && error is not (> 0 and < 1))
        {
            throw Invalid($"The largest error is {error}; it is relative, more than 0 and less than 1.", "0.1 keeps 99 % of the squared norm of each delta.", error);
        }

        if (MaxParameters is long parameters && parameters <= 0)
        {
            throw Invalid($"The largest number of parameters is {parameters}; it must be positive.", "Give the number of all parameters together.", parameters);
        }

        if (new[] { FullMatrix, R is not null, Energy is not null, MaxError is not null, MaxParameters is not null }.Count(static given => given) > 1)
        {
            throw Invalid("Full matrices, a rank, an energy, a largest error and a largest number of parameters exclude each other.", "Give one of them.", null);
        }
    }

    private static LoKrException Invalid(string message, string advice, object? target) =>
        new(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, message, advice) { Target = target };
}

/// <summary>A layer whose delta is to become factors.</summary>
/// <param name="component">Part of the pipeline.</param>
/// <param name="name">Full name in its component.</param>
/// <param name="weightShape">Shape of the weight as out×in×kernel.</param>
internal abstract class FitLayer(AdapterComponent component, string name, IReadOnlyList<long> weightShape)
{
    /// <summary>Part of the pipeline.</summary>
    public AdapterComponent Component => component;

    /// <summary>Full name in its component.</summary>
    public string Name => name;

    /// <summary>Shape of the weight as out×in×kernel.</summary>
    public IReadOnlyList<long> WeightShape => weightShape;

    /// <summary>The shapes of the factors under the natural factor and rank of the layer: those of what it comes from. Null where there is nothing it comes from.</summary>
    public virtual FactorShapes? Natural(AdapterFitOptions options) => null;

    /// <summary>Prepares the delta. Its tensors belong to the current dispose scope.</summary>
    /// <param name="memory">Memory for its numbers, of the thread that calls.</param>
    /// <returns>A function that arranges the delta for shapes, which ends what it returned before; null for a delta of zeros.</returns>
    public abstract Func<FactorShapes, KroneckerTarget>? Open(FitMemory memory);

    /// <summary>Factors that need no fit because they have these shapes already, with the scale of their product; null otherwise.</summary>
    public virtual (IReadOnlyDictionary<string, Tensor> Factors, double Scale)? Keep(FactorShapes shapes) => null;
}

/// <summary>
/// Memory of one thread for the numbers of a layer, which those of the next one take over: the system gives fresh memory page by page, which takes
/// longer than reading and subtracting what is put there.
/// </summary>
internal sealed class FitMemory : IDisposable
{
    private readonly Dictionary<Part, Tensor> _parts = [];

    /// <summary>What the numbers are.</summary>
    public enum Part
    {
        /// <summary>The weight of the base model.</summary>
        Base,

        /// <summary>The weight of the fine-tuned model.</summary>
        Tuned,

        /// <summary>Their difference.</summary>
        Difference,
    }

    /// <summary>A flat tensor over memory with undefined content. It belongs to the current dispose scope, and its numbers are lost when the part is taken again.</summary>
    public Tensor Take(Part part, ScalarType type, long count)
    {
        if (!_parts.TryGetValue(part, out Tensor? memory) || memory.dtype != type || memory.numel() < count)
        {
            memory?.Dispose();
            _parts[part] = memory = empty(count, type).DetachFromDisposeScope();
        }

        return memory.narrow(0, 0, count);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Tensor memory in _parts.Values)
        {
            memory.Dispose();
        }
    }
}

/// <summary>Chooses shapes by the limits, fits every layer, and writes the adapter.</summary>
/// <param name="layers">The layers.</param>
/// <param name="options">Limits and form.</param>
/// <param name="conv1d">What a full w2 of a one-dimensional convolution means in the layout that is written.</param>
/// <param name="onProgress">Told the share of the work that is done, from 0 to 1.</param>
internal sealed class AdapterFitting(IReadOnlyList<FitLayer> layers, AdapterFitOptions options, Conv1dLayout conv1d, Action<double>? onProgress)
{
    // Layers that are in work together have at most so many bytes, if they are not alone; a number of a layer has two in each model and four in between.
    private const long MostBytes = 4L << 30;
    private const long BytesPerNumber = 8;

    private readonly Lock _gate = new();
    private int _finished;
    private int _steps;

    /// <summary>Fits every layer. The tensors belong to the current dispose scope.</summary>
    /// <param name="dtype">Type of the factors.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    public IReadOnlyList<LayerFit> Run(ScalarType dtype, CancellationToken cancellation)
    {
        int?[] factors = options.DecomposeFactors.Count == 0 ? [null] : [.. options.DecomposeFactors.Distinct().Select(static factor => (int?)factor)];
        bool measures = factors.Length > 1 || options.MaxError is not null || options.MaxParameters is not null;
        _steps = layers.Count * (measures ? factors.Length + 1 : 1);
        FactorShapes?[] chosen = measures ? Choose(factors, cancellation) : [];
        using DisposeScope scope = NewDisposeScope();
        LayerFit?[] fits = OfEach((i, memory) => measures && chosen[i] is null ? null : Fit(layers[i], measures ? chosen[i] : null, factors[0], dtype, memory, scope), cancellation);
        foreach (Tensor tensor in fits.SelectMany(static fit => fit?.Factors.Values ?? []))
        {
            tensor.MoveToOuterDisposeScope();
        }

        return [.. fits.OfType<LayerFit>()];
    }

    /// <summary>
    /// What is computed from each layer, in their order. Each layer is one thread's, and several are in work together: most steps of a fit are too small
    /// for two threads, and so the result does not depend on how many there are. Of several errors the first layer's is thrown.
    /// </summary>
    private T?[] OfEach<T>(Func<int, FitMemory, T?> compute, CancellationToken cancellation)
    {
        if (layers.Count == 0)
        {
            return [];
        }

        T?[] results = new T?[layers.Count];
        Exception?[] errors = new Exception?[layers.Count];
        (int next, bool isOver) = (-1, false);
        long largest = layers.Max(static layer => layer.WeightShape.Product()) * BytesPerNumber;
        TorchThreads.RunAlone((int)Math.Clamp(MostBytes / Math.Max(1, largest), 1, layers.Count), () =>
        {
            using IDisposable noGrad = no_grad();
            using FitMemory memory = new();
            while (!Volatile.Read(ref isOver) && Interlocked.Increment(ref next) is int i && i < layers.Count)
            {
                try
                {
                    cancellation.ThrowIfCancellationRequested();
                    Report();
                    results[i] = compute(i, memory);
                }
                catch (Exception exception)
                {
                    // Thrown on the caller's thread.
                    errors[i] = exception;
                    Volatile.Write(ref isOver, true);
                }
            }
        });
        if (Array.Find(errors, static error => error is not null) is Exception first)
        {
            ExceptionDispatchInfo.Throw(first);
        }

        return results;
    }

    private void Report()
    {
        lock (_gate)
        {
            onProgress?.Invoke((double)_finished++ / _steps);
        }
    }

    private LayerFit? Fit(FitLayer layer, FactorShapes? chosen, int? factor, ScalarType dtype, FitMemory memory, DisposeScope outer)
    {
        using DisposeScope scope = NewDisposeScope();
        Func<FactorShapes, KroneckerTarget>? open = layer.Open(memory);
        if (open is null)
        {
            return null;
        }

        FactorShapes shapes = chosen ?? ShapesOf(layer, factor, open);
        KroneckerTarget target = open(shapes);
        (IReadOnlyDictionary<string, Tensor> factors, double scale) = layer.Keep(shapes) ?? (KroneckerFit.Fit(target, shapes).Tensors, 1);
        Dictionary<string, Tensor> tensors = factors.ToDictionary(static pair => pair.Key, pair => pair.Value.to(dtype).contiguous(), StringComparer.Ordinal);
        double error = KroneckerFit.Error(target, new KroneckerFactors(tensors, shapes.Kernel, shapes.Reversed), scale);

        // The scopes of a thread are its own.
        lock (_gate)
        {
            foreach (Tensor tensor in tensors.Values)
            {
                outer.Attach(tensor.DetachFromDisposeScope());
            }
        }

        return new(layer, shapes, tensors, scale, error, Math.Sqrt(target.SquaredNorm));
    }

    /// <summary>The shapes of a layer for one factor, by rank or energy.</summary>
    private FactorShapes ShapesOf(FitLayer layer, int? factor, Func<FactorShapes, KroneckerTarget> open)
    {
        FactorShapes whole = Shapes(layer, factor, null);
        if (options.Energy is not double share)
        {
            return options.HasNoLimit && layer.Natural(options) is FactorShapes natural && SameSizes(natural, whole) ? natural : Shapes(layer, factor, options.R);
        }

        return Shapes(layer, factor, KroneckerFit.RankFor(open(whole), whole, share));
    }

    /// <summary>Shapes for a factor and a rank; null means the natural factor, and a full w2.</summary>
    private FactorShapes Shapes(FitLayer layer, int? factor, int? rank)
    {
        FactorShapes? natural = layer.Natural(options);
        FactorShapes? kept = factor is null ? natural : null;
        LoKrConfig config = new()
        {
            DecomposeFactor = factor ?? -1,
            DecomposeBoth = options.DecomposeBoth || kept is { LowRankW1: true },
            UseEffectiveConv2d = options.UseEffectiveConv2d ?? natural?.Tucker ?? false,
            FullMatrix = rank is null,
            Conv1dLayout = conv1d,
        };
        long[] kernel = [.. layer.WeightShape.Skip(2)];
        return kept is null
            ? FactorShapes.Create(layer.WeightShape[0], layer.WeightShape[1], kernel, rank ?? 1, config)
            : FactorShapes.Of((kept.L, kept.M, kept.K, kept.N), kernel, rank ?? 1, config);
    }

    /// <summary>The shapes of every layer under the best factor; null for a layer that the limit leaves out.</summary>
    private FactorShapes?[] Choose(int?[] factors, CancellationToken cancellation)
    {
        List<(FactorShapes?[] Shapes, (double, double) Merit)> plans = [];
        foreach (int? factor in factors)
        {
            IReadOnlyList<FitCandidate>[] candidates = OfEach((i, memory) => Candidates(layers[i], factor, memory), cancellation)!;
            plans.Add(options.MaxParameters is long budget ? Spend(candidates, budget) : options.MaxError is double limit ? Reach(candidates, limit) : Compare(candidates));
        }

        return plans.MaxBy(static plan => plan.Merit).Shapes;
    }

    private List<FitCandidate> Candidates(FitLayer layer, int? factor, FitMemory memory)
    {
        using DisposeScope scope = NewDisposeScope();
        Func<FactorShapes, KroneckerTarget>? open = layer.Open(memory);
        if (open is null)
        {
            return [];
        }

        List<FactorShapes> shapes = [];
        if (options.MaxError is null && options.MaxParameters is null)
        {
            shapes.Add(ShapesOf(layer, factor, open));
        }
        else
        {
            FactorShapes whole = Shapes(layer, factor, null);
            for (int rank = 1; Shapes(layer, factor, rank) is { LowRankW2: true } low; rank *= 2)
            {
                shapes.Add(low);
            }

            shapes.Add(whole);
        }

        List<FitCandidate> candidates = [];
        foreach (FactorShapes shape in shapes)
        {
            using DisposeScope step = NewDisposeScope();
            KroneckerTarget target = open(shape);
            FittedFactors fit = KroneckerFit.Fit(target, shape);
            candidates.Add(new(shape, fit.Error, target.SquaredNorm));
            if (fit.Error <= options.MaxError)
            {
                break;
            }
        }

        return candidates;
    }

    /// <summary>With a rank or an energy the factor that explains most per parameter is best.</summary>
    private static (FactorShapes?[] Shapes, (double, double) Merit) Compare(IReadOnlyList<FitCandidate>[] candidates)
    {
        double explained = candidates.Sum(static of => of.Sum(static candidate => candidate.SquaredNorm - candidate.SquaredError));
        long parameters = candidates.Sum(static of => of.Sum(static candidate => candidate.Shapes.ParameterCount));
        return ([.. candidates.Select(static of => of.Count == 0 ? null : of[0].Shapes)], (parameters == 0 ? 0 : explained / parameters, 0));
    }

    /// <summary>With a largest error the factor that needs the fewest parameters is best, among those that miss it least.</summary>
    private static (FactorShapes?[] Shapes, (double, double) Merit) Reach(IReadOnlyList<FitCandidate>[] candidates, double limit)
    {
        FitCandidate?[] chosen = [.. candidates.Select(of => of.Where(candidate => candidate.Error <= limit).MinBy(static candidate => candidate.Shapes.ParameterCount) ?? of.MinBy(static candidate => candidate.Error))];
        double missed = chosen.Sum(candidate => candidate is null || candidate.Error <= limit ? 0 : candidate.SquaredError);
        return ([.. chosen.Select(static candidate => candidate?.Shapes)], (-missed, -chosen.Sum(static candidate => candidate?.Shapes.ParameterCount ?? 0)));
    }

    /// <summary>With a number of parameters every step goes where it lowers the squared error most per parameter, as long as it can be paid.</summary>
    private static (FactorShapes?[] Shapes, (double, double) Merit) Spend(IReadOnlyList<FitCandidate>[] candidates, long budget)
    {
        FitCandidate?[] chosen = new FitCandidate?[candidates.Length];
        long left = budget;
        while (true)
        {
            (int Layer, FitCandidate Candidate, double Gain)? best = null;
            for (int i = 0; i < candidates.Length; i++)
            {
                double error = chosen[i]?.SquaredError ?? SquaredNorm(candidates[i]);
                foreach (FitCandidate candidate in candidates[i])
                {
                    long price = candidate.Shapes.ParameterCount - (chosen[i]?.Shapes.ParameterCount ?? 0);
                    double gain = (error - candidate.SquaredError) / Math.Max(1, price);
                    if (error > candidate.SquaredError && price <= left && (best is null || gain > best.Value.Gain))
                    {
                        best = (i, candidate, gain);
                    }
                }
            }

            if (best is not (int layer, FitCandidate next, _))
            {
                break;
            }

            left -= next.Shapes.ParameterCount - (chosen[layer]?.Shapes.ParameterCount ?? 0);
            chosen[layer] = next;
        }

        double remaining = candidates.Select((of, i) => chosen[i]?.SquaredError ?? SquaredNorm(of)).Sum();
        return ([.. chosen.Select(static candidate => candidate?.Shapes)], (-remaining, 0));
    }

    private static double SquaredNorm(IReadOnlyList<FitCandidate> candidates) => candidates.Count == 0 ? 0 : candidates[0].SquaredNorm;

    private static bool SameSizes(FactorShapes a, FactorShapes b) => a.L == b.L && a.M == b.M && a.K == b.K && a.N == b.N;

    private sealed record FitCandidate(FactorShapes Shapes, double Error, double SquaredNorm)
    {
        public double SquaredError => Error * Error * SquaredNorm;
    }
}

/// <summary>The factors of one layer.</summary>
/// <param name="Layer">The layer.</param>
/// <param name="Shapes">Shapes of the factors.</param>
/// <param name="Factors">The factors by suffix.</param>
/// <param name="Scale">Scale of their product.</param>
/// <param name="Error">‖Δ − scale·(w1 ⊗ w2)‖ / ‖Δ‖ with the factors as they are stored.</param>
/// <param name="Norm">‖Δ‖.</param>
internal sealed record LayerFit(FitLayer Layer, FactorShapes Shapes, IReadOnlyDictionary<string, Tensor> Factors, double Scale, double Error, double Norm)
{
    /// <summary>The layer as a module of an adapter file, whose alpha is its rank.</summary>
    public AdapterModule ToModule()
    {
        long? outer = Shapes.LowRankW1 ? Shapes.OuterRank ?? Shapes.Rank : null;
        long? inner = Shapes.LowRankW2 ? Shapes.Rank : null;
        bool flat = Shapes is { LowRankW2: true, Tucker: false };
        FactorGeometry geometry = new(
            Shapes.L, Shapes.M, Shapes.K, flat ? Shapes.N * Shapes.Kernel.Product() : Shapes.N,
            flat ? null : Shapes.Kernel, outer, inner, Shapes.Tucker);
        long rank = geometry.Rank ?? geometry.FullRank;
        return new(Layer.Component, Layer.Name, true, geometry, new(rank, Scale * rank, ScalingConvention.Peft, Scale), Factors)
        {
            WeightShape = Layer.WeightShape,
            IsReversed = Shapes.Reversed,
        };
    }

    /// <summary>The layer for people and scripts.</summary>
    public LoKrLayerFit ToRecord() => new()
    {
        Component = Layer.Component == AdapterComponent.Model ? null : Layer.Component,
        ModuleName = Layer.Name,
        Rank = Shapes.LowRankW2 || Shapes.LowRankW1 ? (int)Shapes.Rank : null,
        W1 = $"{Shapes.L}×{Shapes.M}",
        W2 = string.Join('×', [Shapes.K, Shapes.N, .. Shapes.Kernel]),
        ParameterCount = Shapes.ParameterCount,
        Norm = Norm,
        Error = Error,
    };
}

/// <summary>An adapter that was fitted to deltas: extracted from a pair of models, made smaller, or joined. Flat and serializable.</summary>
public sealed record LoKrFitResult
{
    /// <summary>Full path of the adapter.</summary>
    public required string Path { get; init; }

    /// <summary>Number of layers with factors.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Number of parameters of all factors.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Smallest rank of a layer; null where no factor is low-rank.</summary>
    public required int? SmallestRank { get; init; }

    /// <summary>Largest rank of a layer; null where no factor is low-rank.</summary>
    public required int? LargestRank { get; init; }

    /// <summary>√Σ‖Δ‖² over all layers.</summary>
    public required double Norm { get; init; }

    /// <summary>√Σ‖Δ − w1 ⊗ w2‖² / √Σ‖Δ‖² over all layers, with the factors as they are stored. Below 1e-7 it is rounding.</summary>
    public required double Error { get; init; }

    /// <summary>Layers whose delta is zero; they have no factors.</summary>
    public int UnchangedCount { get; init; }

    /// <summary>Names of tensors that differ and that the adapter does not hold: they stay as in the base model.</summary>
    public IReadOnlyList<string> LeftOut { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>Every layer with its error, in the order of the source.</summary>
    public required IReadOnlyList<LoKrLayerFit> Layers { get; init => field = ValueList.Of(value); }

    /// <inheritdoc/>
    public override string ToString() => Path;

    /// <summary>Describes fits that were written to a path.</summary>
    internal static LoKrFitResult Of(string path, IReadOnlyList<LayerFit> fits)
    {
        long[] ranks = [.. fits.Where(static fit => fit.Shapes.LowRankW1 || fit.Shapes.LowRankW2).Select(static fit => fit.Shapes.Rank)];
        double norm = Math.Sqrt(fits.Sum(static fit => fit.Norm * fit.Norm));
        double distance = Math.Sqrt(fits.Sum(static fit => fit.Error * fit.Error * fit.Norm * fit.Norm));
        return new()
        {
            Path = path,
            ModuleCount = fits.Count,
            ParameterCount = fits.Sum(static fit => fit.Shapes.ParameterCount),
            SmallestRank = ranks.Length == 0 ? null : (int)ranks.Min(),
            LargestRank = ranks.Length == 0 ? null : (int)ranks.Max(),
            Norm = norm,
            Error = norm > 0 ? distance / norm : 0,
            Layers = [.. fits.Select(static fit => fit.ToRecord())],
        };
    }
}

/// <summary>One layer of a fitted adapter. Flat and serializable.</summary>
public sealed record LoKrLayerFit
{
    /// <summary>Part of a pipeline; null for a single model.</summary>
    public AdapterComponent? Component { get; init; }

    /// <summary>Full name of the layer.</summary>
    public required string ModuleName { get; init; }

    /// <summary>Rank of the low-rank factors; null where both are full.</summary>
    public required int? Rank { get; init; }

    /// <summary>Shape of w1, rows×columns.</summary>
    public required string W1 { get; init; }

    /// <summary>Shape of w2, rows×columns×kernel.</summary>
    public required string W2 { get; init; }

    /// <summary>Number of parameters of the factors.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>‖Δ‖, the Frobenius norm of what the factors stand for.</summary>
    public required double Norm { get; init; }

    /// <summary>‖Δ − w1 ⊗ w2‖ / ‖Δ‖ with the factors as they are stored.</summary>
    public required double Error { get; init; }

    /// <inheritdoc/>
    public override string ToString() => ModuleName;
}

/// <summary>Writes fitted layers as an adapter, with their errors in the header.</summary>
internal static class FittedAdapter
{
    /// <summary>What a full w2 of a one-dimensional convolution means to the readers of a layout.</summary>
    public static Conv1dLayout Conv1dOf(AdapterLayout layout) => AdapterLayouts.HasAlphaTensors(layout) ? Conv1dLayout.Kronecker : Conv1dLayout.Peft;

    /// <summary>Writes the adapter.</summary>
    /// <param name="destination">Full path.</param>
    /// <param name="layout">Layout.</param>
    /// <param name="fits">The layers.</param>
    /// <param name="rest">Everything else: saved modules, norms, what is known about the base model, all names of the base model.</param>
    /// <param name="start">Fields of the configuration that the factors do not determine.</param>
    /// <param name="options">Whether to replace.</param>
    /// <returns>What was written, and warnings.</returns>
    public static (LoKrFitResult Result, IReadOnlyList<string> Warnings) Write(
        string destination, AdapterLayout layout, IReadOnlyList<LayerFit> fits, AdapterContent rest, LoKrConfig start, AdapterWriteOptions options)
    {
        LoKrFitResult result = LoKrFitResult.Of(destination, fits);
        AdapterModule[] modules = [.. fits.Select(static fit => fit.ToModule())];
        AdapterContent content = rest with { Modules = modules };
        Dictionary<AdapterComponent, LoKrConfig> configs = [];
        foreach (IGrouping<AdapterComponent, AdapterModule> part in modules.GroupBy(static module => module.Component))
        {
            configs[part.Key] = AdapterConfigBuilder.Build([.. part], content, ScalingConvention.Peft) with
            {
                BaseModelNameOrPath = start.BaseModelNameOrPath,
                ModulesToSave = start.ModulesToSave,
                TaskType = start.TaskType,
                AutoMapping = start.AutoMapping,
                Revision = start.Revision,
            };
        }

        content = content with
        {
            Configs = configs,
            Metadata = new Dictionary<string, string>(rest.Metadata.Where(static pair => pair.Key != AdapterHeader.FitKey)) { [AdapterHeader.FitKey] = Header(result) },
        };
        return (result, AdapterWriter.Write(destination, layout, content, options));
    }

    private static string Header(LoKrFitResult result) => JsonSerializer.Serialize(new Dictionary<string, object>
    {
        ["error"] = Rounded(result.Error),
        ["layers"] = result.Layers.ToDictionary(static layer => layer.Component is null ? layer.ModuleName : $"{layer.Component}.{layer.ModuleName}", static layer => Rounded(layer.Error)),
    });

    private static double Rounded(double error) => double.Parse(error.ToString("G6", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
}
