using static TorchSharp.torch;

namespace LoKr.Models.Shared;

/// <summary>Chains of steps on large feature maps: outside training each map is released as soon as the next is there.</summary>
internal static class Chaining
{
    /// <summary>The next step's result; the input is disposed.</summary>
    /// <param name="input">A tensor that nothing else needs.</param>
    /// <param name="next">A step whose result is a tensor of its own.</param>
    public static Tensor Then(this Tensor input, Func<Tensor, Tensor> next)
    {
        using (input)
        {
            return next(input);
        }
    }
}
