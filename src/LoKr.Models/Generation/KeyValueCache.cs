using static TorchSharp.torch;

namespace LoKr.Models.Generation;

/// <summary>Keys and values of the positions of one sequence, layer by layer: first those of the whole prompt at once, then one position a time.</summary>
internal sealed class KeyValueCache : IDisposable
{
    private readonly LayerCache[] _layers;

    /// <summary>Makes an empty cache.</summary>
    /// <param name="windows">For each layer how many positions it looks back, itself included; null for all.</param>
    public KeyValueCache(IEnumerable<int?> windows) => _layers = [.. windows.Select(window => new LayerCache(window))];

    /// <summary>Positions so far.</summary>
    public long Length { get; private set; }

    /// <summary>Adds what a layer computed for the positions from <see cref="Length"/> on.</summary>
    /// <param name="layer">Index of the layer.</param>
    /// <param name="key">[1, heads, new positions, width].</param>
    /// <param name="value">[1, heads, new positions, width].</param>
    /// <returns>Keys and values that the new positions look at, in any order of position.</returns>
    public (Tensor Key, Tensor Value) Append(int layer, Tensor key, Tensor value) => _layers[layer].Append(key, value, Length);

    /// <summary>Ends a forward pass: every layer has added so many positions.</summary>
    public void Advance(long count) => Length += count;

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (LayerCache layer in _layers)
        {
            layer.Dispose();
        }
    }
}
