using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>Walks a model as PyTorch does: depth first, parents before children, shared modules once under their first name.</summary>
internal static class ModuleTree
{
    /// <summary>Every module below the root with its full dotted name; a model that is a single layer stands for itself, with an empty name.</summary>
    public static IReadOnlyList<(string Name, nn.Module Module)> Modules(nn.Module root)
    {
        List<(string, nn.Module)> found = [];
        Visit(root, "", found, new HashSet<nn.Module>(ReferenceEqualityComparer.Instance) { root });
        if (found.Count == 0 && BaseLayer.TryCreate("", root) is not null)
        {
            found.Add(("", root));
        }

        return found;
    }

    /// <summary>
    /// The same, and after each fused attention its output projection: a module in PyTorch, here a part of the attention, which stands for it.
    /// </summary>
    public static IReadOnlyList<(string Name, nn.Module Module, bool IsProjection)> Places(nn.Module root) => [.. Modules(root).SelectMany(static entry =>
        entry.Module is TorchSharp.Modules.MultiheadAttention attention && AttentionParameters.IsFused(attention)
            ? new[] { (entry.Name, entry.Module, false), (Join(entry.Name, AttentionParameters.OutputName), entry.Module, true) }
            : [(entry.Name, entry.Module, false)])];

    /// <summary>Every parameter of the model once, under its first name in module order.</summary>
    public static IReadOnlyList<(string Name, TorchSharp.Modules.Parameter Parameter)> Parameters(nn.Module root)
    {
        List<(string, TorchSharp.Modules.Parameter)> found = [];
        HashSet<nint> seen = [];
        foreach ((string name, nn.Module module) in Modules(root).Prepend(("", root)))
        {
            foreach ((string local, TorchSharp.Modules.Parameter parameter) in module.named_parameters(recurse: false))
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

    /// <summary>Joins the parts of a dotted name; the root has none.</summary>
    public static string Join(string module, string local) => module.Length == 0 ? local : $"{module}.{local}";

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
