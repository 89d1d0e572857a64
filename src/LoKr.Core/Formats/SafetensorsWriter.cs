using TorchSharp;

namespace LoKr.Core.Formats;

/// <summary>Writes safetensors files as the reference implementation does: sorted, padded, to a temporary name, flushed, renamed.</summary>
public static class SafetensorsWriter
{
    /// <summary>Writes a file; what was there before stays until the new one is complete.</summary>
    /// <param name="path">File to write.</param>
    /// <param name="tensors">Tensors by name; any device.</param>
    /// <param name="metadata">Header metadata, for example format = pt.</param>
    public static void Write(string path, IReadOnlyDictionary<string, torch.Tensor> tensors, IReadOnlyDictionary<string, string>? metadata = null) => throw new NotImplementedException();
}
