using TorchSharp;

namespace LoKr.Core.Formats;

/// <summary>Reads one safetensors file: the header at once, tensors on demand.</summary>
public sealed class SafetensorsReader : ITensorSource
{
    /// <summary>Opens a file and checks its header completely.</summary>
    public static SafetensorsReader Open(string path) => throw new NotImplementedException();

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
