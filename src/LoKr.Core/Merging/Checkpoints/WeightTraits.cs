using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>Whether the input and output embeddings of a checkpoint are one weight, so that a change of one would change the other.</summary>
internal sealed class TiedEmbeddings(CheckpointReader source, BaseConfig config)
{
    private static readonly string[] s_inputs = ["embed_tokens", "wte", "word_embeddings", "shared", "embed_in", "tok_embeddings", "tokens_embed"];
    private static readonly string[] s_outputs = ["lm_head", "embed_out", "lm_head.decoder", "cls.predictions.decoder"];

    private readonly string? _stored = source.Entries.Keys.FirstOrDefault(static key => IsOneOf(Module(key), s_outputs) && key.EndsWith(".weight", StringComparison.Ordinal));

    /// <summary>The module that shares its weight with another, or null.</summary>
    /// <param name="module">Full name of a module.</param>
    public string? Partner(string module)
    {
        bool output = IsOneOf(module, s_outputs);
        if ((!output && !IsOneOf(module, s_inputs)) || config.TiesEmbeddings == false || config.PredictsTokens == false || (config.PredictsTokens is null && config.TiesEmbeddings is null))
        {
            return null;
        }

        string? input = source.Entries.Keys.FirstOrDefault(static key => key.EndsWith(".weight", StringComparison.Ordinal) && IsOneOf(Module(key), s_inputs));
        if (input is null || (config.TiesEmbeddings is null && _stored is not null && !IsSame(input, _stored)))
        {
            return null;
        }

        return output ? Module(input) : _stored is null ? "the output embeddings" : Module(_stored);
    }

    // Where config.json does not say, the weights do: a checkpoint may hold a tied weight twice.
    private bool IsSame(string first, string second)
    {
        (SafetensorsReader Shard, SafetensorsEntry Entry) a = Find(first);
        (SafetensorsReader Shard, SafetensorsEntry Entry) b = Find(second);
        if (a.Entry.DType != b.Entry.DType || !a.Entry.Shape.SequenceEqual(b.Entry.Shape))
        {
            return false;
        }

        byte[] left = new byte[1 << 20];
        byte[] right = new byte[1 << 20];
        for (long start = 0; start < a.Entry.ByteCount; start += left.Length)
        {
            int count = (int)Math.Min(left.Length, a.Entry.ByteCount - start);
            a.Shard.ReadBytes(a.Entry, start, left.AsSpan(0, count));
            b.Shard.ReadBytes(b.Entry, start, right.AsSpan(0, count));
            if (!left.AsSpan(0, count).SequenceEqual(right.AsSpan(0, count)))
            {
                return false;
            }
        }

        return true;
    }

    private (SafetensorsReader Shard, SafetensorsEntry Entry) Find(string key)
    {
        SafetensorsReader shard = source.Shards.First(candidate => candidate.Entries.ContainsKey(key));
        return (shard, shard.Entries[key]);
    }

    private static string Module(string key) => key[..Math.Max(key.LastIndexOf('.'), 0)];

    private static bool IsOneOf(string module, string[] names) => names.Any(name => module == name || module.EndsWith("." + name, StringComparison.Ordinal));
}

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
