using static TorchSharp.torch;

namespace LoKr.Core.Nn;

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

    /// <summary>The same, and modules of a script that hold one parameter object.</summary>
    /// <param name="root">The model.</param>
    /// <param name="name">Full name of the module.</param>
    /// <param name="module">The module.</param>
    public static string? PartnerOf(nn.Module root, string name, nn.Module module)
    {
        HashSet<nint> own = [.. ModuleTree.Parameters(module).Select(static entry => entry.Parameter.Handle)];
        return ModuleTree.Modules(root)
            .Where(entry => !ModuleTree.IsWithin(entry.Name, name) && entry.Module.named_parameters(recurse: false).Any(parameter => own.Contains(parameter.parameter.Handle)))
            .Select(static entry => entry.Name)
            .FirstOrDefault() ?? PartnerOf(root, name);
    }
}
