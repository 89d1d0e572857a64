namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>Which part of a pipeline modules belong to, by their names.</summary>
internal static class AdapterComponentGuess
{
    private static readonly string[] s_unet = ["down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block", "time_embed", "time_embedding", "conv_in", "conv_out", "add_embedding", "label_emb"];
    private static readonly string[] s_transformer =
        ["transformer_blocks", "single_transformer_blocks", "double_blocks", "single_blocks", "joint_blocks", "joint_transformer_blocks", "blocks", "noise_refiner", "context_refiner", "context_embedder", "x_embedder", "proj_in", "img_in", "txt_in"];

    private static readonly string[] s_textEncoder = ["text_model", "encoder", "text_projection", "shared"];

    /// <summary>The component that the first name which says something speaks for; null where none does.</summary>
    public static AdapterComponent? Of(IEnumerable<string> names)
    {
        foreach (string name in names)
        {
            AdapterComponent? found = StartsWith(s_unet, name) ? AdapterComponent.Unet
                : StartsWith(s_transformer, name) ? AdapterComponent.Transformer
                : StartsWith(s_textEncoder, name) ? AdapterComponent.TextEncoder
                : null;
            if (found is not null)
            {
                return found;
            }
        }

        return null;
    }

    private static bool StartsWith(string[] roots, string name) => Array.Exists(roots, root =>
        name.StartsWith(root, StringComparison.Ordinal) && (name.Length == root.Length || name[root.Length] is '.' or '_'));
}
