using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>Numbers as sines and cosines of many frequencies (Ho et al., arXiv:2006.11239; Vaswani et al., arXiv:1706.03762).</summary>
/// <param name="Width">Number of features.</param>
/// <param name="CosinesFirst">Whether the cosines come before the sines (<c>flip_sin_to_cos</c>).</param>
/// <param name="FrequencyShift">Taken from the number of frequencies when their spacing is computed (<c>freq_shift</c>).</param>
internal sealed record TimestepProjection(int Width, bool CosinesFirst, double FrequencyShift)
{
    private const double LongestPeriod = 10000;

    /// <summary>Numbers [count] → [count, width] in float32, as diffusers computes them whatever the model's type.</summary>
    public Tensor Project(Tensor values)
    {
        using DisposeScope scope = NewDisposeScope();
        int half = Width / 2;
        Tensor exponents = arange(half, ScalarType.Float32, values.device) * (float)(-Math.Log(LongestPeriod));
        Tensor angles = values.to(ScalarType.Float32).unsqueeze(1) * (exponents / (float)(half - FrequencyShift)).exp().unsqueeze(0);
        Tensor features = CosinesFirst ? cat([angles.cos(), angles.sin()], 1) : cat([angles.sin(), angles.cos()], 1);
        return (Width % 2 == 0 ? features : nn.functional.pad(features, [0, 1])).MoveToOuterDisposeScope();
    }
}
