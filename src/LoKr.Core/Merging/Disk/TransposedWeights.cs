using LoKr.Core.Formats;

namespace LoKr.Core.Merging;

/// <summary>
/// Which weights of a checkpoint are stored in×out, as GPT-2's <c>Conv1D</c> stores them. The file says so only indirectly: by the length of
/// the bias, or by another layer of that name.
/// </summary>
internal sealed class TransposedWeights
{
    private static readonly HashSet<string> s_modelTypes = new(["gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"], StringComparer.Ordinal);

    private readonly IReadOnlyDictionary<string, SafetensorsEntry> _entries;
    private readonly HashSet<string> _transposedNames;
    private readonly bool _isKnownFamily;

    /// <summary>Looks at every weight that has a bias.</summary>
    /// <param name="entries">Tensors of the checkpoint.</param>
    /// <param name="modelType"><c>model_type</c> of config.json, or null.</param>
    public TransposedWeights(IReadOnlyDictionary<string, SafetensorsEntry> entries, string? modelType)
    {
        _entries = entries;
        _isKnownFamily = modelType is not null && s_modelTypes.Contains(modelType);
        _transposedNames = [.. entries.Values.Where(entry => BiasSays(entry) == true).Select(static entry => Last(entry.Name))];
    }

    /// <summary>Whether a weight is stored in×out.</summary>
    /// <param name="weight">The stored weight.</param>
    /// <param name="rows">Rows of the delta, out.</param>
    /// <param name="columns">Columns of the delta, in.</param>
    public bool Contains(SafetensorsEntry weight, long rows, long columns)
    {
        if (weight.Shape.Count != 2 || weight.Shape[0] != columns || weight.Shape[1] != rows)
        {
            return false;
        }

        if (rows != columns)
        {
            // A linear layer of a model whose sizes are the other way round is an error, which the comparison of shapes reports.
            return BiasSays(weight) ?? _isKnownFamily;
        }

        return _transposedNames.Contains(Last(weight.Name)) || (_isKnownFamily && Last(weight.Name).StartsWith("c_", StringComparison.Ordinal));
    }

    // True for in×out, false for out×in, null where the bias is missing or fits both.
    private bool? BiasSays(SafetensorsEntry weight)
    {
        const string end = ".weight";
        return weight.Shape.Count == 2 && weight.Shape[0] != weight.Shape[1] && weight.Name.EndsWith(end, StringComparison.Ordinal)
            && _entries.TryGetValue(weight.Name[..^end.Length] + ".bias", out SafetensorsEntry? bias) && bias.Shape.Count == 1
            && (bias.Shape[0] == weight.Shape[0] || bias.Shape[0] == weight.Shape[1])
            ? bias.Shape[0] == weight.Shape[1]
            : null;
    }

    private static string Last(string key)
    {
        string[] parts = key.Split('.');
        return parts.Length > 1 ? parts[^2] : key;
    }
}
