using LoKr.Core.Nn;
using LoKr.Models.Loading;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>One model family: how to build its module tree and how to read its checkpoints.</summary>
/// <param name="ModelType">The <c>model_type</c> of config.json.</param>
/// <param name="Name">Class name as transformers has it, for example <c>BertForSequenceClassification</c>.</param>
/// <param name="Build">
/// Builds the root module, which implements <see cref="Core.Nn.IPretrainedModel"/>. It only makes modules with the device and type
/// of the options; weights, ties, freezing and evaluation mode are the loader's.
/// </param>
/// <param name="Layout">How the keys of a checkpoint become parameter names.</param>
public sealed record ModelArchitecture(string ModelType, string Name, Func<ModelConfig, ModelBuildOptions, nn.Module> Build, CheckpointLayout Layout)
{
    /// <summary>Whether the model takes token ids, so that its folder is expected to hold a tokenizer.</summary>
    public bool TakesTokens { get; init; } = true;
}

/// <summary>What a builder needs beside the configuration.</summary>
public sealed record ModelBuildOptions
{
    /// <summary>Labels of a classification head in the order of the logits; null takes those of the configuration.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>Device of the parameters; the loader builds on <c>meta</c>, where they take no memory.</summary>
    public Device Device { get; init; } = META;

    /// <summary>Type of the parameters.</summary>
    public ScalarType DType { get; init; } = ScalarType.Float32;
}

/// <summary>Reads and replaces parameters of a module tree by their full names.</summary>
internal static class ModuleParameters
{
    /// <summary>Puts a parameter in the place of another; the old one is disposed.</summary>
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

    /// <summary>Lets tied parameters (duplicate name → name that is saved) be one tensor.</summary>
    public static void Tie(nn.Module root, IReadOnlyDictionary<string, string> tied)
    {
        foreach ((string duplicate, string saved) in tied)
        {
            Set(root, duplicate, root.get_parameter(saved)
                ?? throw new InvalidOperationException($"'{duplicate}' is tied to '{saved}', which the model does not have."));
        }
    }

    /// <summary>
    /// Takes tied parameters apart until the next <see cref="Tie"/>: the duplicate becomes an empty tensor. torch moves modules one by one and
    /// disposes what it has moved, which must not be another module's weight.
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

    /// <summary>Parameters in module order without tied duplicates.</summary>
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
