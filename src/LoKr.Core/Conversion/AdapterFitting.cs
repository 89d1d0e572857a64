using System.Runtime.ExceptionServices;
using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layouts;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

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
    public virtual (IReadOnlyDictionary<string, Tensor> Factors, double Scale)? TakeUnchanged(FactorShapes shapes) => null;
}

/// <summary>
/// Memory of one thread for the numbers of a layer, which those of the next one take over: the system gives fresh memory page by page, which takes
/// longer than reading and subtracting what is put there.
/// </summary>
internal sealed class FitMemory : IDisposable
{
    private readonly Dictionary<Part, Tensor> _parts = [];

    /// <summary>Kind of the numbers.</summary>
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
        IReadOnlyList<FactorShapes?> chosen = measures ? Choose(factors, cancellation) : [];
        using DisposeScope scope = NewDisposeScope();
        LayerFit?[] fits = OfEach((i, memory) => measures && chosen[i] is null ? null : Fit(layers[i], measures ? chosen[i] : null, factors[0], dtype, memory, scope), cancellation);
        foreach (Tensor tensor in fits.SelectMany(static fit => fit?.Factors.Values ?? []))
        {
            tensor.MoveToOuterDisposeScope();
        }

        return [.. fits.OfType<LayerFit>()];
    }

    /// <summary>
    /// Computes a value from each layer, in their order. Each layer is one thread's, and several are in work together: most steps of a fit are too small
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
        (IReadOnlyDictionary<string, Tensor> factors, double scale) = layer.TakeUnchanged(shapes) ?? (KroneckerFit.Fit(target, shapes).Tensors, 1);
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
    private IReadOnlyList<FactorShapes?> Choose(int?[] factors, CancellationToken cancellation) =>
        factors.Select(factor => FitChoice.Of(OfEach((i, memory) => Candidates(layers[i], factor, memory), cancellation)!, options))
            .MaxBy(static choice => choice.Merit)!.Shapes;

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

    private static bool SameSizes(FactorShapes a, FactorShapes b) => a.L == b.L && a.M == b.M && a.K == b.K && a.N == b.N;
}
