using LoKr.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>
/// Takes a batch from noise to latents in a number of steps, with the numbers of diffusers. One object is one run: give it the network's
/// answers in the order of <see cref="Timesteps"/>. Samples are float32 tensors [batch, channels, height, width].
/// </summary>
public abstract class DiffusionScheduler : IDisposable
{
    private protected DiffusionScheduler(SchedulerSettings settings, int steps)
    {
        Settings = settings;
        StepCount = steps;
        Noise = new NoiseSchedule(settings);
    }

    /// <summary>Timesteps that the network is asked about, one a call of <see cref="Step"/>; more than the steps for PNDM.</summary>
    public abstract IReadOnlyList<double> Timesteps { get; }

    /// <summary>Standard deviation of the noise that a run starts from.</summary>
    public virtual double InitialSigma => 1;

    /// <summary>Index of the next timestep.</summary>
    public int Index { get; private set; }

    /// <summary>Whether steps draw noise of their own.</summary>
    public virtual bool DrawsNoise => false;

    /// <summary>What the configuration says.</summary>
    protected SchedulerSettings Settings { get; }

    /// <summary>The forward process.</summary>
    protected NoiseSchedule Noise { get; }

    /// <summary>Steps of the run.</summary>
    protected int StepCount { get; }

    /// <summary>Starts a run.</summary>
    /// <param name="config">The scheduler_config.json of the pipeline.</param>
    /// <param name="steps">Number of steps.</param>
    /// <param name="kind">Another scheduler than the one that it names.</param>
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

    /// <summary>The sample as the network wants it at the next timestep.</summary>
    public virtual Tensor ScaleInput(Tensor sample)
    {
        ArgumentNullException.ThrowIfNull(sample);
        return sample.alias();
    }

    /// <summary>One step: from the network's answer at the next timestep to a sample with less noise.</summary>
    /// <param name="output">The answer, of the sample's shape.</param>
    /// <param name="sample">The sample that the step before returned.</param>
    /// <param name="noise">Draws standard normal noise of the sample's shape; used where <see cref="DrawsNoise"/> says so.</param>
    public Tensor Step(Tensor output, Tensor sample, Func<Tensor> noise)
    {
        ArgumentNullException.ThrowIfNull(output);
        ArgumentNullException.ThrowIfNull(sample);
        ArgumentNullException.ThrowIfNull(noise);
        if (Index == Timesteps.Count)
        {
            throw new InvalidOperationException("The run is over: there is no timestep left.");
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

    /// <summary>Frees what a run keeps between steps.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }

    /// <summary>ᾱ of a timestep; before the first one, that of a clean sample as the settings want it.</summary>
    private protected double AlphaOrFinal(int timestep) =>
        timestep >= 0 ? Noise.Alpha(timestep) : Settings.SetAlphaToOne ? 1 : Noise.Alpha(0);

    /// <summary>The clean sample that the answer stands for, clipped if the settings say so.</summary>
    private protected Tensor PredictClean(Tensor output, Tensor sample, double alpha)
    {
        (double signal, double rest) = (Math.Sqrt(alpha), Math.Sqrt(1 - alpha));
        Tensor clean = Settings.Prediction == PredictionType.Epsilon ? (sample - (output * rest)) / signal : (sample * signal) - (output * rest);
        return Settings.ClipRange is double range ? clean.clamp(-range, range) : clean;
    }

    /// <summary>The noise that the answer stands for.</summary>
    private protected Tensor PredictNoise(Tensor output, Tensor sample, double alpha) => Settings.Prediction == PredictionType.Epsilon
        ? output
        : (output * Math.Sqrt(alpha)) + (sample * Math.Sqrt(1 - alpha));
}
