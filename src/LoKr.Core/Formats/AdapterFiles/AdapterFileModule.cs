namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>The tensors that an adapter file has for one module.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the module as the file has it, without the layout's prefix: with dots, or with underscores in their place.</param>
/// <param name="Tensors">Tensors by suffix (lokr_w1, …, alpha, dora_scale, scalar, w_norm, b_norm), each with its name in the file.</param>
/// <param name="Alpha">Value of the alpha tensor, or null without one.</param>
public sealed record AdapterFileModule(AdapterComponent Component, string Name, IReadOnlyDictionary<string, SafetensorsEntry> Tensors, double? Alpha)
{
    /// <summary>Whether the module is a norm with changes of its weight and bias.</summary>
    public bool IsNorm => Tensors.ContainsKey(AdapterSuffixes.NormWeight) || Tensors.ContainsKey(AdapterSuffixes.NormBias);

    /// <inheritdoc/>
    public override string ToString() => Component == AdapterComponent.Model ? Name : $"{Component} {Name}";
}
