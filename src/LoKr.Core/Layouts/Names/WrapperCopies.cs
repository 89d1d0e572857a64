namespace LoKr.Core.Layouts.Names;

/// <summary>
/// Tensors that PEFT writes a second time where it saves embeddings that are modules to save (<c>save_embedding_layers</c>, by default where
/// the vocabulary has grown): beside the trained <c>X.weight</c> the parameters of the wrapper around X, which are
/// <c>X.modules_to_save.weight</c>, the trained values again, and <c>X.original_module.weight</c>, those of the base model. PEFT loads
/// <c>X.weight</c>, whatever the others hold (<c>set_peft_model_state_dict</c>); they belong to no adapter.
/// </summary>
internal static class WrapperCopies
{
    private const string Trained = ".modules_to_save.";
    private const string Original = ".original_module.";

    /// <summary>Whether a tensor is such a copy.</summary>
    /// <param name="name">Name of the tensor.</param>
    /// <param name="isInFile">Whether the file has a tensor.</param>
    public static bool IsCopy(string name, Func<string, bool> isInFile)
    {
        foreach (string mark in (ReadOnlySpan<string>)[Trained, Original])
        {
            if (name.IndexOf(mark, StringComparison.Ordinal) is int place and > 0)
            {
                // A parameter of a module within X keeps the name of the adapter: lm_head.modules_to_save.default.decoder.weight.
                string local = name[(place + mark.Length)..];
                int named = mark == Trained ? local.IndexOf('.', StringComparison.Ordinal) : -1;
                return isInFile($"{name[..place]}.{local}") || (named > 0 && isInFile(name[..place] + local[named..]));
            }
        }

        return false;
    }
}
