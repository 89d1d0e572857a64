namespace LoKr.Core.Modeling;

/// <summary>
/// A model whose modules have two generations of names: those of the module tree, which are transformers 5's, and those that checkpoints,
/// older adapters and tools were published with. Implemented by the root <c>nn.Module</c> beside <see cref="IPretrainedModel"/>.
/// </summary>
public interface IModuleAliases
{
    /// <summary>
    /// The name in the module tree of a module, parameter or adapter tensor with a published name
    /// (<c>vit.encoder.layer.0.attention.attention.query</c> → <c>vit.layers.0.attention.q_proj</c>).
    /// </summary>
    /// <param name="name">Full dotted name; what follows the part that differs is kept.</param>
    /// <returns>The name in the module tree; the same name where it has no other.</returns>
    string Canonical(string name);

    /// <summary>The published name of a name in the module tree: the other way round.</summary>
    /// <param name="name">Full dotted name in the module tree; what follows the part that differs is kept.</param>
    /// <returns>The published name; the same name where it has no other.</returns>
    string Published(string name);
}
