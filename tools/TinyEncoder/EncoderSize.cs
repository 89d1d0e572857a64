
namespace TinyEncoder;

/// <summary>Sizes of the encoder, as config.json states them.</summary>
internal sealed record EncoderSize(int Vocabulary = 2400, int Hidden = 128, int Layers = 2, int Heads = 4, int Intermediate = 384, int Positions = 96);
