using System.Globalization;

namespace LoKr.Core.Layouts.Names;

/// <summary>
/// Names of a UNet's modules in the original implementations (latent diffusion, sgm), which kohya's files for Stable Diffusion XL and
/// ComfyUI's use, from the names of diffusers: <c>down_blocks.1.attentions.0.proj_in</c> is <c>input_blocks.4.1.proj_in</c>.
/// </summary>
internal sealed class LdmUnetNames
{
    private static readonly Dictionary<string, string> s_roots = new(StringComparer.Ordinal)
    {
        ["conv_in"] = "input_blocks.0.0",
        ["conv_norm_out"] = "out.0",
        ["conv_out"] = "out.2",
        ["time_embedding.linear_1"] = "time_embed.0",
        ["time_embedding.linear_2"] = "time_embed.2",
        ["add_embedding.linear_1"] = "label_emb.0.0",
        ["add_embedding.linear_2"] = "label_emb.0.2",
    };

    private static readonly Dictionary<string, string> s_resnet = new(StringComparer.Ordinal)
    {
        ["norm1"] = "in_layers.0",
        ["conv1"] = "in_layers.2",
        ["time_emb_proj"] = "emb_layers.1",
        ["norm2"] = "out_layers.0",
        ["conv2"] = "out_layers.3",
        ["conv_shortcut"] = "skip_connection",
    };

    private readonly int _layers;
    private readonly HashSet<string> _withAttention;

    /// <summary>Learns the structure from the names of all modules: blocks, layers a block, blocks with attention.</summary>
    public LdmUnetNames(IEnumerable<string> names)
    {
        string[][] parts = [.. names.Select(static name => name.Split('.')).Where(static parts => parts.Length > 3)];
        _layers = 1 + parts.Where(static name => name is ["down_blocks", _, "resnets", _, ..]).Select(static name => Index(name[3])).DefaultIfEmpty(-1).Max();
        _withAttention = [.. parts.Where(static name => name is ["up_blocks", _, "attentions", ..]).Select(static name => name[1])];
    }

    /// <summary>The original name; null where there is none.</summary>
    public string? Of(string name)
    {
        if (s_roots.TryGetValue(name, out string? root))
        {
            return root;
        }

        if (_layers == 0)
        {
            return null;
        }

        string[] parts = name.Split('.');
        return parts switch
        {
            ["mid_block", "resnets", string layer, ..] => Inner($"middle_block.{2 * Index(layer)}", parts[1], parts[3..]),
            ["mid_block", "attentions", string layer, ..] => Inner($"middle_block.{(2 * Index(layer)) + 1}", parts[1], parts[3..]),
            ["down_blocks", string block, "downsamplers", ..] when parts.Length > 4 => $"input_blocks.{((Index(block) + 1) * (_layers + 1))}.0.op",
            ["down_blocks", string block, string kind, string layer, ..] => Inner($"input_blocks.{1 + (Index(block) * (_layers + 1)) + Index(layer)}.{Position(kind)}", kind, parts[4..]),

            // The block's last layer carries the upsampler, behind the attention where there is one.
            ["up_blocks", string block, "upsamplers", ..] when parts.Length > 4 =>
                $"output_blocks.{(Index(block) * (_layers + 1)) + _layers}.{(_withAttention.Contains(block) ? 2 : 1)}.conv",
            ["up_blocks", string block, string kind, string layer, ..] => Inner($"output_blocks.{(Index(block) * (_layers + 1)) + Index(layer)}.{Position(kind)}", kind, parts[4..]),
            _ => null,
        };
    }

    private static int Position(string kind) => kind == "attentions" ? 1 : 0;

    private static string? Inner(string block, string kind, string[] rest)
    {
        string name = string.Join('.', rest);
        return name.Length == 0 ? null
            : kind == "attentions" ? $"{block}.{name}"
            : kind == "resnets" && s_resnet.TryGetValue(name, out string? inner) ? $"{block}.{inner}"
            : null;
    }

    private static int Index(string digits) => int.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out int index) ? index : 0;
}
