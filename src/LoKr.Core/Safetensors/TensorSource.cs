using LoKr.Core.Errors;
using TorchSharp;

namespace LoKr.Core.Safetensors;

/// <summary>Named tensors on disk: one safetensors file, or a folder of shards.</summary>
public interface ITensorSource : IDisposable
{
    /// <summary>Every tensor by name.</summary>
    IReadOnlyDictionary<string, SafetensorsEntry> Entries { get; }

    /// <summary>Metadata of the header (of the first shard).</summary>
    IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>Reads a tensor.</summary>
    /// <param name="name">Key of the tensor.</param>
    /// <param name="dtype">Type to convert to; null for the type of the file.</param>
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

/// <summary>Tensors of another source, all or some, under other names. Owns the other source.</summary>
internal sealed class RenamedTensorSource : ITensorSource
{
    private readonly ITensorSource _inner;
    private readonly string _where;
    private readonly Dictionary<string, string> _originals = new(StringComparer.Ordinal);

    /// <summary>Renames every tensor; two that get the same name are an error.</summary>
    /// <param name="inner">The other source.</param>
    /// <param name="where">Name of the other source, for errors.</param>
    /// <param name="rename">The new name of a tensor; null to leave it out.</param>
    public RenamedTensorSource(ITensorSource inner, string where, Func<string, string?> rename)
    {
        _inner = inner;
        _where = where;
        Dictionary<string, SafetensorsEntry> entries = new(StringComparer.Ordinal);
        foreach ((string original, SafetensorsEntry entry) in inner.Entries)
        {
            if (rename(original) is not string name)
            {
                continue;
            }

            if (!entries.TryAdd(name, entry with { Name = name }))
            {
                throw new LoKrException(
                    ErrorIds.AdapterKeyInvalid,
                    LoKrErrorKind.InvalidData,
                    $"'{original}' and '{_originals[name]}' in '{where}' are the same tensor '{name}'.")
                {
                    Target = original,
                };
            }

            _originals.Add(name, original);
        }

        Entries = entries.AsReadOnly();
    }

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries { get; }

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> Metadata => _inner.Metadata;

    /// <inheritdoc/>
    public torch.Tensor Read(string name, torch.ScalarType? dtype = null, torch.Device? device = null) => _inner.Read(Original(name), dtype, device);

    /// <inheritdoc/>
    public void ReadInto(string name, torch.Tensor destination) => _inner.ReadInto(Original(name), destination);

    /// <inheritdoc/>
    public void ReadRange(string name, long start, torch.Tensor destination) => _inner.ReadRange(Original(name), start, destination);

    /// <inheritdoc/>
    public void Dispose() => _inner.Dispose();

    private string Original(string name) =>
        _originals.TryGetValue(name, out string? original) ? original : throw TensorErrors.NotFound(name, _where, Entries.Keys);
}

/// <summary>Errors about named tensors, shared by single files and sharded folders.</summary>
internal static class TensorErrors
{
    /// <summary>The error for a missing tensor; it lists tensors with a similar end.</summary>
    public static LoKrException NotFound(string name, string where, IEnumerable<string> known)
    {
        string last = name[(name.LastIndexOf('.') + 1)..];
        string[] alike = [.. known.Where(key => key.EndsWith(name, StringComparison.Ordinal) || key.EndsWith(last, StringComparison.Ordinal)).Take(3)];
        return new LoKrException(
            ErrorIds.TensorNotFound,
            LoKrErrorKind.NotFound,
            $"'{where}' has no tensor '{name}'.",
            alike.Length > 0 ? $"Similar names there: {string.Join(", ", alike)}." : null)
        {
            Target = name,
        };
    }
}
