using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>An adapter in memory between reading and writing. Does not own its tensors: they live in the caller's dispose scope or model.</summary>
internal sealed record AdapterContent
{
    /// <summary>Modules with factors.</summary>
    public required IReadOnlyList<AdapterModule> Modules { get; init; }

    /// <summary>Changes of norms.</summary>
    public IReadOnlyList<AdapterNorm> Norms { get; init; } = [];

    /// <summary>Tensors of modules that are saved whole, by full name.</summary>
    public IReadOnlyDictionary<string, torch.Tensor> Saved { get; init; } = new Dictionary<string, torch.Tensor>();

    /// <summary>Configurations by component, where some came with the adapter.</summary>
    public IReadOnlyDictionary<AdapterComponent, LoKrConfig> Configs { get; init; } = new Dictionary<AdapterComponent, LoKrConfig>();

    /// <summary>Metadata of the file's header.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; init; } = new Dictionary<string, string>();

    /// <summary>A factor that a configuration or a trainer's metadata names.</summary>
    public int? FactorHint { get; init; }

    /// <summary>All modules of the base model, for short target lists; empty where it is not known.</summary>
    public IReadOnlyCollection<string> AllNames { get; init; } = [];

    /// <summary>Components that have anything.</summary>
    public IReadOnlyList<AdapterComponent> Components =>
        [.. Modules.Select(static module => module.Component).Concat(Norms.Select(static norm => norm.Component)).Distinct().Order()];
}

/// <summary>The part of a pipeline that a module of an adapter file belongs to.</summary>
public enum AdapterComponent
{
    /// <summary>The file does not say: the whole model.</summary>
    Model,

    /// <summary>The denoiser, as a UNet.</summary>
    Unet,

    /// <summary>The denoiser, as a transformer.</summary>
    Transformer,

    /// <summary>The first text encoder.</summary>
    TextEncoder,

    /// <summary>The second text encoder.</summary>
    TextEncoder2,

    /// <summary>The third text encoder.</summary>
    TextEncoder3,

    /// <summary>The denoiser of Stable Cascade's first stage.</summary>
    PriorUnet,

    /// <summary>The text encoder of Stable Cascade's first stage.</summary>
    PriorTextEncoder,
}

/// <summary>The factors of one module in memory, whatever file or model they come from.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the module.</param>
/// <param name="IsDotted">Whether the name has its dots; otherwise underscores stand in their place.</param>
/// <param name="Geometry">What the shapes say.</param>
/// <param name="Scale">What w1 ⊗ w2 is multiplied with.</param>
/// <param name="Tensors">Tensors by suffix, the alpha as it was stored.</param>
internal sealed record AdapterModule(
    AdapterComponent Component,
    string Name,
    bool IsDotted,
    FactorGeometry Geometry,
    ModuleScale Scale,
    IReadOnlyDictionary<string, torch.Tensor> Tensors)
{
    /// <summary>Shape of the base layer's weight as out×in×kernel; null where it is not known.</summary>
    public IReadOnlyList<long>? WeightShape { get; init; }

    /// <summary>Whether the factors of a one-dimensional convolution with a full w2 mean w2 ⊗ w1.</summary>
    public bool IsReversed { get; init; }

    /// <summary>Kernel size; null where neither the factors nor the base layer tell it.</summary>
    public IReadOnlyList<long>? Kernel => WeightShape is null ? Geometry.Kernel : [.. WeightShape.Skip(2)];

    /// <summary>Axis of DoRA's magnitudes; null without any.</summary>
    public WeightDecomposeAxis? DoraAxis { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Component == AdapterComponent.Model ? Name : $"{Component} {Name}";
}

/// <summary>Changes of a norm's weight and bias (LyCORIS <c>train_norm</c>).</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the norm.</param>
/// <param name="IsDotted">Whether the name has its dots.</param>
/// <param name="Tensors">w_norm and b_norm, and an alpha where the file has one.</param>
internal sealed record AdapterNorm(AdapterComponent Component, string Name, bool IsDotted, IReadOnlyDictionary<string, torch.Tensor> Tensors);

/// <summary>Turns the tensors of a module into what another program's readers take for the same thing.</summary>
internal static class AdapterTensors
{
    /// <summary>
    /// A one-dimensional convolution of kernel 1 with a full w2 read as w2 ⊗ w1 instead of w1 ⊗ w2, or the other way round: the factors
    /// change places. With a larger kernel there is no such pair.
    /// </summary>
    public static AdapterModule? Swap(AdapterModule module)
    {
        FactorGeometry geometry = module.Geometry;
        if (geometry.Kernel is not [1])
        {
            return null;
        }

        Dictionary<string, Tensor> tensors = new(module.Tensors, StringComparer.Ordinal);
        tensors[FactorNames.W1] = module.Tensors[FactorNames.W2].squeeze(-1);
        if (geometry.OuterRank is null)
        {
            tensors[FactorNames.W2] = module.Tensors[FactorNames.W1].unsqueeze(-1);
        }
        else
        {
            tensors.Remove(FactorNames.W2);
            tensors.Remove(FactorNames.W1A);
            tensors.Remove(FactorNames.W1B);
            (tensors[FactorNames.W2A], tensors[FactorNames.W2B]) = (module.Tensors[FactorNames.W1A], module.Tensors[FactorNames.W1B]);
        }

        return module with
        {
            Tensors = tensors,
            Geometry = geometry with
            {
                L = geometry.K,
                M = geometry.Columns,
                K = geometry.L,
                Columns = geometry.M,
                OuterRank = null,
                InnerRank = geometry.OuterRank,
                Kernel = geometry.OuterRank is null ? geometry.Kernel : null,
            },
            IsReversed = !module.IsReversed && geometry.OuterRank is null,
        };
    }

    /// <summary>Multiplies a trained scalar into w1, as LyCORIS saves it.</summary>
    public static AdapterModule FoldScalar(AdapterModule module)
    {
        if (!module.Tensors.TryGetValue(FactorNames.Scalar, out Tensor? scalar))
        {
            return module;
        }

        AdapterModule folded = Scaled(module, scalar.to(float64).ToDouble());
        Dictionary<string, Tensor> tensors = new(folded.Tensors, StringComparer.Ordinal);
        tensors.Remove(FactorNames.Scalar);
        return folded with { Tensors = tensors };
    }

    /// <summary>The module with w1, or its left part, multiplied by a number. By a power of two nothing is rounded.</summary>
    public static AdapterModule Scaled(AdapterModule module, double factor)
    {
        if (factor == 1)
        {
            return module;
        }

        string suffix = module.Tensors.ContainsKey(FactorNames.W1) ? FactorNames.W1 : FactorNames.W1A;
        Tensor w1 = module.Tensors[suffix];
        using IDisposable noGrad = no_grad();
        return module with { Tensors = new Dictionary<string, Tensor>(module.Tensors, StringComparer.Ordinal) { [suffix] = (w1.to(float64) * factor).to(w1.dtype) } };
    }

    /// <summary>The core of a one-dimensional convolution with PEFT's second kernel dimension of 1, or without.</summary>
    public static AdapterModule WithCore(AdapterModule module, bool peft)
    {
        if (!module.Tensors.TryGetValue(FactorNames.T2, out Tensor? core))
        {
            return module;
        }

        // Without the base layer a core of k×1 may as well be that of a two-dimensional convolution, and stays.
        Tensor? changed = peft && core.dim() == 3 ? core.unsqueeze(-1)
            : !peft && core.dim() == 4 && module.WeightShape?.Count == 3 ? core.squeeze(-1)
            : null;
        return changed is null ? module : module with { Tensors = new Dictionary<string, Tensor>(module.Tensors, StringComparer.Ordinal) { [FactorNames.T2] = changed } };
    }

    /// <summary>
    /// The module with the alpha from which readers of alpha tensors get the same scale. Where both factors are full they take a scale
    /// of 1 whatever alpha says, so that any other is multiplied into w1.
    /// </summary>
    public static AdapterModule WithAlpha(AdapterModule module)
    {
        bool bothFull = module.Geometry.Rank is null;
        ModuleScale scale = module.Scale;
        bool keeps = module.Tensors.ContainsKey(AdapterSuffixes.Alpha) && scale.Convention == ScalingConvention.Lycoris;
        if (keeps)
        {
            return module;
        }

        long rank = module.Geometry.Rank ?? scale.Rank ?? (Math.Max(module.Geometry.K, module.Geometry.Columns) + 1) / 2;
        AdapterModule result = bothFull ? Scaled(module, scale.Factor) : module;
        double alpha = bothFull ? rank : scale.Factor * rank;
        return result with
        {
            Scale = new(rank, alpha, ScalingConvention.Lycoris, bothFull ? 1 : scale.Factor),
            Tensors = new Dictionary<string, Tensor>(result.Tensors, StringComparer.Ordinal) { [AdapterSuffixes.Alpha] = tensor((float)alpha) },
        };
    }

    /// <summary>The module without its alpha.</summary>
    public static AdapterModule WithoutAlpha(AdapterModule module)
    {
        if (!module.Tensors.ContainsKey(AdapterSuffixes.Alpha))
        {
            return module;
        }

        Dictionary<string, Tensor> tensors = new(module.Tensors, StringComparer.Ordinal);
        tensors.Remove(AdapterSuffixes.Alpha);
        return module with { Tensors = tensors };
    }
}
