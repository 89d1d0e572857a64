using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>
/// One contiguous tensor that holds many parameters as leaf views, and one that holds their gradients,
/// so that an optimizer step, a norm or a checkpoint is one operation whatever the number of layers.
/// </summary>
/// <remarks>Zeroing <see cref="Gradient"/> is all that a training step needs; never set a view's gradient to null.</remarks>
public sealed class FlatParameter : IDisposable
{
    private readonly List<long[]> _shapes;
    private readonly List<Tensor> _views = [];
    private readonly List<Tensor> _gradientViews = [];
    private Tensor? _gradient;

    /// <summary>Allocates a buffer for parameters of these shapes. Its values are zero.</summary>
    /// <param name="shapes">Shapes, in the order of <see cref="Views"/>.</param>
    /// <param name="dtype">Floating-point type of all of them.</param>
    /// <param name="device">Device of all of them; the meta device allocates nothing.</param>
    public FlatParameter(IReadOnlyList<long[]> shapes, ScalarType dtype, Device device)
    {
        _shapes = [.. shapes.Select(static shape => (long[])shape.Clone())];
        using IDisposable noGrad = no_grad();
        Value = zeros(_shapes.Sum(static shape => shape.Product()), dtype: dtype, device: device).DetachFromDisposeScope();
        foreach (Tensor view in Slice(Value))
        {
            // A detached view shares memory and version counter with the buffer, and is a leaf of the graph.
            using (view)
            {
                _views.Add(view.detach().DetachFromDisposeScope());
            }
        }
    }

    /// <summary>All values, one dimension.</summary>
    public Tensor Value { get; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Value.NumberOfElements} × {Value.dtype}");

    /// <summary>All gradients, one dimension; autograd accumulates into it. Allocated when first needed.</summary>
    public Tensor Gradient => _gradient ?? AllocateGradient();

    /// <summary>Leaf views of <see cref="Value"/> in the order of the shapes; their gradients are views of <see cref="Gradient"/>.</summary>
    public IReadOnlyList<Tensor> Views => _views;

    /// <summary>Number of parameters.</summary>
    public long ParameterCount => _shapes.Sum(static shape => shape.Product());

    /// <summary>Views of <see cref="Gradient"/> in the order of the shapes.</summary>
    public IReadOnlyList<Tensor> GradientViews
    {
        get
        {
            _ = Gradient;
            return _gradientViews;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Tensor tensor in _views.Concat(_gradientViews))
        {
            tensor.Dispose();
        }

        _gradient?.Dispose();
        Value.Dispose();
    }

    /// <summary>Lets the views take gradients, or not.</summary>
    /// <param name="requiresGrad">Whether they take gradients.</param>
    public void SetRequiresGrad(bool requiresGrad)
    {
        if (requiresGrad)
        {
            _ = Gradient;
        }

        foreach (Tensor view in _views)
        {
            view.requires_grad = requiresGrad;
        }
    }

    /// <summary>The part of the buffer that a parameter is.</summary>
    /// <param name="index">Index among the shapes.</param>
    internal FlatRange RangeOf(int index) => new(this, _shapes.Take(index).Sum(static shape => shape.Product()), _shapes[index].Product());

    private Tensor AllocateGradient()
    {
        using IDisposable noGrad = no_grad();
        _gradient = zeros_like(Value).DetachFromDisposeScope();
        foreach (Tensor view in Slice(_gradient))
        {
            _gradientViews.Add(view.DetachFromDisposeScope());
        }

        for (int i = 0; i < _views.Count; i++)
        {
            _views[i].grad = _gradientViews[i];
        }

        return _gradient;
    }

    private IEnumerable<Tensor> Slice(Tensor flat)
    {
        long offset = 0;
        foreach (long[] shape in _shapes)
        {
            using Tensor part = flat.narrow(0, offset, shape.Product());
            offset += shape.Product();
            yield return part.view(shape);
        }
    }
}

/// <summary>Neighboring values of a flat parameter.</summary>
/// <param name="Flat">The parameter.</param>
/// <param name="Start">Index of the first value.</param>
/// <param name="Count">Number of values.</param>
public sealed record FlatRange(FlatParameter Flat, long Start, long Count)
{
    /// <summary>Joins ranges that touch each other.</summary>
    /// <param name="ranges">Ranges of one or several parameters that do not overlap, in any order.</param>
    /// <returns>Those of each parameter in its order.</returns>
    public static IReadOnlyList<FlatRange> Join(IEnumerable<FlatRange> ranges)
    {
        List<FlatRange> joined = [];
        foreach (IGrouping<FlatParameter, FlatRange> group in ranges.GroupBy(static range => range.Flat))
        {
            foreach (FlatRange range in group.OrderBy(static range => range.Start))
            {
                if (joined.Count > 0 && joined[^1] is FlatRange last && ReferenceEquals(last.Flat, range.Flat) && last.Start + last.Count == range.Start)
                {
                    joined[^1] = last with { Count = last.Count + range.Count };
                }
                else
                {
                    joined.Add(range);
                }
            }
        }

        return joined;
    }
}
