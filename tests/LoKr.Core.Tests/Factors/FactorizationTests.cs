using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Factors;

public sealed class FactorizationTests
{
    [Fact]
    public void Equals_PEFT_row_for_row()
    {
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Fixtures.Require("factorization.json")));
        int rows = 0;
        foreach (JsonElement row in json.RootElement.GetProperty("rows").EnumerateArray())
        {
            long[] values = [.. row.EnumerateArray().Select(static value => value.GetInt64())];
            Assert.Equal((values[2], values[3]), Factorization.Split(values[0], values[1]));
            rows++;
        }

        Assert.True(rows > 100);
    }

    [Theory]
    [InlineData(64, 16, 4, 16)]
    [InlineData(128, 16, 8, 16)]
    [InlineData(360, -7, 18, 20)]
    [InlineData(250, 4, 2, 125)]
    public void LyCORIS_puts_the_smaller_factor_first(long dimension, int factor, long first, long second) =>
        Assert.Equal((first, second), Factorization.Split(dimension, factor, FactorizationConvention.Lycoris));

    [Fact]
    public void Rank_decides_which_factors_are_low_rank()
    {
        LoKrConfig config = new() { DecomposeBoth = true };

        // 3072 = 48·64 on both sides: w1 48×48, w2 64×64.
        Assert.Equal("w1_a 48×8, w1_b 8×48, w2_a 64×8, w2_b 8×64", FactorShapes.Create(3072, 3072, [], 8, config).ToString());
        Assert.Equal("w1 48×48, w2_a 64×24, w2_b 24×64", FactorShapes.Create(3072, 3072, [], 24, config).ToString());
        Assert.Equal("w1 48×48, w2 64×64", FactorShapes.Create(3072, 3072, [], 32, config).ToString());

        // Half of an odd size is not rounded down: 2 < 2.5.
        Assert.True(FactorShapes.Create(20, 10, [], 2, new()).LowRankW2);
        Assert.False(FactorShapes.Create(20, 10, [], 3, new()).LowRankW2);
    }

    [Fact]
    public void FullMatrix_and_unbalanced_factorization_follow_LyCORIS()
    {
        Assert.Equal("w1 48×48, w2 64×64", FactorShapes.Create(3072, 3072, [], 2, new() { FullMatrix = true, DecomposeBoth = true }).ToString());
        Assert.Equal("w1 64×48, w2_a 48×2, w2_b 2×64", FactorShapes.Create(3072, 3072, [], 2, new() { UnbalancedFactorization = true }).ToString());
    }

    [Fact]
    public void Convolutions_get_flat_or_Tucker_factors()
    {
        LoKrConfig tucker = new() { UseEffectiveConv2d = true };
        Assert.Equal("w1 4×4, w2_a 8×2, w2_b 2×72", FactorShapes.Create(32, 32, [3, 3], 2, new()).ToString());
        Assert.Equal("w1 4×4, w2_a 2×8, w2_b 2×8, t2 2×2×3×3", FactorShapes.Create(32, 32, [3, 3], 2, tucker).ToString());
        Assert.Equal("w1 4×4, w2_a 8×2, w2_b 2×8", FactorShapes.Create(32, 32, [1, 1], 2, tucker).ToString());
        Assert.Equal("w1 4×4, w2_a 2×8, w2_b 2×8, t2 2×2×3×1", FactorShapes.Create(32, 32, [3], 2, tucker).ToString());
        Assert.Equal("w1 4×4, w2 8×8×3×3", FactorShapes.Create(32, 32, [3, 3], 8, tucker).ToString());
    }
}
