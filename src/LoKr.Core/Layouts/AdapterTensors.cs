using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>Rewrites the tensors of a module so that readers of another layout apply the same delta.</summary>
internal static class AdapterTensors
{
    /// <summary>
    /// The module with swapped factors, for a one-dimensional convolution whose full w2 the layout reads as w2 ⊗ w1 instead of w1 ⊗ w2, or
    /// the other way round. Returns null for a kernel larger than 1: no factors mean the same in both ways then.
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

    /// <summary>The module with its trained scalar multiplied into w1, as LyCORIS saves it.</summary>
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
    /// The module with an alpha tensor from which readers compute the same scale. Where both factors are full, readers apply a scale of 1
    /// whatever alpha says, so any other scale is multiplied into w1.
    /// </summary>
    public static AdapterModule WithAlpha(AdapterModule module)
    {
        bool bothFull = module.Geometry.Rank is null;
        ModuleScale scale = module.Scale;
        if (module.Tensors.ContainsKey(AdapterSuffixes.Alpha) && scale.Convention == ScalingConvention.Lycoris && (!bothFull || scale.Factor == 1))
        {
            return module;
        }

        long rank = module.Geometry.Rank ?? scale.Rank ?? module.Geometry.FullRank;
        AdapterModule result = bothFull ? Scaled(module, scale.Factor) : module;
        double alpha = bothFull ? rank : scale.Factor * rank;
        return result with
        {
            Scale = new(rank, alpha, ScalingConvention.Lycoris, bothFull ? 1 : scale.Factor),
            Tensors = new Dictionary<string, Tensor>(result.Tensors, StringComparer.Ordinal) { [AdapterSuffixes.Alpha] = tensor((float)alpha) },
        };
    }

    /// <summary>
    /// The module with the core of its convolution multiplied into w2_b: w2 = w2_aᵀ · (t2 · w2_b), the same product with the same rank, flat. The kernel
    /// becomes columns of w2_b.
    /// </summary>
    public static AdapterModule FoldCore(AdapterModule module)
    {
        if (!module.Tensors.TryGetValue(FactorNames.T2, out Tensor? core))
        {
            return module;
        }

        using IDisposable noGrad = no_grad();
        (Tensor left, Tensor right) = (module.Tensors[FactorNames.W2A], module.Tensors[FactorNames.W2B]);
        long rank = core.shape[0];

        // t2[i, j, kernel] · w2_b[j, q] summed over j, then columns (q, kernel).
        Tensor flat = einsum("ijk,jq->iqk", core.to(float64).reshape(rank, rank, -1), right.to(float64)).reshape(rank, -1);
        Dictionary<string, Tensor> tensors = new(module.Tensors, StringComparer.Ordinal);
        tensors.Remove(FactorNames.T2);
        tensors[FactorNames.W2A] = left.t().contiguous();
        tensors[FactorNames.W2B] = flat.to(right.dtype);
        return module with
        {
            Tensors = tensors,
            Geometry = module.Geometry with { Tucker = false, Kernel = null, Columns = flat.shape[1] },
            WeightShape = module.WeightShape ?? [module.Geometry.Out, module.Geometry.M * module.Geometry.Columns, .. module.Geometry.Kernel!],
        };
    }

    /// <summary>The module with w1 in place of w1_a · w1_b. Where w2 is whole, alpha loses its meaning, and the scale becomes part of w1.</summary>
    public static AdapterModule WholeW1(AdapterModule module)
    {
        if (module.Geometry.OuterRank is null)
        {
            return module;
        }

        using IDisposable noGrad = no_grad();
        bool loses = module.Geometry.InnerRank is null;
        Tensor left = module.Tensors[FactorNames.W1A];
        Tensor w1 = left.to(float64).mm(module.Tensors[FactorNames.W1B].to(float64)) * (loses ? module.Scale.Factor : 1);
        Dictionary<string, Tensor> tensors = new(module.Tensors, StringComparer.Ordinal) { [FactorNames.W1] = w1.to(left.dtype) };
        tensors.Remove(FactorNames.W1A);
        tensors.Remove(FactorNames.W1B);
        if (loses)
        {
            tensors.Remove(AdapterSuffixes.Alpha);
        }

        return module with { Tensors = tensors, Geometry = module.Geometry with { OuterRank = null }, Scale = loses ? module.Scale with { Factor = 1 } : module.Scale };
    }

    /// <summary>The module of a convolution with a whole w2 as the product of two matrices, one of them the identity: the same numbers, the kernel as columns.</summary>
    public static AdapterModule Flat(AdapterModule module)
    {
        using IDisposable noGrad = no_grad();
        Tensor w2 = module.Tensors[FactorNames.W2];
        Tensor matrix = w2.reshape(w2.shape[0], -1);
        long rank = Math.Min(matrix.shape[0], matrix.shape[1]);
        Tensor identity = eye(rank, dtype: w2.dtype, device: w2.device);
        Dictionary<string, Tensor> tensors = new(module.Tensors, StringComparer.Ordinal);
        tensors.Remove(FactorNames.W2);
        tensors.Remove(AdapterSuffixes.Alpha);
        (tensors[FactorNames.W2A], tensors[FactorNames.W2B]) = rank == matrix.shape[0] ? (identity, matrix.contiguous()) : (matrix.contiguous(), identity);
        return module with
        {
            Tensors = tensors,
            WeightShape = module.WeightShape ?? [module.Geometry.Out, module.Geometry.M * module.Geometry.Columns, .. module.Geometry.Kernel!],
            Geometry = module.Geometry with { InnerRank = rank, Kernel = null, Columns = matrix.shape[1] },
            Scale = module.Scale with { Rank = rank, Alpha = null },
        };
    }

    /// <summary>The module of a 1×1 convolution with its w2 as a matrix.</summary>
    public static AdapterModule WithoutKernel(AdapterModule module)
    {
        Tensor w2 = module.Tensors[FactorNames.W2];
        return module with
        {
            Tensors = new Dictionary<string, Tensor>(module.Tensors, StringComparer.Ordinal) { [FactorNames.W2] = w2.reshape(w2.shape[0], w2.shape[1]) },
            Geometry = module.Geometry with { Kernel = [] },
        };
    }

    /// <summary>The module without its alpha.</summary>
    public static AdapterModule WithoutAlpha(AdapterModule module) => module with { Tensors = module.Factors.ToDictionary(StringComparer.Ordinal) };
}
