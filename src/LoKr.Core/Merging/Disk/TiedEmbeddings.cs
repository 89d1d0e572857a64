using LoKr.Core.Formats;

namespace LoKr.Core.Merging;

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
