using TorchSharp.Modules;

namespace LoKr.Core.Adapters;

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
