using TorchSharp;

namespace LoKr.Core.Adapters;

/// <summary>
/// One contiguous tensor that holds many parameters as leaf views, and one that holds their gradients,
/// so that an optimiser step, a norm or a checkpoint is one operation whatever the number of layers.
/// </summary>
public sealed class FlatParameter : IDisposable
{
    /// <summary>Allocates a buffer for parameters of these shapes.</summary>
    public FlatParameter(IReadOnlyList<long[]> shapes, torch.ScalarType dtype, torch.Device device) => throw new NotImplementedException();

    /// <summary>All values, one dimension.</summary>
    public torch.Tensor Value => throw new NotImplementedException();

    /// <summary>All gradients, one dimension; autograd accumulates into it.</summary>
    public torch.Tensor Gradient => throw new NotImplementedException();

    /// <summary>Leaf views of <see cref="Value"/> in the order of the shapes; their gradients are views of <see cref="Gradient"/>.</summary>
    public IReadOnlyList<torch.Tensor> Views => throw new NotImplementedException();

    /// <inheritdoc/>
    public void Dispose() => throw new NotImplementedException();
}
