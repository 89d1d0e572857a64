using LoKr.Core.Nn;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>Reads and replaces parameters of a module tree by their full names.</summary>
internal static class ModuleParameters
{
    /// <summary>Replaces a parameter; the old one is disposed.</summary>
    /// <param name="root">Root of the tree.</param>
    /// <param name="name">Full name, for example <c>bert.pooler.dense.weight</c>.</param>
    /// <param name="parameter">The new parameter; the module owns it.</param>
    public static void Set(nn.Module root, string name, Parameter parameter)
    {
        int dot = name.LastIndexOf('.');
        nn.Module owner = Owner(root, dot < 0 ? "" : name[..dot]);
        string own = name[(dot + 1)..];
        switch (owner, own)
        {
            case (IParameterOwner module, _):
                module.SetParameter(own, parameter);
                break;
            case (Linear module, "weight"):
                module.weight = parameter;
                break;
            case (Linear module, "bias"):
                module.bias = parameter;
                break;
            case (LayerNorm module, "weight"):
                module.weight = parameter;
                break;
            case (LayerNorm module, "bias"):
                module.bias = parameter;
                break;
            case (GroupNorm module, "weight"):
                module.weight = parameter;
                break;
            case (GroupNorm module, "bias"):
                module.bias = parameter;
                break;
            case (Convolution module, "weight"):
                module.weight = parameter;
                break;
            case (Convolution module, "bias"):
                module.bias = parameter;
                break;
            default:
                throw new NotSupportedException($"Parameter '{name}' belongs to a {owner.GetType().Name}, whose parameters cannot be replaced: implement {nameof(IParameterOwner)}.");
        }
    }

    /// <summary>Makes tied parameters (duplicate name → name that is saved) one tensor.</summary>
    public static void Tie(nn.Module root, IReadOnlyDictionary<string, string> tied)
    {
        foreach ((string duplicate, string saved) in tied)
        {
            Set(root, duplicate, root.get_parameter(saved)
                ?? throw new InvalidOperationException($"'{duplicate}' is tied to '{saved}', which the model does not have."));
        }
    }

    /// <summary>
    /// Separates tied parameters until the next <see cref="Tie"/>: the duplicate becomes an empty tensor. TorchSharp moves modules one by one
    /// and disposes each parameter that it has moved, which must not be another module's weight.
    /// </summary>
    public static void Untie(nn.Module root, IReadOnlyDictionary<string, string> tied)
    {
        using IDisposable noGrad = no_grad();
        foreach ((string duplicate, string saved) in tied)
        {
            Parameter shared = root.get_parameter(saved)
                ?? throw new InvalidOperationException($"'{duplicate}' is tied to '{saved}', which the model does not have.");
            bool trains = shared.requires_grad;
            Tensor storage = shared.detach();
            Set(root, duplicate, Own(empty(0, shared.dtype, CPU), requiresGrad: false));
            Set(root, saved, Own(storage, trains));
        }

        static Parameter Own(Tensor values, bool requiresGrad) => (Parameter)nn.Parameter(values, requiresGrad).DetachFromDisposeScope();
    }

    /// <summary>Parameters in module order, without tied duplicates.</summary>
    public static IReadOnlyList<(string Name, Parameter Parameter)> List(nn.Module root, IReadOnlyDictionary<string, string> tied) =>
        [.. root.named_parameters().Where(item => !tied.ContainsKey(item.name)).Select(item => (item.name, item.parameter))];

    private static nn.Module Owner(nn.Module root, string name)
    {
        nn.Module module = root;
        foreach (string part in name.Split('.', StringSplitOptions.RemoveEmptyEntries))
        {
            module = module.named_children().FirstOrDefault(child => child.name == part).module
                ?? throw new ArgumentException($"There is no module '{name}'.", nameof(name));
        }

        return module;
    }
}

/// <summary>
/// Places modules in a tree by dotted names, so that a model can compute with few classes and still have the checkpoint's names: what lies
/// between the root and the module is a <see cref="ModuleGroup"/>.
/// </summary>
internal static class ModulePlacement
{
    /// <summary>Registers a module below another.</summary>
    /// <param name="root">Where the name starts.</param>
    /// <param name="name">Dotted name, for example <c>attention.self.query</c>; groups that do not exist yet are created.</param>
    /// <param name="module">The module.</param>
    /// <returns>The module.</returns>
    public static T Place<T>(this nn.Module root, string name, T module)
        where T : nn.Module
    {
        string[] parts = (root is IBareModel bare && name.StartsWith(bare.BasePrefix, StringComparison.Ordinal) ? name[bare.BasePrefix.Length..] : name).Split('.');
        nn.Module owner = root;
        foreach (string part in parts.AsSpan(0, parts.Length - 1))
        {
            nn.Module? child = owner.named_children().FirstOrDefault(child => child.name == part).module;
            if (child is null)
            {
                child = new ModuleGroup();
                owner.register_module(part, child);
            }

            owner = child;
        }

        owner.register_module(parts[^1], module);
        return module;
    }
}

/// <summary>The root of a model without its head, whose modules are named as in the model with the head, less the prefix.</summary>
internal interface IBareModel
{
    /// <summary>The prefix with its period: <c>bert.</c>, <c>model.</c>.</summary>
    string BasePrefix { get; }
}

/// <summary>A name in the module tree with modules below it and no computation of its own.</summary>
internal sealed class ModuleGroup() : nn.Module(nameof(ModuleGroup));
