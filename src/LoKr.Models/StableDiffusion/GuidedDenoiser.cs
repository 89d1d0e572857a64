using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>The UNet with a prompt and, where guidance is on, a negative one beside it in the same batch. Its tensors belong to the scope it was made in.</summary>
internal sealed class GuidedDenoiser
{
    private readonly StableDiffusionPipeline _pipeline;
    private readonly Tensor _context;
    private readonly AddedConditions? _added;
    private readonly double? _guidance;

    public GuidedDenoiser(StableDiffusionPipeline pipeline, string prompt, PictureOptions options, long[] latents)
    {
        _pipeline = pipeline;
        _guidance = options.Guidance > 1 ? options.Guidance : null;
        TextConditioning text = pipeline.EncodeText([prompt]);
        TextConditioning? negative = _guidance is null ? null : EncodeNegative(pipeline, options.NegativePrompt);
        _context = Batch(negative?.HiddenStates, text.HiddenStates, latents[0]);
        if (text.Pooled is not null)
        {
            int factor = pipeline.DownsampleFactor;
            (float height, float width) = (latents[2] * factor, latents[3] * factor);
            Tensor pooled = Batch(negative?.Pooled, text.Pooled, latents[0]);
            Tensor ids = tensor(new[] { height, width, 0, 0, height, width }).to(pipeline.Device).expand(pooled.shape[0], 6);
            _added = new AddedConditions(pooled, ids);
        }
    }

    /// <summary>Prediction in single precision, of the latents' shape.</summary>
    public Tensor Predict(Tensor latents, double timestep)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor input = _guidance is null ? latents : cat([latents, latents], 0);
        Tensor time = tensor((float)timestep).to(latents.device);
        Tensor output = _pipeline.Denoiser.call(input, time, _context, _added).to(ScalarType.Float32);
        if (_guidance is not double guidance)
        {
            return output.MoveToOuterDisposeScope();
        }

        Tensor[] halves = output.chunk(2, 0);
        return (halves[0] + ((halves[1] - halves[0]) * guidance)).MoveToOuterDisposeScope();
    }

    /// <summary>Stable Diffusion XL takes zeros for a negative prompt that is not given, unless model_index.json says otherwise.</summary>
    private static TextConditioning EncodeNegative(StableDiffusionPipeline pipeline, string? prompt)
    {
        TextConditioning encoded = pipeline.EncodeText([prompt ?? ""]);
        return prompt is null && encoded.Pooled is not null && pipeline.Index.GetBool("force_zeros_for_empty_prompt", true)
            ? new TextConditioning(encoded.HiddenStates.zero_(), encoded.Pooled.zero_())
            : encoded;
    }

    private static Tensor Batch(Tensor? negative, Tensor positive, long count)
    {
        long[] times = [count, .. Enumerable.Repeat(1L, (int)positive.dim() - 1)];
        Tensor repeated = positive.repeat(times);
        return negative is null ? repeated : cat([negative.repeat(times), repeated], 0);
    }
}
