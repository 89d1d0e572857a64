using TorchSharp;

namespace LoKr.Core.Formats;

/// <summary>Named tensors on disk: one safetensors file, or a folder of shards.</summary>
public interface ITensorSource : IDisposable
{
    /// <summary>Every tensor by name.</summary>
    IReadOnlyDictionary<string, SafetensorsEntry> Entries { get; }

    /// <summary>Metadata of the header (of the first shard).</summary>
    IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>Reads a tensor.</summary>
    /// <param name="name">Key of the tensor.</param>
    /// <param name="dtype">Type to convert to; null keeps the file's.</param>
    /// <param name="device">Device; null for the CPU.</param>
    torch.Tensor Read(string name, torch.ScalarType? dtype = null, torch.Device? device = null);

    /// <summary>Reads a tensor into memory that exists, converting type and device, without a second copy where types agree.</summary>
    void ReadInto(string name, torch.Tensor destination);

    /// <summary>Reads a run of consecutive elements of a tensor, in row-major order, into memory that exists, converting type and device.</summary>
    /// <param name="name">Key of the tensor.</param>
    /// <param name="start">Index of the first element.</param>
    /// <param name="destination">Where to put them; its number of elements says how many.</param>
    void ReadRange(string name, long start, torch.Tensor destination)
    {
        ArgumentNullException.ThrowIfNull(destination);
        using var scope = torch.NewDisposeScope();
        using var noGrad = torch.no_grad();
        destination.copy_(Read(name).reshape(-1).narrow(0, start, destination.numel()).reshape(destination.shape));
    }
}
