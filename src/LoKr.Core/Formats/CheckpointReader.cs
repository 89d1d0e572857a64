using TorchSharp;

namespace LoKr.Core.Formats;

/// <summary>A model's weights in a folder: <c>model.safetensors</c>, or shards listed by <c>model.safetensors.index.json</c>.</summary>
public sealed class CheckpointReader : ITensorSource
{
    /// <summary>Opens a folder.</summary>
    /// <param name="folder">Folder of the model.</param>
    /// <param name="baseName">Name of the weights without extension.</param>
    public static CheckpointReader Open(string folder, string baseName = "model") => throw new NotImplementedException();

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries => throw new NotImplementedException();

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> Metadata => throw new NotImplementedException();

    /// <inheritdoc/>
    public torch.Tensor Read(string name, torch.ScalarType? dtype = null, torch.Device? device = null) => throw new NotImplementedException();

    /// <inheritdoc/>
    public void ReadInto(string name, torch.Tensor destination) => throw new NotImplementedException();

    /// <inheritdoc/>
    public void Dispose() => throw new NotImplementedException();
}
