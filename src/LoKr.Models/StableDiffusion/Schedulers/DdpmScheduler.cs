using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>Ancestral sampling (arXiv:2006.11239, formulas 6 and 7) over the timesteps that are visited.</summary>
internal sealed class DdpmScheduler : DiffusionScheduler
{
    private const double SmallestVariance = 1e-20;

    private readonly int[] _timesteps;

    public DdpmScheduler(SchedulerSettings settings, int steps)
        : base(settings, steps)
    {
        _timesteps = TimestepPlan.Whole(settings, steps);
        Timesteps = [.. _timesteps.Select(timestep => (double)timestep)];
    }

    public override IReadOnlyList<double> Timesteps { get; }

    public override bool DrawsNoise => true;

    protected override Tensor Advance(Tensor output, Tensor sample, Func<Tensor> noise)
    {
        int timestep = _timesteps[Index];
        double alpha = Noise.Alpha(timestep);
        double next = Index + 1 < _timesteps.Length ? Noise.Alpha(_timesteps[Index + 1]) : 1;
        double kept = alpha / next;
        double cleanWeight = Math.Sqrt(next) * (1 - kept) / (1 - alpha);
        double sampleWeight = Math.Sqrt(kept) * (1 - next) / (1 - alpha);
        Tensor mean = (PredictClean(output, sample, alpha) * cleanWeight) + (sample * sampleWeight);
        if (timestep == 0)
        {
            return mean;
        }

        double variance = Settings.LargeVariance ? 1 - kept : Math.Max((1 - next) / (1 - alpha) * (1 - kept), SmallestVariance);
        return mean + (noise() * Math.Sqrt(variance));
    }
}
