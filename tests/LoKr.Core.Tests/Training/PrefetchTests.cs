using LoKr.Core.Training;
using Xunit;

namespace LoKr.Core.Tests.Training;

public sealed class PrefetchTests
{
    [Fact]
    public void Items_come_in_order()
    {
        using Prefetch<int> prefetch = new(Enumerable.Range(0, 100));
        Assert.Equal(Enumerable.Range(0, 100), prefetch.Items());
    }

    [Fact]
    public void An_exception_of_the_source_comes_out()
    {
        using Prefetch<int> prefetch = new(Source());
        var read = new List<int>();
        InvalidDataException e = Assert.Throws<InvalidDataException>(() => read.AddRange(prefetch.Items()));
        Assert.Equal("damaged", e.Message);

        static IEnumerable<int> Source()
        {
            yield return 1;
            throw new InvalidDataException("damaged");
        }
    }

    [Fact]
    public void Only_a_few_items_are_made_ahead_and_a_reader_who_leaves_stops_the_source()
    {
        int made = 0;
        using (Prefetch<int> prefetch = new(Source(), ahead: 3))
        {
            Assert.Equal(0, prefetch.Items().First());
            Thread.Sleep(100);
        }

        Assert.InRange(made, 1, 6);

        IEnumerable<int> Source()
        {
            for (int i = 0; ; i++)
            {
                made++;
                yield return i;
            }
        }
    }
}
