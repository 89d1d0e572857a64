using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>Euler's method in sigma space (arXiv:2206.00364, algorithm 2 without churn); timesteps need not be whole.</summary>
internal sealed class EulerScheduler : DiffusionScheduler
{
    private readonly float[] _sigmas;

    public EulerScheduler(SchedulerSettings settings, int steps)
        : base(settings, steps)
    {
        // In single precision, as the network gets them.
        float[] timesteps = [.. TimestepPlan.Create(settings, steps).Select(timestep => (float)timestep)];
        Timesteps = [.. timesteps.Select(timestep => (double)timestep)];
        float last = settings.EndsAtSmallestSigma ? Noise.Sigma(0) : 0;
        _sigmas = settings.LogLinearSigmas ? [.. LogLinear(steps), last] : [.. timesteps.Select(Interpolate), last];
    }

    public override IReadOnlyList<double> Timesteps { get; }

    public override double InitialSigma
    {
        get
        {
            double largest = _sigmas.Max();
            return Settings.Spacing == TimestepSpacing.Leading ? Math.Sqrt((largest * largest) + 1) : largest;
        }
    }

    public override Tensor ScaleInput(Tensor sample)
    {
        ArgumentNullException.ThrowIfNull(sample);
        double sigma = _sigmas[Index];
        return sample / Math.Sqrt((sigma * sigma) + 1);
    }

    protected override Tensor Advance(Tensor output, Tensor sample, Func<Tensor> noise)
    {
        double sigma = _sigmas[Index];
        double step = _sigmas[Index + 1] - sigma;

        // (sample − clean)/sigma, with the clean sample that the answer stands for.
        double variance = (sigma * sigma) + 1;
        Tensor slope = Settings.Prediction == PredictionType.Epsilon
            ? output
            : (output / Math.Sqrt(variance)) + (sample * (sigma / variance));
        return sample + (slope * step);
    }

    private float Interpolate(float timestep)
    {
        int below = Math.Clamp((int)MathF.Floor(timestep), 0, Noise.Timesteps - 1);
        int above = Math.Min(below + 1, Noise.Timesteps - 1);
        double share = timestep - below;
        return (float)(Noise.Sigma(below) + (((double)Noise.Sigma(above) - Noise.Sigma(below)) * share));
    }

    private IEnumerable<float> LogLinear(int steps)
    {
        // diffusers spaces one value more than there are steps; its last one is the smallest sigma, before the final one.
        double high = Math.Log(Noise.Sigma(Noise.Timesteps - 1));
        double low = Math.Log(Noise.Sigma(0));
        return Enumerable.Range(0, steps + 1).Select(i => (float)Math.Exp(high + ((low - high) * i / steps)));
    }
}
