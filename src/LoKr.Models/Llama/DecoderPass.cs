using LoKr.Core.Modeling;
using LoKr.Models.Generation;
using LoKr.Models.Shared;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Llama;

/// <summary>What all layers share in one forward pass.</summary>
internal sealed class DecoderPass
{
    private readonly Dictionary<int, Tensor?> _masks;

    /// <summary>Makes the masks that the layers need, in the caller's dispose scope.</summary>
    /// <param name="turn">Turns of the positions.</param>
    /// <param name="padding">Boolean [batch, 1, 1, length], or null.</param>
    /// <param name="cache">Keys and values of earlier positions, or null.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="windows">Attention windows of the layers.</param>
    /// <param name="device">Device of the model.</param>
    public DecoderPass(RotaryTurn turn, Tensor? padding, KeyValueCache? cache, long length, IEnumerable<int?> windows, Device device)
    {
        Turn = turn;
        Cache = cache;
        _masks = [];
        foreach (int? window in windows.Distinct())
        {
            _masks.Add(window ?? 0, CausalMask.Create(padding, length, window, device));
        }
    }

    private DecoderPass(RotaryTurn turn, Dictionary<int, Tensor?> masks) => (Turn, _masks) = (turn, masks);

    /// <summary>Turns of the positions.</summary>
    public RotaryTurn Turn { get; }

    /// <summary>Keys and values of earlier positions, or null.</summary>
    public KeyValueCache? Cache { get; }

    /// <summary>Boolean mask of the layers with that window; null where plain causal attention does.</summary>
    public Tensor? Mask(int? window) => _masks[window ?? 0];

    /// <summary>The same without a cache, with tensors that stay until the backward pass is over.</summary>
    public DecoderPass Keep(ActivationCheckpoints checkpoints) => new(
        new RotaryTurn(checkpoints.Keep(Turn.Cosine)!, checkpoints.Keep(Turn.Sine)!),
        _masks.ToDictionary(static entry => entry.Key, entry => checkpoints.Keep(entry.Value)));
}
