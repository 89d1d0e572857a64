using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>
/// Pseudo numerical methods (arXiv:2202.09778): the first answers come from Runge-Kutta (four a step, algorithm 2) or, where the
/// settings skip it, from formulas of rising order; the rest from a linear multi-step formula of order four.
/// </summary>
internal sealed class PndmScheduler : DiffusionScheduler
{
    /// <summary>Order of both methods.</summary>
    public const int Order = 4;

    // The answers that the multi-step formulas weigh, the newest last, and what Runge-Kutta adds up.
    private readonly List<Tensor> _answers = [];
    private readonly int[] _timesteps;
    private readonly int _rungeKutta;
    private readonly int _stride;
    private Tensor? _sum;
    private Tensor? _start;

    public PndmScheduler(SchedulerSettings settings, int steps)
        : base(settings, steps)
    {
        _stride = settings.TrainTimesteps / steps;
        int[] whole = TimestepPlan.Whole(settings, steps);
        if (settings.SkipRungeKutta)
        {
            // The second timestep is visited twice: the first answer is averaged with the one where it leads to.
            _timesteps = steps == 1 ? whole : [.. whole[..2], .. whole[1..]];
        }
        else
        {
            int[] rising = [.. whole[..Order].Reverse().SelectMany(timestep => (int[])[timestep, timestep + (_stride / 2)])];
            int[] first = [.. rising[..^1].SelectMany(timestep => (int[])[timestep, timestep]).Skip(1).SkipLast(1).Reverse()];
            _rungeKutta = first.Length;
            _timesteps = [.. first, .. whole[3..]];
        }

        Timesteps = [.. _timesteps.Select(timestep => (double)timestep)];
    }

    public override IReadOnlyList<double> Timesteps { get; }

    protected override Tensor Advance(Tensor output, Tensor sample, Func<Tensor> noise) =>
        Index < _rungeKutta ? RungeKutta(output, sample) : MultiStep(output, sample);

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _answers.ForEach(static answer => answer.Dispose());
            _answers.Clear();
            Keep(ref _sum, null);
            Keep(ref _start, null);
        }

        base.Dispose(disposing);
    }

    private Tensor RungeKutta(Tensor output, Tensor sample)
    {
        int previous = _timesteps[Index] - (Index % 2 == 0 ? _stride / 2 : 0);
        int timestep = _timesteps[Index / 4 * 4];
        switch (Index % 4)
        {
            case 0:
                Keep(ref _sum, output / 6);
                Remember(output);
                Keep(ref _start, sample.alias());
                break;
            case 3:
                output = _sum! + (output / 6);
                break;
            default:
                Keep(ref _sum, _sum! + (output / 3));
                break;
        }

        return Transfer(_start!, timestep, previous, output);
    }

    private Tensor MultiStep(Tensor output, Tensor sample)
    {
        int timestep = _timesteps[Index];
        int previous = timestep - _stride;
        if (Index == 1 && _rungeKutta == 0)
        {
            // The second visit: back to the first sample, with the mean of both answers.
            (previous, timestep) = (timestep, timestep + _stride);
            return Transfer(_start!, timestep, previous, (output + _answers[^1]) / 2);
        }

        Remember(output);
        if (Index == 0)
        {
            Keep(ref _start, sample.alias());
        }

        Tensor[] last = [.. _answers];
        Tensor answer = last.Length switch
        {
            1 => last[0],
            2 => ((last[1] * 3) - last[0]) / 2,
            3 => ((last[2] * 23) - (last[1] * 16) + (last[0] * 5)) / 12,
            _ => ((last[3] * 55) - (last[2] * 59) + (last[1] * 37) - (last[0] * 9)) / 24,
        };
        return Transfer(sample, timestep, previous, answer);
    }

    /// <summary>From one timestep to an earlier one along an answer (formula 9).</summary>
    private Tensor Transfer(Tensor sample, int timestep, int previous, Tensor output)
    {
        double alpha = Noise.Alpha(timestep);
        double next = AlphaOrFinal(previous);
        double divisor = (alpha * Math.Sqrt(1 - next)) + Math.Sqrt(alpha * (1 - alpha) * next);
        return (sample * Math.Sqrt(next / alpha)) - (PredictNoise(output, sample, alpha) * ((next - alpha) / divisor));
    }

    private void Remember(Tensor answer)
    {
        if (_answers.Count == Order)
        {
            _answers[0].Dispose();
            _answers.RemoveAt(0);
        }

        _answers.Add(answer.alias().DetachFromDisposeScope());
    }

    private static void Keep(ref Tensor? place, Tensor? value)
    {
        place?.Dispose();
        place = value?.DetachFromDisposeScope();
    }
}
