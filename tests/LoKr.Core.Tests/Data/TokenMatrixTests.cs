using LoKr.Core.Data;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Data;

public sealed class TokenMatrixTests
{
    [Fact]
    public void Rows_are_padded_on_the_right_to_the_longest()
    {
        using DisposeScope scope = NewDisposeScope();
        TokenMatrix tokens = new([[5, 6, 7], [8], []], padId: 9);
        Assert.Equal((3, 3, 4L), (tokens.RowCount, tokens.Length, tokens.TokenCount));
        Assert.Equal([5, 6, 7, 8, 9, 9, 9, 9, 9], tokens.Ids);
        Assert.Equal([1, 1, 1, 1, 0, 0, 0, 0, 0], tokens.Mask);
        Assert.Equal([3L, 3L], tokens.IdsOn(CPU).shape);
        Assert.Equal(ScalarType.Int64, tokens.MaskOn(CPU).dtype);
        Assert.Equal(tokens.Ids, tokens.IdsOn(CPU).data<long>().ToArray());
    }

    [Fact]
    public void A_length_may_be_longer_than_the_longest_row()
    {
        TokenMatrix tokens = new([[5, 6], [7]], padId: 0, length: 4);
        Assert.Equal([5, 6, 0, 0, 7, 0, 0, 0], tokens.Ids);
        Assert.Equal([1, 1, 0, 0, 1, 0, 0, 0], tokens.Mask);
    }
}
