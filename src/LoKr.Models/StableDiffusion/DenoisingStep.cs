namespace LoKr.Models.StableDiffusion;

/// <summary>How far a picture is.</summary>
/// <param name="Picture">Number of the picture, from 1; with several at once, of the first of them.</param>
/// <param name="PictureCount">Pictures in all.</param>
/// <param name="Step">Calls of the UNet that are done.</param>
/// <param name="StepCount">Calls of the UNet for the picture; more than the steps for PNDM.</param>
public readonly record struct DenoisingStep(int Picture, int PictureCount, int Step, int StepCount);
