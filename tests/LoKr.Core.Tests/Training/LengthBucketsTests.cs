using LoKr.Core.Training;
using Xunit;

namespace LoKr.Core.Tests.Training;

public sealed class LengthBucketsTests
{
    private static readonly int[] s_lengths = [.. Enumerable.Range(0, 203).Select(i => 1 + ((i * 7919) % 61))];

    [Theory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(false, false)]
    public void Every_row_is_in_exactly_one_batch(bool shuffle, bool bucket)
    {
        IReadOnlyList<int[]> batches = LengthBuckets.Create(s_lengths, new BatchOrder(8, shuffle, bucket, Seed: 3, Epoch: 1));
        Assert.Equal(Enumerable.Range(0, s_lengths.Length), batches.SelectMany(batch => batch).Order());
        Assert.Equal((s_lengths.Length + 7) / 8, batches.Count);
        Assert.Equal(1, batches.Count(batch => batch.Length < 8));
    }

    [Fact]
    public void The_same_seed_and_epoch_give_the_same_batches()
    {
        BatchOrder order = new(8, Shuffle: true, Seed: 5, Epoch: 2);
        Assert.Equal(Flat(order), Flat(order));
        Assert.NotEqual(Flat(order), Flat(order with { Seed = 6 }));
        Assert.NotEqual(Flat(order), Flat(order with { Epoch = 3 }));
        Assert.NotEqual(Flat(order with { Seed = 0, Epoch = 1 }), Flat(order with { Seed = 1, Epoch = 0 }));
    }

    [Fact]
    public void Buckets_save_padding()
    {
        BatchOrder order = new(8, Shuffle: true, Seed: 1);
        Assert.True(Padded(order) < 0.75 * Padded(order with { Bucket = false }));
    }

    [Fact]
    public void Without_shuffling_and_buckets_the_order_is_kept() =>
        Assert.Equal(Enumerable.Range(0, s_lengths.Length), Flat(new BatchOrder(8, Bucket: false)));

    [Fact]
    public void Batches_do_not_go_from_short_to_long()
    {
        int[] longest = [.. LengthBuckets.Create(s_lengths, new BatchOrder(8, Shuffle: true, Seed: 1)).Select(batch => batch.Max(row => s_lengths[row]))];
        Assert.NotEqual(longest.Order(), longest);
        Assert.NotEqual(longest.OrderDescending(), longest);
    }

    [Fact]
    public void Shuffling_puts_every_row_everywhere()
    {
        // Over many seeds, each of 10 rows should be first about equally often: 2,000 draws, mean 200, standard deviation 13.
        int[] firsts = new int[10];
        for (int seed = 0; seed < 2000; seed++)
        {
            firsts[LengthBuckets.Create(new int[10], new BatchOrder(1, Shuffle: true, Bucket: false, Seed: seed))[0][0]]++;
        }

        Assert.All(firsts, count => Assert.InRange(count, 130, 270));
    }

    private static int[] Flat(BatchOrder order) => [.. LengthBuckets.Create(s_lengths, order).SelectMany(batch => batch)];

    private static int Padded(BatchOrder order) =>
        LengthBuckets.Create(s_lengths, order).Sum(batch => batch.Length * batch.Max(row => s_lengths[row]));
}
