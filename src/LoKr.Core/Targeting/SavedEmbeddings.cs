using LoKr.Core.Configuration;
using LoKr.Core.Factors;

namespace LoKr.Core.Targeting;

/// <summary>Input and output embeddings by the names that models give them.</summary>
internal static class EmbeddingNames
{
    private static readonly string[] s_inputs = ["embed_tokens", "wte", "word_embeddings", "shared", "embed_in", "tok_embeddings", "tokens_embed"];
    private static readonly string[] s_outputs = ["lm_head", "embed_out", "lm_head.decoder", "cls.predictions.decoder", "vocab_projector"];

    /// <summary>Whether a module is the table of the tokens.</summary>
    /// <param name="module">Full name.</param>
    public static bool IsInput(string module) => IsOneOf(module, s_inputs);

    /// <summary>Whether a module scores the tokens.</summary>
    /// <param name="module">Full name.</param>
    public static bool IsOutput(string module) => IsOneOf(module, s_outputs);

    /// <summary>Whether a module is one of the two.</summary>
    /// <param name="module">Full name.</param>
    public static bool IsEither(string module) => IsInput(module) || IsOutput(module);

    private static bool IsOneOf(string module, string[] names) => names.Any(name => module == name || module.EndsWith("." + name, StringComparison.Ordinal));
}

/// <summary>
/// Embeddings that a file of PEFT holds whole although its configuration does not name them (<c>save_embedding_layers</c>, by default where
/// the vocabulary has grown). They count as modules to save, in memory and on disk; unlike these they are the model's own tables, so that
/// input and output embeddings that are one weight stay one.
/// </summary>
/// <param name="Config">The configuration with these embeddings among its modules to save.</param>
/// <param name="Modules">Their names.</param>
/// <param name="Warnings">Names what was added.</param>
internal sealed record SavedEmbeddings(LoKrConfig Config, IReadOnlyList<string> Modules, IReadOnlyList<string> Warnings)
{
    /// <summary>Finds them.</summary>
    /// <param name="config">Configuration of the file.</param>
    /// <param name="keys">Names of the tensors of the file.</param>
    public static SavedEmbeddings Find(LoKrConfig config, IEnumerable<string> keys)
    {
        ILookup<string, string> suffixes = keys.Where(static key => key.Contains('.', StringComparison.Ordinal))
            .ToLookup(static key => key[..key.LastIndexOf('.')], static key => key[(key.LastIndexOf('.') + 1)..], StringComparer.Ordinal);
        string[] added = [.. suffixes
            .Where(static group => EmbeddingNames.IsEither(group.Key) && group.Contains("weight") && !group.Any(FactorNames.IsFactor))
            .Select(static group => group.Key)
            .Where(module => TargetResolver.SavedModule(config, module + ".weight") is null)
            .Order(StringComparer.Ordinal)];
        return new(
            added.Length == 0 ? config : config with { ModulesToSave = [.. config.ModulesToSave ?? [], .. added] },
            added,
            [.. added.Select(static module => $"'{module}' is in the adapter's file whole, although its configuration does not say so; it replaces the model's, as a module to save.")]);
    }

    /// <summary>The same with another table in place of one.</summary>
    /// <param name="module">Name of the table.</param>
    /// <param name="other">Name of the one that stands for both.</param>
    public SavedEmbeddings Replace(string module, string other)
    {
        bool isThere = TargetResolver.SavedModule(Config, other + ".weight") is not null;
        IEnumerable<string> Replaced(IEnumerable<string> names) => isThere ? names.Where(name => name != module) : names.Select(name => name == module ? other : name);
        return this with { Config = Config with { ModulesToSave = [.. Replaced(Config.ModulesToSave!)] }, Modules = [.. Replaced(Modules)] };
    }
}
