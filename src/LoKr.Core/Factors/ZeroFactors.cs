using TorchSharp;

namespace LoKr.Core.Factors;

/// <summary>Finds factors whose product is zero, as those of an adapter that was never trained.</summary>
internal static class ZeroFactors
{
    /// <summary>Whether the product of a layer's factors is certainly zero: one of them is. With DoRA's magnitudes a zero product can change the weight, so it does not count.</summary>
    /// <param name="factors">Suffixes, and how to get each tensor.</param>
    public static bool IsProductZero(IEnumerable<(string Suffix, Func<torch.Tensor> Read)> factors)
    {
        (string Suffix, Func<torch.Tensor> Read)[] all = [.. factors];
        return !all.Any(static factor => factor.Suffix == FactorNames.DoraScale) && all.Any(static factor => IsZero(factor.Read()));
    }

    /// <summary>Whether every element is zero; false without values (on the meta device).</summary>
    public static bool IsZero(torch.Tensor tensor)
    {
        if (tensor.device_type == DeviceType.META)
        {
            return false;
        }

        using DisposeScope scope = torch.NewDisposeScope();
        using IDisposable noGrad = torch.no_grad();
        return !tensor.to(torch.ScalarType.Float32).any().item<bool>();
    }
}
