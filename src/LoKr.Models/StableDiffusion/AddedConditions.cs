using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>What the UNet of Stable Diffusion XL takes beside the text (Podell et al., arXiv:2307.01952).</summary>
/// <param name="TextEmbeds">Pooled vector of each text by the second text encoder [batch, projection].</param>
/// <param name="TimeIds">Original height and width, crop from the top and the left, target height and width of each picture, in pixels [batch, 6].</param>
public sealed record AddedConditions(Tensor TextEmbeds, Tensor TimeIds);
