using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>
/// Initial values of fresh factors, as PEFT draws them: Kaiming uniform with a = √5, that is U(−b, b) with b = 1/√fan_in,
/// in PEFT's order of draws. Numbers are drawn on the CPU, so that a seed means the same on every device.
/// </summary>
internal sealed class FactorInitializer : IDisposable
{
    private readonly Generator? _generator;

    /// <summary>Draws from a seed, or from torch's global generator.</summary>
    public FactorInitializer(long? seed) => _generator = seed is long value ? new Generator((ulong)value) : null;

    /// <summary>Fills the factors of one layer.</summary>
    public void Fill(LoKrLayer layer)
    {
        (KroneckerFactors factors, InitWeights scheme) = (layer.Factors, layer.Config.InitWeights);
        // PEFT's order: w1 or w1_a, w1_b; then w2 or w2_a, w2_b; then t2. Zeros take nothing from the generator.
        string[] order = [FactorNames.W1, FactorNames.W1A, FactorNames.W1B, FactorNames.W2, FactorNames.W2A, FactorNames.W2B, FactorNames.T2];
        string[] zeros = scheme switch
        {
            InitWeights.Default => [FactorNames.W1, FactorNames.W1A],
            InitWeights.Lycoris => [FactorNames.W2, FactorNames.W2B],
            InitWeights.Random => [],
            _ => throw new LoKrException(ErrorIds.OptionNotSupported, LoKrErrorKind.NotSupported, $"InitWeights {scheme} is not supported.", "Use Default, Random or Lycoris."),
        };
        using IDisposable noGrad = no_grad();
        if (factors.Tensors.TryGetValue(FactorNames.Scalar, out Tensor? scalar))
        {
            // A zero scalar already makes the delta zero; zero factors beside it would never get a gradient.
            zeros = [];
            scalar.fill_(scheme is InitWeights.Random ? 1 : 0);
        }

        if (factors.Tensors.TryGetValue(FactorNames.DoraScale, out Tensor? magnitude) && magnitude.device_type != DeviceType.META)
        {
            WeightDecomposition.Initialize(magnitude, layer.BaseLayer, layer.Config.WeightDecomposeAxis);
        }

        foreach (string suffix in order)
        {
            if (factors.Tensors.TryGetValue(suffix, out Tensor? tensor) && tensor.device_type != DeviceType.META)
            {
                if (zeros.Contains(suffix))
                {
                    tensor.zero_();
                }
                else
                {
                    Draw(tensor);
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _generator?.Dispose();

    private void Draw(Tensor tensor)
    {
        long fanIn = tensor.shape.Skip(1).Product();
        double bound = 1 / Math.Sqrt(fanIn);
        using Tensor values = empty(tensor.shape, dtype: tensor.dtype).uniform_(-bound, bound, _generator);
        tensor.copy_(values);
    }
}

/// <summary>Shapes of the factors of one layer as a file has them, where no decompose factor gives those of all layers.</summary>
internal static class FileShapes
{
    /// <summary>
    /// Reads the shapes and what the file has beside the factors. Null where they do not fit each other or the layer: the loader
    /// then compares with what the configuration asks for, and names the difference.
    /// </summary>
    /// <param name="layer">The base layer.</param>
    /// <param name="config">Configuration of the adapter.</param>
    /// <param name="rank">Rank by configuration, for a layer with full factors.</param>
    /// <param name="tensors">Tensors by module name and suffix.</param>
    public static (FactorShapes Shapes, LoKrConfig Config)? Read(BaseLayer layer, LoKrConfig config, int rank, IReadOnlyDictionary<string, Tensor> tensors)
    {
        long[]? Shape(string suffix) => tensors.TryGetValue(ModuleTree.Join(layer.Name, suffix), out Tensor? tensor) ? tensor.shape : null;
        (long[]? a1, long[]? b1, long[]? a2, long[]? b2, long[]? core) = (Shape(FactorNames.W1A), Shape(FactorNames.W1B), Shape(FactorNames.W2A), Shape(FactorNames.W2B), Shape(FactorNames.T2));
        long[]? outer = Shape(FactorNames.W1) ?? (a1 is [_, _] && b1 is [_, _] ? [a1[0], b1[1]] : null);
        long kernel = layer.Kernel.Product();
        long[]? inner = Shape(FactorNames.W2)?[..2]
            ?? (a2 is not [_, _] || b2 is not [_, _] ? null
            : core is not null ? [a2[1], b2[1]]
            : b2[1] % kernel == 0 ? [a2[0], b2[1] / kernel] : null);
        if (outer is not [long l, long m] || inner is not [long k, long n] || l * k != layer.OutFeatures || m * n != layer.InFeatures)
        {
            return null;
        }

        long fileRank = b2?[0] ?? b1?[0] ?? rank;
        bool reversed = layer.Kernel.Count == 1 && a2 is null && config.Conv1dLayout == Conv1dLayout.Peft;
        long[]? magnitude = Shape(FactorNames.DoraScale);
        WeightDecomposeAxis axis = magnitude is null || magnitude.Product() != layer.OutFeatures
            || (magnitude.Length > 1 && magnitude[0] != layer.OutFeatures) ? WeightDecomposeAxis.Input : WeightDecomposeAxis.Output;
        return (
            new(l, m, k, n, layer.Kernel, fileRank, a1 is not null, a2 is not null, core is not null, reversed) { OuterRank = b1 is not null && b1[0] != fileRank ? b1[0] : null },
            config with
            {
                WeightDecompose = magnitude is not null,
                WeightDecomposeAxis = magnitude is null ? config.WeightDecomposeAxis : axis,
                UseScalar = Shape(FactorNames.Scalar) is not null,
            });
    }
}
