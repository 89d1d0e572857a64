using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>Walks a model as PyTorch does: depth first, parents before children, shared modules once under their first name.</summary>
internal static class ModuleTree
{
    /// <summary>Every module below the root with its full dotted name; a model that is a single layer is listed itself, with an empty name.</summary>
    public static IReadOnlyList<(string Name, nn.Module Module)> Modules(nn.Module root)
    {
        List<(string, nn.Module)> found = [];
        Visit(root, "", found, new HashSet<nn.Module>(ReferenceEqualityComparer.Instance) { root });
        if (found.Count == 0 && root.named_parameters(recurse: false).Any())
        {
            found.Add(("", root));
        }

        return found;
    }

    /// <summary>
    /// The same, and after each fused attention its output projection, which is a module in PyTorch and a part of the attention here.
    /// </summary>
    public static IReadOnlyList<ModulePlace> Places(nn.Module root) => [.. Modules(root).SelectMany(static entry =>
        entry.Module is MultiheadAttention attention && AttentionParameters.IsFused(attention)
            ? new ModulePlace[] { new(entry.Name, entry.Module, false), new(Join(entry.Name, AttentionParameters.OutputName), entry.Module, true) }
            : [new(entry.Name, entry.Module, false)])];

    /// <summary>Every parameter of the model once, under its first name in module order.</summary>
    public static IReadOnlyList<(string Name, Parameter Parameter)> Parameters(nn.Module root)
    {
        List<(string, Parameter)> found = [];
        HashSet<nint> seen = [];
        foreach ((string name, nn.Module module) in Modules(root).Prepend(("", root)))
        {
            foreach ((string local, Parameter parameter) in module.named_parameters(recurse: false))
            {
                if (seen.Add(parameter.Handle))
                {
                    found.Add((Join(name, local), parameter));
                }
            }
        }

        return found;
    }

    /// <summary>Every persistent buffer of the model once, under its first name in module order.</summary>
    public static IReadOnlyList<(string Name, Tensor Buffer)> Buffers(nn.Module root)
    {
        List<(string, Tensor)> found = [];
        HashSet<nint> seen = [];
        foreach ((string name, nn.Module module) in Modules(root).Prepend(("", root)))
        {
            foreach ((string local, Tensor buffer) in module.named_buffers(recurse: false, include_nonpersistent: false))
            {
                if (seen.Add(buffer.Handle))
                {
                    found.Add((Join(name, local), buffer));
                }
            }
        }

        return found;
    }

    /// <summary>Joins the parts of a dotted name; the root has an empty name.</summary>
    public static string Join(string module, string local) => module.Length == 0 ? local : local.Length == 0 ? module : $"{module}.{local}";

    /// <summary>Whether a module is another one or lies below it, by their full names.</summary>
    public static bool IsWithin(string name, string module) => name == module || name.StartsWith(module + ".", StringComparison.Ordinal);

    private static void Visit(nn.Module module, string prefix, List<(string, nn.Module)> found, HashSet<nn.Module> seen)
    {
        foreach ((string local, nn.Module child) in module.named_children())
        {
            if (seen.Add(child))
            {
                string name = Join(prefix, local);
                found.Add((name, child));
                Visit(child, name, found, seen);
            }
        }
    }
}

/// <summary>A module by its full dotted name.</summary>
/// <param name="Name">The name; empty for a model that is a single layer.</param>
/// <param name="Module">The module.</param>
/// <param name="IsProjection">Whether it stands for the output projection of the fused attention <paramref name="Module"/>.</param>
internal sealed record ModulePlace(string Name, nn.Module Module, bool IsProjection);

/// <summary>The parameters of <c>torch.nn.MultiheadAttention</c>, which has no properties for them. Looked up each time, because moving a model replaces parameters.</summary>
internal sealed class AttentionParameters(MultiheadAttention module)
{
    /// <summary>Name of the projection of the result below the attention, as PyTorch has it.</summary>
    public const string OutputName = "out_proj";

    private readonly Dictionary<string, Parameter> _parameters = module.named_parameters(recurse: false).ToDictionary(static entry => entry.name, static entry => entry.parameter, StringComparer.Ordinal);

    /// <summary>Weights of the projections of queries, keys and values in one, 3·embed×embed.</summary>
    public Parameter InputWeight => _parameters["in_proj_weight"];

    /// <summary>Their bias, or null.</summary>
    public Parameter? InputBias => _parameters.GetValueOrDefault("in_proj_bias");

    /// <summary>Weight of the projection of the result, embed×embed.</summary>
    public Parameter OutputWeight => _parameters["out_proj.weight"];

    /// <summary>Its bias, or null.</summary>
    public Parameter? OutputBias => _parameters.GetValueOrDefault("out_proj.bias");

    /// <summary>A key that every sequence gets, 1×1×embed, or null.</summary>
    public Parameter? ExtraKey => _parameters.GetValueOrDefault("bias_k");

    /// <summary>Its value, or null.</summary>
    public Parameter? ExtraValue => _parameters.GetValueOrDefault("bias_v");

    /// <summary>All of them.</summary>
    public IEnumerable<Parameter> All => _parameters.Values;

    /// <summary>Whether queries, keys and values are projected by one fused weight; with other widths of keys or values they are not.</summary>
    public static bool IsFused(MultiheadAttention module) => module.named_parameters(recurse: false).Any(static entry => entry.name == "in_proj_weight" && entry.parameter.numel() > 0);
}
