using LoKr.Core.Errors;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

public sealed class TokenSamplerTests
{
    private static readonly double[] s_probabilities = [0.05, 0.4, 0.15, 0.3, 0.1];

    [Theory]
    [InlineData(1.0, 0, 1.0, new[] { 0.05, 0.4, 0.15, 0.3, 0.1 })]
    [InlineData(0.5, 0, 1.0, new[] { 0.0025, 0.16, 0.0225, 0.09, 0.01 })]
    [InlineData(1.0, 2, 1.0, new[] { 0, 0.4, 0, 0.3, 0 })]
    [InlineData(1.0, 99, 1.0, new[] { 0.05, 0.4, 0.15, 0.3, 0.1 })]
    [InlineData(1.0, 0, 0.75, new[] { 0, 0.4, 0.15, 0.3, 0 })]
    [InlineData(1.0, 0, 0.6, new[] { 0, 0.4, 0, 0.3, 0 })]
    [InlineData(1.0, 3, 0.5, new[] { 0, 0.4, 0, 0.3, 0 })]
    public void Tokens_come_as_often_as_their_probability_says(double temperature, int topK, double topP, double[] weights)
    {
        using DisposeScope scope = NewDisposeScope();
        using TokenSampler sampler = new(new GenerationOptions { Temperature = temperature, TopK = topK, TopP = topP, Seed = 4 });
        Tensor logits = (tensor(s_probabilities).log() + 3).to(ScalarType.Float32);
        const int draws = 4000;
        int[] counts = new int[weights.Length];
        for (int i = 0; i < draws; i++)
        {
            counts[sampler.Next(logits)]++;
        }

        double sum = weights.Sum();
        for (int i = 0; i < weights.Length; i++)
        {
            double p = weights[i] / sum;

            // Five standard deviations of a binomial count; an impossible token must not come at all.
            Assert.InRange(counts[i], draws * p - (5 * Math.Sqrt(draws * p * (1 - p))), draws * p + (5 * Math.Sqrt(draws * p * (1 - p))));
        }
    }

    [Fact]
    public void Greedy_takes_the_largest_of_half_precision_too()
    {
        using DisposeScope scope = NewDisposeScope();
        using TokenSampler sampler = new(new GenerationOptions());
        Assert.Equal(2, sampler.Next(tensor([1f, -3, 8, 7.9f]).to(ScalarType.BFloat16)));
    }

    [Theory]
    [InlineData(0, 0.0, 0, 1.0, "MaxNewTokens")]
    [InlineData(1, -0.1, 0, 1.0, "Temperature")]
    [InlineData(1, double.NaN, 0, 1.0, "Temperature")]
    [InlineData(1, double.PositiveInfinity, 0, 1.0, "Temperature")]
    [InlineData(1, 0.0, -1, 1.0, "TopK")]
    [InlineData(1, 0.0, 0, 0.0, "TopP")]
    [InlineData(1, 0.0, 0, 1.1, "TopP")]
    public void Options_out_of_range_are_errors(int most, double temperature, int topK, double topP, string names) =>
        ErrorAssert.Throws(ErrorIds.GenerationOptionInvalid,
            () => new TokenSampler(new GenerationOptions { MaxNewTokens = most, Temperature = temperature, TopK = topK, TopP = topP }).Dispose(), names);
}
