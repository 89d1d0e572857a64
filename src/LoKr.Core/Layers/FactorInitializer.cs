using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>
/// Initial values of new factors, as PEFT draws them: Kaiming uniform with a = √5, that is U(−b, b) with b = 1/√fan_in,
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
