using TorchSharp;

namespace LoKr.Core.Modeling;

/// <summary>What a text encoder makes of a batch.</summary>
/// <param name="LastHiddenState">Hidden states after the last layer and its norm [batch, length, hidden].</param>
/// <param name="Pooled">One vector a text: that of the token that ends it [batch, hidden], projected where the model has a projection [batch, projection].</param>
public sealed record TextEncoderOutput(torch.Tensor LastHiddenState, torch.Tensor Pooled)
{
    /// <summary>Hidden states before the last layer, without the norm [batch, length, hidden]; null unless asked for.</summary>
    public torch.Tensor? Penultimate { get; init; }
}
