using LoKr.Core.Layers;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layers;

public sealed class FlatParameterTests
{
    [Fact]
    public void Autograd_accumulates_into_one_gradient()
    {
        using DisposeScope scope = NewDisposeScope();
        using FlatParameter flat = new([[2, 3], [4]], float32, CPU);
        flat.SetRequiresGrad(true);
        Assert.Equal(10, flat.ParameterCount);
        Assert.All(flat.Views, static view => Assert.True(view.is_leaf && view.requires_grad));
        using (no_grad())
        {
            flat.Value.copy_(arange(10, dtype: float32));
        }

        Assert.Equal(5, flat.Views[0][1, 2].ToSingle());
        for (int round = 1; round <= 2; round++)
        {
            ((flat.Views[0] * 2).sum() + (flat.Views[1] * 3).sum()).backward();
            Assert.Equal([.. Enumerable.Repeat(2f * round, 6), .. Enumerable.Repeat(3f * round, 4)], flat.Gradient.data<float>().ToArray());
        }

        flat.Gradient.zero_();
        (flat.Views[1] * 5).sum().backward();
        Assert.Equal([.. Enumerable.Repeat(0f, 6), .. Enumerable.Repeat(5f, 4)], flat.Gradient.data<float>().ToArray());
    }

    [Fact]
    public void Outlives_the_dispose_scope_it_was_made_in()
    {
        FlatParameter flat;
        using (NewDisposeScope())
        {
            flat = new([[2]], float64, CPU);
            flat.SetRequiresGrad(true);
        }

        flat.Views[0].sum().backward();
        Assert.Equal([1d, 1d], flat.Gradient.data<double>().ToArray());
        flat.Dispose();
    }

    [Fact]
    public void Allocates_nothing_on_the_meta_device()
    {
        using FlatParameter flat = new([[1_000_000, 1_000_000]], float32, META);
        Assert.Equal([1_000_000L, 1_000_000L], flat.Views[0].shape);
        Assert.Equal(DeviceType.META, flat.Views[0].device_type);
    }
}
