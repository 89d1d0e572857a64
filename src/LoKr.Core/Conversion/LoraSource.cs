using LoKr.Core.Adapters;

namespace LoKr.Core.Conversion;

/// <summary>One layer of a LoKr adapter that is to become LoRA.</summary>
/// <param name="ModuleName">Full name of the layer.</param>
/// <param name="Factors">Its factors.</param>
/// <param name="Scaling">What w1 ⊗ w2 is multiplied with; it becomes part of the LoRA weights.</param>
/// <param name="IsEmbedding">Whether the layer is an embedding, whose LoRA weights PEFT names and lays out in another way.</param>
public sealed record LoraSource(string ModuleName, KroneckerFactors Factors, double Scaling, bool IsEmbedding = false);
