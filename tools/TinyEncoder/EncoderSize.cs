namespace TinyEncoder;

/// <summary>Sizes of the encoder, as config.json states them.</summary>
internal sealed record EncoderSize(int Vocabulary = 1500, int Hidden = 96, int Layers = 3, int Heads = 4, int Intermediate = 384, int Positions = 96);
