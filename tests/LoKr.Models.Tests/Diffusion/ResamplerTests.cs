using LoKr.Models.Diffusion;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Scaling keeps flat colors, cuts the middle, and does not alias.</summary>
public sealed class ResamplerTests
{
    [Theory]
    [InlineData(20, 30, 8, 8)]
    [InlineData(8, 8, 32, 16)]
    [InlineData(16, 16, 16, 16)]
    public void A_flat_image_stays_flat(int height, int width, int toWidth, int toHeight)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor image = full([height, width, 3], 51, ScalarType.Byte);
        Tensor scaled = Resampler.Cover(image, toWidth, toHeight);
        TensorAssert.Close(full([3, toHeight, toWidth], (51 / 127.5) - 1, ScalarType.Float32), scaled, 1e-6, "flat");
    }

    [Fact]
    public void The_same_size_changes_nothing_and_the_range_is_that_of_the_autoencoder()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor image = randint(0, 256, [6, 9, 3], ScalarType.Byte);
        Tensor scaled = Resampler.Cover(image, 9, 6);
        TensorAssert.Close((image.permute(2, 0, 1).to(ScalarType.Float32) / 127.5) - 1, scaled, 1e-6, "same");
        Assert.Equal(-1, Resampler.Cover(zeros(2, 2, 3, dtype: ScalarType.Byte), 2, 2).min().item<float>());
        Assert.Equal(1, Resampler.Cover(full([2, 2, 3], 255, ScalarType.Byte), 2, 2).max().item<float>());
    }

    [Fact]
    public void The_longer_side_is_cut_on_both_ends()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor image = zeros(4, 12, 3, dtype: ScalarType.Byte);
        image[.., 4..8] = 255;
        TensorAssert.Close(ones(3, 4, 4), Resampler.Cover(image, 4, 4), 1e-6, "middle");
    }

    [Fact]
    public void Fine_stripes_become_their_mean_when_they_are_made_smaller()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor image = zeros(64, 64, 3, dtype: ScalarType.Byte);
        image[.., TensorIndex.Slice(0, null, 2)] = 255;
        Tensor scaled = Resampler.Cover(image, 8, 8);
        Assert.InRange(scaled[.., .., 2..6].abs().max().item<float>(), 0, 0.02f);
    }

    [Fact]
    public void A_gradient_is_followed_to_its_values()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor line = (arange(0, 32, ScalarType.Float32) * 8).to(ScalarType.Byte);
        Tensor image = line.reshape(1, 32, 1).expand(32, 32, 3).contiguous();

        // Halving takes the mean of two neighbors, up to the rounding to whole bytes.
        Tensor scaled = (Resampler.Cover(image, 16, 16)[0, 8, 4..12] + 1) * 127.5;
        Tensor expected = (arange(4, 12, ScalarType.Float32) * 16) + 4;
        Assert.InRange((scaled - expected).abs().max().item<float>(), 0, 1);
    }
}
