using LoKr.Core.Distributed;
using Xunit;

namespace LoKr.Core.Tests.Distributed;

public sealed class TreeSumTests
{
    [Theory]
    [InlineData(1, "0")]
    [InlineData(2, "(0+1)")]
    [InlineData(3, "((0+1)+2)")]
    [InlineData(5, "(((0+1)+(2+3))+4)")]
    [InlineData(6, "(((0+1)+(2+3))+(4+5))")]
    [InlineData(7, "(((0+1)+(2+3))+((4+5)+6))")]
    [InlineData(8, "(((0+1)+(2+3))+((4+5)+(6+7)))")]
    public void The_order_depends_on_the_number_of_terms_only(int count, string expected)
    {
        Assert.Equal(expected, Whole(count));
        for (int size = 1; size <= count + 2; size++)
        {
            Dictionary<TermRange, string> known = [];
            for (int rank = 0; rank < size; rank++)
            {
                foreach (TermRange node in TreeSum.NodesOf(count, TreeSum.ShareOf(count, rank, size)))
                {
                    known.Add(node, TreeSum.Sum(node, One, Add));
                }
            }

            Assert.Equal(expected, TreeSum.Sum(new(0, count), known.GetValueOrDefault, Add));
            Assert.Equal(count, known.Keys.Sum(static node => node.Count));
        }
    }

    [Fact]
    public void Shares_are_neighbors_of_nearly_equal_number_and_cover_every_term_once()
    {
        for (int count = 1; count <= 40; count++)
        {
            for (int size = 1; size <= 12; size++)
            {
                TermRange[] shares = [.. Enumerable.Range(0, size).Select(rank => TreeSum.ShareOf(count, rank, size))];
                Assert.Equal(Enumerable.Range(0, count), shares.SelectMany(static share => Enumerable.Range(share.Start, share.Count)));
                Assert.InRange(shares.Max(static share => share.Count) - shares.Min(static share => share.Count), 0, 1);
            }
        }
    }

    [Fact]
    public void A_worker_gives_few_sums_whatever_the_number_of_its_terms() =>
        Assert.All(Enumerable.Range(1, 200), static count => Assert.All(Enumerable.Range(0, 3), rank =>
            Assert.InRange(TreeSum.NodesOf(count, TreeSum.ShareOf(count, rank, 3)).Count, 0, 2 * 8)));

    private static string Whole(int count) => TreeSum.Sum(new(0, count), One, Add);

    private static string? One(TermRange node) => node.Count == 1 ? $"{node.Start}" : null;

    private static string Add(string left, string right) => $"({left}+{right})";
}
