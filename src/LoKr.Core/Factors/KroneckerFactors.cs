using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// w1 (full, or w1_a·w1_b) and w2 (full, w2_a·w2_b, or Tucker t2·w2_a·w2_b) with all their algebra.
/// ΔW[i1·k+i2, j1·n+j2, …] = w1[i1,j1]·w2[i2,j2,…]; scaling is applied by the caller. A trained scalar belongs to w1.
/// </summary>
/// <remarks>Holds the tensors it was given and does not own them.</remarks>
public sealed partial class KroneckerFactors
{
    private readonly Dictionary<string, Tensor> _tensors;
    private readonly Tensor? _w1;
    private readonly Tensor? _w2;

    /// <summary>Puts factors together.</summary>
    /// <param name="tensors">Tensors by PEFT suffix: w1 or w1_a and w1_b; w2, or w2_a and w2_b with or without t2.</param>
    /// <param name="kernel">Kernel size of a convolution; empty for a linear layer.</param>
    /// <param name="isReversed">Whether the delta is w2 ⊗ w1, as <see cref="IsReversed"/> says.</param>
    /// <exception cref="LoKrException">Factors are missing or do not fit each other.</exception>
    public KroneckerFactors(IReadOnlyDictionary<string, Tensor> tensors, IReadOnlyList<long>? kernel = null, bool isReversed = false)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        _tensors = new(tensors, StringComparer.Ordinal);
        Kernel = kernel ?? [];
        IsReversed = isReversed;
        long kernelCount = Kernel.Product();
        if (Find(FactorNames.W1) is Tensor w1)
        {
            _w1 = w1;
            (L, M) = (w1.shape[0], w1.shape[1]);
            Check(w1.dim() == 2);
        }
        else
        {
            Tensor a = Get(FactorNames.W1A);
            Tensor b = Get(FactorNames.W1B);
            Check(a.dim() == 2 && b.dim() == 2 && a.shape[1] == b.shape[0]);
            (L, M) = (a.shape[0], b.shape[1]);
        }

        if (Find(FactorNames.W2) is Tensor w2)
        {
            _w2 = w2;
            Check(w2.shape.AsSpan(2).SequenceEqual(Kernel.ToArray()));
            (K, N) = (w2.shape[0], w2.shape[1]);
        }
        else
        {
            Tensor a = Get(FactorNames.W2A);
            Tensor b = Get(FactorNames.W2B);
            Check(a.dim() == 2 && b.dim() == 2);
            if (Find(FactorNames.T2) is Tensor core)
            {
                Check(core.shape[0] == a.shape[0] && core.shape[1] == b.shape[0] && core.numel() == a.shape[0] * b.shape[0] * kernelCount);
                (K, N) = (a.shape[1], b.shape[1]);
            }
            else
            {
                Check(a.shape[1] == b.shape[0] && b.shape[1] % kernelCount == 0);
                (K, N) = (a.shape[0], b.shape[1] / kernelCount);
            }
        }

        DType = _tensors.Values.First().dtype;
    }

    /// <summary>The factors by PEFT suffix: lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2, lokr_w2_a, lokr_w2_b, lokr_t2.</summary>
    public IReadOnlyDictionary<string, Tensor> Tensors => _tensors;

    /// <summary>
    /// Whether the delta is w2 ⊗ w1: ΔW[i2·l+i1, j2·m+j1, …] = w1[i1,j1]·w2[i2,j2,…]. That is what PEFT's reshape makes of a
    /// one-dimensional convolution with a full w2.
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
    public bool BothFull => _tensors.ContainsKey(FactorNames.W1) && _tensors.ContainsKey(FactorNames.W2);

    /// <summary>Number of parameters.</summary>
    public long ParameterCount => _tensors.Values.Sum(static tensor => tensor.numel());

    /// <summary>Type of the factors.</summary>
    internal ScalarType DType { get; }

    /// <inheritdoc/>
    public override string ToString() => string.Join(", ", _tensors
        .OrderBy(static pair => pair.Key, StringComparer.Ordinal)
        .Select(static pair => $"{pair.Key.Replace("lokr_", "", StringComparison.Ordinal)} {string.Join('×', pair.Value.shape)}"));

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
