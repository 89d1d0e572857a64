namespace LoKr.Models.StableDiffusion.Training;

/// <summary>How far the computation of latents is.</summary>
/// <param name="Done">Pictures that are done.</param>
/// <param name="Count">Pictures in all.</param>
/// <param name="Computed">Those that were not in the cache.</param>
public readonly record struct LatentProgress(int Done, int Count, int Computed);
