using LoKr.Core.Errors;

namespace LoKr.Core.Targeting;

/// <summary>
/// Embeddings of which an adapter has more rows than the base model: it was trained after <c>resize_token_embeddings</c>, and its file has
/// the tables whole. They replace those of the model, rows and all, in memory and on disk by the same rules.
/// </summary>
internal static class GrownVocabulary
{
    /// <summary>Whether a tensor of an adapter may replace one of a model although it has more rows.</summary>
    /// <param name="module">Full name of the module that it belongs to.</param>
    /// <param name="own">Shape of the model's.</param>
    /// <param name="given">Shape of the adapter's.</param>
    public static bool Replaces(string module, IReadOnlyList<long> own, IReadOnlyList<long> given) => EmbeddingNames.IsEither(module)
        && own.Count is 1 or 2 && own.Count == given.Count && given[0] > own[0] && given.Skip(1).SequenceEqual(own.Skip(1));

    /// <summary>Refuses tables of which some have grown and others have not: how the others were filled up is in no file.</summary>
    /// <param name="adapter">Name of the adapter.</param>
    /// <param name="tables">Tensors of all input and output embeddings of the model, with their rows before and after.</param>
    /// <returns>A warning about the growth, or null where there is none.</returns>
    /// <exception cref="LoKrException"><c>LoKr.AdapterShapeMismatch</c>.</exception>
    public static string? Check(string adapter, IEnumerable<(string Name, long Before, long After)> tables)
    {
        (string Name, long Before, long After)[] all = [.. tables.OrderBy(static table => table.Name, StringComparer.Ordinal)];
        if (!Array.Exists(all, static table => table.After > table.Before))
        {
            return null;
        }

        (string name, long before, long after) = all.First(static table => table.After > table.Before);
        return Array.Find(all, table => table.After != after) is { Name: { } other, After: long rows }
            ? throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
                $"'{name}' of adapter '{adapter}' has {after} rows where the model has {before}: its vocabulary had grown. '{other}' has {rows}, and a model needs as many in all its embeddings.",
                "Save the adapter with all of its embedding layers, or give the model as many rows first.") { Target = other }
            : FormattableString.Invariant($"The vocabulary grows from {before} to {after} tokens, as the adapter '{adapter}' was trained. Texts with the new ones need the tokenizer that it was trained with.");
    }
}
