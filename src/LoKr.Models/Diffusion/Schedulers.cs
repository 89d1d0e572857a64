using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>
/// Denoises a batch of latents in a number of steps, with the numbers of diffusers. One object is one run: pass the network's predictions in the
/// order of <see cref="Timesteps"/>. Samples are float32 tensors [batch, channels, height, width].
/// </summary>
public abstract class DiffusionScheduler : IDisposable
{
    private protected DiffusionScheduler(SchedulerSettings settings, IReadOnlyList<double> timesteps)
    {
        Settings = settings;
        Timesteps = timesteps;
        Noise = new NoiseSchedule(settings);
    }

    /// <summary>Timesteps of the calls of the network, one for each call of <see cref="Step"/>; more than the steps for PNDM.</summary>
    public IReadOnlyList<double> Timesteps { get; }

    /// <summary>Standard deviation of the noise that a run starts from.</summary>
    public virtual double InitialSigma => 1;

    /// <summary>Index of the next timestep.</summary>
    public int Index { get; private set; }

    /// <summary>Whether steps draw noise of their own.</summary>
    public virtual bool DrawsNoise => false;

    /// <summary>The configuration.</summary>
    protected SchedulerSettings Settings { get; }

    /// <summary>The forward process.</summary>
    protected NoiseSchedule Noise { get; }

    /// <summary>Starts a run.</summary>
    /// <param name="config">The scheduler_config.json of the pipeline.</param>
    /// <param name="steps">Number of steps.</param>
    /// <param name="kind">Scheduler in place of the one in the configuration.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelConfigUnsupported"/>, <see cref="ErrorIds.ModelConfigInvalid"/> or <see cref="ErrorIds.GenerationOptionInvalid"/> for a number of steps that the scheduler cannot take.</exception>
    public static DiffusionScheduler Create(ModelConfig config, int steps, SchedulerKind? kind = null)
    {
        SchedulerSettings settings = SchedulerSettings.Read(config, kind);
        int fewest = settings.Kind == SchedulerKind.PNDM && !settings.SkipRungeKutta ? PndmScheduler.Order : 1;
        if (steps < fewest || steps > settings.TrainTimesteps)
        {
            throw new LoKrException(ErrorIds.GenerationOptionInvalid, LoKrErrorKind.InvalidArgument,
                $"{settings.Kind} cannot take {steps} steps.", $"Give {fewest} to {settings.TrainTimesteps}.") { Target = steps };
        }

        int largest = (int)TimestepPlan.Create(settings, steps)[0];
        if (largest >= settings.TrainTimesteps)
        {
            throw config.Invalid("steps_offset", $"leads to timestep {largest} with {steps} steps, but there are {settings.TrainTimesteps}");
        }

        return settings.Kind switch
        {
            SchedulerKind.DDIM => new DdimScheduler(settings, steps),
            SchedulerKind.PNDM => new PndmScheduler(settings, steps),
            SchedulerKind.Euler => new EulerScheduler(settings, steps),
            _ => new DdpmScheduler(settings, steps),
        };
    }

    /// <summary>Scales the sample for the network at the next timestep.</summary>
    public virtual Tensor ScaleInput(Tensor sample)
    {
        ArgumentNullException.ThrowIfNull(sample);
        return sample.alias();
    }

    /// <summary>Takes one step, from the network's prediction at the next timestep to a sample with less noise.</summary>
    /// <param name="output">The prediction, of the sample's shape.</param>
    /// <param name="sample">The result of the previous step.</param>
    /// <param name="noise">Draws standard normal noise of the sample's shape; used if <see cref="DrawsNoise"/>.</param>
    public Tensor Step(Tensor output, Tensor sample, Func<Tensor> noise)
    {
        ArgumentNullException.ThrowIfNull(output);
        ArgumentNullException.ThrowIfNull(sample);
        ArgumentNullException.ThrowIfNull(noise);
        if (Index == Timesteps.Count)
        {
            throw new InvalidOperationException("The run is complete.");
        }

        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor next = Advance(output, sample, noise).MoveToOuterDisposeScope();
        Index++;
        return next;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>The step at <see cref="Index"/>.</summary>
    protected abstract Tensor Advance(Tensor output, Tensor sample, Func<Tensor> noise);

    /// <summary>Releases the tensors that a run keeps between steps.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }

    /// <summary>A timestep of the run that is whole.</summary>
    private protected int TimestepAt(int index) => (int)Timesteps[index];

    /// <summary>ᾱ of a timestep; before the first one, that of a clean sample according to the settings.</summary>
    private protected double AlphaOrFinal(int timestep) =>
        timestep >= 0 ? Noise.Alpha(timestep) : Settings.SetAlphaToOne ? 1 : Noise.Alpha(0);

    /// <summary>The clean sample of a prediction, clipped if the settings ask for it.</summary>
    private protected Tensor PredictClean(Tensor output, Tensor sample, double alpha)
    {
        (double signal, double rest) = (Math.Sqrt(alpha), Math.Sqrt(1 - alpha));
        Tensor clean = Settings.Prediction == PredictionType.Epsilon ? (sample - (output * rest)) / signal : (sample * signal) - (output * rest);
        return Settings.ClipRange is double range ? clean.clamp(-range, range) : clean;
    }

    /// <summary>The noise of a prediction.</summary>
    private protected Tensor PredictNoise(Tensor output, Tensor sample, double alpha) => Settings.Prediction == PredictionType.Epsilon
        ? output
        : (output * Math.Sqrt(alpha)) + (sample * Math.Sqrt(1 - alpha));
}

/// <summary>Deterministic DDIM (arXiv:2010.02502, formula 12 with eta 0).</summary>
internal sealed class DdimScheduler(SchedulerSettings settings, int steps) : DiffusionScheduler(settings, TimestepPlan.Whole(settings, steps))
{
    protected override Tensor Advance(Tensor output, Tensor sample, Func<Tensor> noise)
    {
        int timestep = TimestepAt(Index);
        double alpha = Noise.Alpha(timestep);
        double next = AlphaOrFinal(timestep - (Settings.TrainTimesteps / steps));
        return (PredictClean(output, sample, alpha) * Math.Sqrt(next)) + (PredictNoise(output, sample, alpha) * Math.Sqrt(1 - next));
    }
}

/// <summary>Ancestral sampling (arXiv:2006.11239, formulas 6 and 7) over the timesteps that are visited.</summary>
internal sealed class DdpmScheduler(SchedulerSettings settings, int steps) : DiffusionScheduler(settings, TimestepPlan.Whole(settings, steps))
{
    private const double SmallestVariance = 1e-20;

    public override bool DrawsNoise => true;

    protected override Tensor Advance(Tensor output, Tensor sample, Func<Tensor> noise)
    {
        int timestep = TimestepAt(Index);
        double alpha = Noise.Alpha(timestep);
        double next = Index + 1 < Timesteps.Count ? Noise.Alpha(TimestepAt(Index + 1)) : 1;
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

/// <summary>Euler's method in sigma space (arXiv:2206.00364, algorithm 2 without churn); timesteps need not be whole.</summary>
internal sealed class EulerScheduler : DiffusionScheduler
{
    private readonly float[] _sigmas;

    // In single precision, like the input of the network.
    public EulerScheduler(SchedulerSettings settings, int steps)
        : base(settings, [.. TimestepPlan.Create(settings, steps).Select(timestep => (double)(float)timestep)])
    {
        float last = settings.EndsAtSmallestSigma ? Noise.Sigma(0) : 0;
        _sigmas = settings.LogLinearSigmas ? [.. LogLinear(steps), last] : [.. Timesteps.Select(timestep => Interpolate((float)timestep)), last];
    }

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

        // (sample − clean)/sigma, with the clean sample of the prediction.
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

/// <summary>
/// Pseudo numerical methods (arXiv:2202.09778): the first answers come from Runge-Kutta (four a step, algorithm 2) or, where the
/// settings skip it, from formulas of rising order; the rest from a linear multi-step formula of order four.
/// </summary>
internal sealed class PndmScheduler : DiffusionScheduler
{
    /// <summary>Order of both methods.</summary>
    public const int Order = 4;

    // Three steps of Runge-Kutta give the answers that the multi-step formula needs.
    private const int RungeKuttaVisits = 4 * (Order - 1);

    // The answers that the multi-step formulas weigh, the newest last, and what Runge-Kutta adds up.
    private readonly List<Tensor> _answers = [];
    private readonly int _rungeKutta;
    private readonly int _stride;
    private Tensor? _sum;
    private Tensor? _start;

    public PndmScheduler(SchedulerSettings settings, int steps)
        : base(settings, Visits(settings, steps))
    {
        _stride = settings.TrainTimesteps / steps;
        _rungeKutta = settings.SkipRungeKutta ? 0 : RungeKuttaVisits;
    }

    private static double[] Visits(SchedulerSettings settings, int steps)
    {
        double[] whole = TimestepPlan.Whole(settings, steps);
        if (settings.SkipRungeKutta)
        {
            // The second timestep is visited twice: the first answer is averaged with the one where it leads to.
            return steps == 1 ? whole : [.. whole[..2], .. whole[1..]];
        }

        double halfStride = settings.TrainTimesteps / steps / 2;
        double[] rising = [.. whole[..Order].Reverse().SelectMany(timestep => (double[])[timestep, timestep + halfStride])];
        return [.. rising[..^1].SelectMany(timestep => (double[])[timestep, timestep]).Skip(1).SkipLast(1).Reverse(), .. whole[(Order - 1)..]];
    }

    protected override Tensor Advance(Tensor output, Tensor sample, Func<Tensor> noise) =>
        Index < _rungeKutta ? RungeKutta(output, sample) : MultiStep(output, sample);

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _answers.ForEach(static answer => answer.Dispose());
            _answers.Clear();
            Replace(ref _sum, null);
            Replace(ref _start, null);
        }

        base.Dispose(disposing);
    }

    private Tensor RungeKutta(Tensor output, Tensor sample)
    {
        int previous = TimestepAt(Index) - (Index % 2 == 0 ? _stride / 2 : 0);
        int timestep = TimestepAt(Index / 4 * 4);
        switch (Index % 4)
        {
            case 0:
                Replace(ref _sum, output / 6);
                Remember(output);
                Replace(ref _start, sample.alias());
                break;
            case 3:
                output = _sum! + (output / 6);
                break;
            default:
                Replace(ref _sum, _sum! + (output / 3));
                break;
        }

        return Transfer(_start!, timestep, previous, output);
    }

    private Tensor MultiStep(Tensor output, Tensor sample)
    {
        int timestep = TimestepAt(Index);
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
            Replace(ref _start, sample.alias());
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

    private static void Replace(ref Tensor? place, Tensor? value)
    {
        place?.Dispose();
        place = value?.DetachFromDisposeScope();
    }
}

/// <summary>The supported schedulers, named after diffusers' classes without their suffix.</summary>
public enum SchedulerKind
{
    /// <summary>DDIMScheduler: deterministic steps of the diffusion implicit model (Song et al., arXiv:2010.02502), eta 0.</summary>
    DDIM,

    /// <summary>PNDMScheduler: Runge-Kutta and linear multi-step of pseudo numerical methods (Liu et al., arXiv:2202.09778).</summary>
    PNDM,

    /// <summary>EulerDiscreteScheduler: first order steps in sigma space (Karras et al., arXiv:2206.00364), without churn.</summary>
    Euler,

    /// <summary>DDPMScheduler: ancestral sampling of the diffusion model (Ho et al., arXiv:2006.11239), with fresh noise in every step.</summary>
    DDPM,
}
