using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>
/// The forward process: how much of a sample is left, and how much noise is in it, at each timestep of training.
/// ᾱ is the running product of 1 − β, in float32 as in diffusers.
/// </summary>
public sealed class NoiseSchedule
{
    // diffusers' Euler replaces an ᾱ of 0 with this, so that the largest sigma is finite.
    private const float SmallestAlpha = 1f / (1 << 24);

    private readonly float[] _alphas;

    /// <summary>Computes the schedule of a scheduler's settings.</summary>
    public NoiseSchedule(SchedulerSettings settings)
    {
        ArgumentNullException.ThrowIfNull(settings);
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        _alphas = (1 - tensor(settings.Betas.ToArray())).cumprod(0).data<float>().ToArray();
        if (settings.Kind == SchedulerKind.Euler && settings.ZeroTerminalSnr)
        {
            _alphas[^1] = SmallestAlpha;
        }

        Prediction = settings.Prediction;
    }

    /// <summary>Timesteps of training.</summary>
    public int Timesteps => _alphas.Length;

    /// <summary>Prediction of the network, which is also its training target.</summary>
    public PredictionType Prediction { get; }

    /// <summary>ᾱ of a timestep: the share of the sample's variance that is left.</summary>
    public double Alpha(int timestep) => _alphas[timestep];

    /// <summary>√((1 − ᾱ)/ᾱ): the noise in units of the sample.</summary>
    public float Sigma(int timestep) => MathF.Sqrt((1 - _alphas[timestep]) / _alphas[timestep]);

    /// <summary>ᾱ/(1 − ᾱ): the ratio of signal to noise.</summary>
    public double SignalToNoise(int timestep) => Alpha(timestep) / (1 - Alpha(timestep));

    /// <summary>Noisy samples: √ᾱ·sample + √(1−ᾱ)·noise.</summary>
    /// <param name="samples">Floating point [batch, …].</param>
    /// <param name="noise">Of the same shape.</param>
    /// <param name="timesteps">One timestep a sample.</param>
    public Tensor AddNoise(Tensor samples, Tensor noise, IReadOnlyList<int> timesteps) => Mix(samples, noise, timesteps, velocity: false);

    /// <summary>The velocity √ᾱ·noise − √(1−ᾱ)·sample, for the arguments of <see cref="AddNoise"/>.</summary>
    public Tensor Velocity(Tensor samples, Tensor noise, IReadOnlyList<int> timesteps) => Mix(samples, noise, timesteps, velocity: true);

    /// <summary>The training target of the network: the noise or the velocity.</summary>
    public Tensor Target(Tensor samples, Tensor noise, IReadOnlyList<int> timesteps) =>
        Prediction == PredictionType.Epsilon ? noise.alias() : Velocity(samples, noise, timesteps);

    /// <summary>
    /// Weight of a timestep's squared error under min-SNR-γ (Hang et al., arXiv:2303.09556): min(SNR, γ)/SNR for noise,
    /// min(SNR, γ)/(SNR + 1) for the velocity.
    /// </summary>
    public double MinSnrWeight(int timestep, double gamma)
    {
        double snr = SignalToNoise(timestep);
        return Math.Min(snr, gamma) / (Prediction == PredictionType.Epsilon ? snr : snr + 1);
    }

    private Tensor Mix(Tensor samples, Tensor noise, IReadOnlyList<int> timesteps, bool velocity)
    {
        ArgumentNullException.ThrowIfNull(samples);
        ArgumentNullException.ThrowIfNull(noise);
        ArgumentNullException.ThrowIfNull(timesteps);
        using DisposeScope scope = NewDisposeScope();
        Tensor alphas = tensor(timesteps.Select(timestep => _alphas[timestep]).ToArray());
        long[] shape = [timesteps.Count, .. Enumerable.Repeat(1L, (int)samples.dim() - 1)];
        Tensor signal = alphas.sqrt().reshape(shape).to(samples.dtype, samples.device);
        Tensor rest = (1 - alphas).sqrt().reshape(shape).to(samples.dtype, samples.device);
        return (velocity ? (signal * noise) - (rest * samples) : (signal * samples) + (rest * noise)).MoveToOuterDisposeScope();
    }
}
