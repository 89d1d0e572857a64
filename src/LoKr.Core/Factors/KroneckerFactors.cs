using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// w1 (full, or w1_a·w1_b) and w2 (full, w2_a·w2_b, or Tucker t2·w2_a·w2_b) of one layer.
/// ΔW[i1·k+i2, j1·n+j2, …] = w1[i1,j1]·w2[i2,j2,…]; the caller applies the scaling. A trained scalar is a factor of w1.
/// </summary>
/// <remarks>
/// Refers to the tensors it was given and does not own them. The algorithms that apply, merge or measure the factors without forming ΔW are
/// classes of their own, one for each.
/// </remarks>
public sealed class KroneckerFactors
{
    private readonly Dictionary<string, Tensor> _tensors;

    /// <summary>Checks that the factors fit each other.</summary>
    /// <param name="tensors">Tensors by PEFT suffix: w1 or w1_a and w1_b; w2, or w2_a and w2_b with or without t2.</param>
    /// <param name="kernel">Kernel size of a convolution; empty for a linear layer.</param>
    /// <param name="isReversed">Whether the delta is w2 ⊗ w1, see <see cref="IsReversed"/>.</param>
    /// <exception cref="LoKrException">Factors are missing or do not fit each other.</exception>
    public KroneckerFactors(IReadOnlyDictionary<string, Tensor> tensors, IReadOnlyList<long>? kernel = null, bool isReversed = false)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        _tensors = new(tensors, StringComparer.Ordinal);
        Kernel = kernel ?? [];
        IsReversed = isReversed;
        long kernelCount = Kernel.Product();
        FullW1 = Find(FactorNames.W1);
        FullW2 = Find(FactorNames.W2);
        Scalar = Find(FactorNames.Scalar);
        if (FullW1 is not null)
        {
            Check(FullW1.dim() == 2);
            (L, M) = (FullW1.shape[0], FullW1.shape[1]);
        }
        else
        {
            W1A = Get(FactorNames.W1A);
            W1B = Get(FactorNames.W1B);
            Check(W1A.dim() == 2 && W1B.dim() == 2 && W1A.shape[1] == W1B.shape[0]);
            (L, M) = (W1A.shape[0], W1B.shape[1]);
        }

        if (FullW2 is not null)
        {
            Check(FullW2.dim() >= 2 && FullW2.shape.AsSpan(2).SequenceEqual(Kernel.ToArray()));
            (K, N) = (FullW2.shape[0], FullW2.shape[1]);
        }
        else
        {
            W2A = Get(FactorNames.W2A);
            W2B = Get(FactorNames.W2B);
            Core = Find(FactorNames.T2);
            Check(W2A.dim() == 2 && W2B.dim() == 2);
            if (Core is not null)
            {
                Check(Core.shape[0] == W2A.shape[0] && Core.shape[1] == W2B.shape[0] && Core.numel() == W2A.shape[0] * W2B.shape[0] * kernelCount);
                (K, N) = (W2A.shape[1], W2B.shape[1]);
            }
            else
            {
                Check(W2A.shape[1] == W2B.shape[0] && W2B.shape[1] % kernelCount == 0);
                (K, N) = (W2A.shape[0], W2B.shape[1] / kernelCount);
            }
        }

        DType = (FullW1 ?? W1A!).dtype;
    }

    /// <summary>The factors by PEFT suffix: lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2, lokr_w2_a, lokr_w2_b, lokr_t2.</summary>
    public IReadOnlyDictionary<string, Tensor> Tensors => _tensors;

    /// <summary>
    /// Whether the delta is w2 ⊗ w1: ΔW[i2·l+i1, j2·m+j1, …] = w1[i1,j1]·w2[i2,j2,…]. PEFT's reshape of a one-dimensional convolution with a
    /// full w2 has this effect.
    /// </summary>
    public bool IsReversed { get; }

    /// <summary>Rows of w1.</summary>
    public long L { get; }

    /// <summary>Columns of w1.</summary>
    public long M { get; }

    /// <summary>Rows of w2.</summary>
    public long K { get; }

    /// <summary>Columns of w2.</summary>
    public long N { get; }

    /// <summary>Kernel size of a convolution; empty for a linear layer.</summary>
    public IReadOnlyList<long> Kernel { get; }

    /// <summary>Output size of the layer, l·k.</summary>
    public long OutFeatures => L * K;

    /// <summary>Input size of the layer, m·n.</summary>
    public long InFeatures => M * N;

    /// <summary>Whether neither w1 nor w2 is a low-rank product.</summary>
    public bool BothFull => FullW1 is not null && FullW2 is not null;

    /// <summary>Number of parameters.</summary>
    public long ParameterCount => _tensors.Values.Sum(static tensor => tensor.numel());

    /// <summary>The factors as the linear map x ↦ x·(w1 ⊗ w2)ᵀ.</summary>
    public LinearContraction Linear => field ??= new(this);

    /// <summary>The factors as a convolution.</summary>
    internal ConvolutionContraction Convolution => field ??= new(this);

    /// <summary>Type of the factors.</summary>
    internal ScalarType DType { get; }

    /// <summary>w1 l×m where it is stored full; null otherwise.</summary>
    internal Tensor? FullW1 { get; }

    /// <summary>Left part of a low-rank w1, l×r; null where w1 is full.</summary>
    internal Tensor? W1A { get; }

    /// <summary>Right part of a low-rank w1, r×m; null where w1 is full.</summary>
    internal Tensor? W1B { get; }

    /// <summary>w2 k×n×kernel where it is stored full; null otherwise.</summary>
    internal Tensor? FullW2 { get; }

    /// <summary>Left part of a low-rank w2, k×r, or r×k with a core; null where w2 is full.</summary>
    internal Tensor? W2A { get; }

    /// <summary>Right part of a low-rank w2, r×(n·kernel), or r×n with a core; null where w2 is full.</summary>
    internal Tensor? W2B { get; }

    /// <summary>Tucker core r×r×kernel of a low-rank w2; null without one.</summary>
    internal Tensor? Core { get; }

    /// <summary>A trained number that multiplies w1; null without one.</summary>
    internal Tensor? Scalar { get; }

    /// <summary>w1, l×m; a low-rank w1 is multiplied out.</summary>
    public Tensor W1()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] steps = OuterSteps();
        return (steps.Length == 1 ? steps[0].alias() : steps[1].mm(steps[0])).MoveToOuterDisposeScope();
    }

    /// <summary>w2, k×n×kernel; a low-rank w2 is multiplied out.</summary>
    public Tensor W2()
    {
        if (FullW2 is not null)
        {
            return FullW2.alias();
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor product = Core is null
            ? W2A!.mm(W2B!)
            : einsum("ijx,ip,jq->pqx", Core.reshape(W2A!.shape[0], W2B!.shape[0], -1), W2A, W2B);
        return product.reshape([K, N, .. Kernel]).MoveToOuterDisposeScope();
    }

    /// <summary>The dense scale·(w1 ⊗ w2), out×in×kernel; for inspection and tests, never used by training.</summary>
    public Tensor ToDense(double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor w1 = W1();
        Tensor outer = BroadcastOuter(scale == 1 ? w1 : w1 * scale);
        return (outer * BroadcastInner(W2())).reshape([OutFeatures, InFeatures, .. Kernel]).MoveToOuterDisposeScope();
    }

    /// <summary>Frobenius norm of w1 ⊗ w2, from the factors: ‖w1‖·‖w2‖.</summary>
    public double FrobeniusNorm()
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        return linalg.norm(W1()).ToDouble() * linalg.norm(W2().flatten()).ToDouble();
    }

    /// <inheritdoc/>
    public override string ToString() => string.Join(", ", _tensors
        .OrderBy(static pair => pair.Key, StringComparer.Ordinal)
        .Select(static pair => $"{pair.Key.Replace("lokr_", "", StringComparison.Ordinal)} {string.Join('×', pair.Value.shape)}"));

    /// <summary>Rows of scale·(w1 ⊗ w2) for an embedding: row i is w1[i/k] ⊗ w2[i mod k].</summary>
    /// <param name="indices">Indices of rows, any shape.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    /// <returns>[indices…, in].</returns>
    internal Tensor Rows(Tensor indices, double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor flat = indices.reshape(-1).to(int64);
        Tensor outerIndex = flat.div(K, RoundingMode.floor);
        Tensor innerIndex = flat.remainder(K);
        Tensor[] steps = OuterSteps();
        Tensor outer = steps.Length == 1 ? steps[0].index_select(0, outerIndex) : steps[1].index_select(0, outerIndex).mm(steps[0]);
        Tensor inner = FullW2 is not null ? FullW2.index_select(0, innerIndex) : W2A!.index_select(0, innerIndex).mm(W2B!);
        return ((outer * scale).unsqueeze(2) * inner.unsqueeze(1)).reshape([.. indices.shape, InFeatures]).MoveToOuterDisposeScope();
    }

    /// <summary>w1, or w1_b and w1_a in the order in which they are applied to an input; a trained scalar is multiplied in.</summary>
    internal Tensor[] OuterSteps()
    {
        Tensor[] steps = FullW1 is not null ? [FullW1] : [W1B!, W1A!];
        if (Scalar is not null)
        {
            steps[0] = steps[0] * Scalar;
        }

        return steps;
    }

    /// <summary>w1 in a shape that broadcasts with <see cref="BroadcastInner"/> to the rows and columns of the delta.</summary>
    internal Tensor BroadcastOuter(Tensor w1) => w1.reshape([.. IsReversed ? [1, L, 1, M] : (long[])[L, 1, M, 1], .. Kernel.Select(static _ => 1L)]);

    /// <summary>w2 in a shape that broadcasts with <see cref="BroadcastOuter"/> to the rows and columns of the delta.</summary>
    internal Tensor BroadcastInner(Tensor w2) => w2.reshape([.. IsReversed ? [K, 1, N, 1] : (long[])[1, K, 1, N], .. Kernel]);

    private Tensor? Find(string suffix) => _tensors.GetValueOrDefault(suffix);

    private Tensor Get(string suffix) => Find(suffix) ?? throw new LoKrException(
        ErrorIds.AdapterKeysMismatch,
        LoKrErrorKind.InvalidData,
        $"The factor {suffix} is missing; there are {string.Join(", ", _tensors.Keys)}.");

    private void Check(bool fits)
    {
        if (!fits)
        {
            throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData, $"The factors do not fit each other: {this}.");
        }
    }
}
