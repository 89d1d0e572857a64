using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>Deterministic DDIM (arXiv:2010.02502, formula 12 with eta 0).</summary>
internal sealed class DdimScheduler : DiffusionScheduler
{
    private readonly int[] _timesteps;

    public DdimScheduler(SchedulerSettings settings, int steps)
        : base(settings, steps)
    {
        _timesteps = TimestepPlan.Whole(settings, steps);
        Timesteps = [.. _timesteps.Select(timestep => (double)timestep)];
    }

    public override IReadOnlyList<double> Timesteps { get; }

    protected override Tensor Advance(Tensor output, Tensor sample, Func<Tensor> noise)
    {
        int timestep = _timesteps[Index];
        double alpha = Noise.Alpha(timestep);
        double next = AlphaOrFinal(timestep - (Settings.TrainTimesteps / StepCount));
        return (PredictClean(output, sample, alpha) * Math.Sqrt(next)) + (PredictNoise(output, sample, alpha) * Math.Sqrt(1 - next));
    }
}
