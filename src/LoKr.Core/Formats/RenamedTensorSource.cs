using TorchSharp;

namespace LoKr.Core.Formats;

/// <summary>Tensors of another source under other names. Owns the other source.</summary>
internal sealed class RenamedTensorSource : ITensorSource
{
    private readonly ITensorSource _inner;
    private readonly string _where;
    private readonly Dictionary<string, string> _originals = new(StringComparer.Ordinal);

    /// <summary>Renames every tensor; two that get the same name are an error.</summary>
    public RenamedTensorSource(ITensorSource inner, string where, Func<string, string> rename)
    {
        _inner = inner;
        _where = where;
        Dictionary<string, SafetensorsEntry> entries = new(StringComparer.Ordinal);
        foreach ((string original, SafetensorsEntry entry) in inner.Entries)
        {
            string name = rename(original);
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
