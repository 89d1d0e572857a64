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

    /// <summary>The module that a tensor, or another module, belongs to, by full names; empty for the root.</summary>
    public static string Parent(string name) => name[..Math.Max(name.LastIndexOf('.'), 0)];

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

/// <summary>Remembers which modules are in training mode and restores every one.</summary>
public sealed class ModuleModes : IDisposable
{
    private readonly List<(nn.Module Module, bool Training)> _modes = [];

    /// <summary>Reads the modes of a module and all below it.</summary>
    /// <param name="root">The module.</param>
    public ModuleModes(nn.Module root)
    {
        ArgumentNullException.ThrowIfNull(root);
        Add(root);
        foreach (nn.Module module in root.modules())
        {
            Add(module);
        }
    }

    /// <summary>Restores parents before their children, since setting a module sets all below it.</summary>
    public void Dispose()
    {
        foreach ((nn.Module module, bool training) in _modes)
        {
            if (module.training != training)
            {
                module.train(training);
            }
        }
    }

    private void Add(nn.Module module) => _modes.Add((module, module.training));
}

/// <summary>Modules that share a weight with another one, as tied output embeddings do.</summary>
internal static class TiedWeights
{
    /// <summary>The module that shares a weight with a module or one below it, by the model's own account; null where there is none.</summary>
    /// <param name="root">The model.</param>
    /// <param name="module">Full name of the module.</param>
    public static string? PartnerOf(nn.Module root, string module)
    {
        if (root is not IPretrainedModel pretrained)
        {
            return null;
        }

        foreach ((string duplicate, string saved) in pretrained.TiedParameters)
        {
            bool first = ModuleTree.IsWithin(duplicate, module);
            if (first != ModuleTree.IsWithin(saved, module))
            {
                string partner = first ? saved : duplicate;
                return partner[..Math.Max(partner.LastIndexOf('.'), 0)];
            }
        }

        return null;
    }

    /// <summary>The modules of a model by the handles of their own parameters: several where a script gave modules one parameter.</summary>
    /// <param name="root">The model.</param>
    public static ILookup<nint, (string Name, nn.Module Module)> Owners(nn.Module root) => ModuleTree.Modules(root)
        .SelectMany(static entry => entry.Module.named_parameters(recurse: false).Select(parameter => (parameter.parameter.Handle, Owner: entry)))
        .ToLookup(static pair => pair.Handle, static pair => pair.Owner);

    /// <summary>The module that shares a weight with a module or one below it, by the model's own account or because both hold one parameter object.</summary>
    /// <param name="root">The model.</param>
    /// <param name="name">Full name of the module.</param>
    /// <param name="module">The module.</param>
    /// <param name="owners"><see cref="Owners"/> of the model.</param>
    public static string? PartnerOf(nn.Module root, string name, nn.Module module, ILookup<nint, (string Name, nn.Module Module)> owners) => ModuleTree.Parameters(module)
        .SelectMany(entry => owners[entry.Parameter.Handle])
        .Where(owner => !ReferenceEquals(owner.Module, module) && !ModuleTree.IsWithin(owner.Name, name))
        .Select(static owner => owner.Name)
        .FirstOrDefault() ?? PartnerOf(root, name);
}
