namespace LoKr.Core.Formats;

/// <summary>Errors about named tensors, shared by single files and sharded folders.</summary>
internal static class TensorErrors
{
    /// <summary>No tensor of that name; names the closest ones that end alike.</summary>
    public static LoKrException NotFound(string name, string where, IEnumerable<string> known)
    {
        string last = name[(name.LastIndexOf('.') + 1)..];
        string[] alike = [.. known.Where(key => key.EndsWith(name, StringComparison.Ordinal) || key.EndsWith(last, StringComparison.Ordinal)).Take(3)];
        return new LoKrException(
            ErrorIds.TensorNotFound,
            LoKrErrorKind.NotFound,
            $"There is no tensor '{name}' in '{where}'.",
            alike.Length > 0 ? $"Similar names there: {string.Join(", ", alike)}." : null)
        {
            Target = name,
        };
    }
}
