namespace TinyEncoder;

/// <summary>A sentence of the pretraining text and the number of its topic.</summary>
internal sealed record Sentence(string Text, int Topic);
