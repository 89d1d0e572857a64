using LoKr.Models.StableDiffusion.Schedulers;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Training;

/// <summary>How well the UNet tells the noise, or the velocity, of noisy latents: the mean squared error of diffusers' training scripts.</summary>
public static class DenoisingLoss
{
    /// <summary>The error of each picture, with its graph.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="schedule">The forward process.</param>
    /// <param name="latents">Scaled latents [batch, channels, height, width].</param>
    /// <param name="noise">Noise of that shape.</param>
    /// <param name="timesteps">One timestep a picture.</param>
    /// <param name="tokens">Token ids of the captions.</param>
    /// <param name="timeIds">Sizes that Stable Diffusion XL takes [batch, 6]; null for others.</param>
    /// <param name="minSnrGamma">γ of min-SNR weighting, or null.</param>
    /// <returns>Weighted mean squared errors, single precision [batch].</returns>
    public static Tensor Compute(
        StableDiffusionPipeline pipeline,
        NoiseSchedule schedule,
        Tensor latents,
        Tensor noise,
        IReadOnlyList<int> timesteps,
        PromptTokens tokens,
        Tensor? timeIds = null,
        double? minSnrGamma = null)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentNullException.ThrowIfNull(schedule);
        ArgumentNullException.ThrowIfNull(timesteps);
        using DisposeScope scope = NewDisposeScope();
        Tensor noisy = schedule.AddNoise(latents, noise, timesteps);
        Tensor target = schedule.Target(latents, noise, timesteps).to(ScalarType.Float32);
        TextConditioning text = pipeline.EncodeText(tokens);
        Tensor times = tensor(timesteps.Select(timestep => (long)timestep).ToArray(), device: noisy.device);
        AddedConditions? added = text.Pooled is null || timeIds is null ? null : new AddedConditions(text.Pooled, timeIds);
        Tensor prediction = pipeline.Denoiser.call(noisy, times, text.HiddenStates, added).to(ScalarType.Float32);
        Tensor errors = (prediction - target).square().mean([1L, 2L, 3L]);
        if (minSnrGamma is double gamma)
        {
            errors = errors * tensor(timesteps.Select(timestep => (float)schedule.MinSnrWeight(timestep, gamma)).ToArray(), device: errors.device);
        }

        return errors.MoveToOuterDisposeScope();
    }
}
