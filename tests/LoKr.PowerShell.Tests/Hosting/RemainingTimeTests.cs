using LoKr.PowerShell.Hosting;
using Xunit;

namespace LoKr.PowerShell.Tests.Hosting;

public sealed class RemainingTimeTests
{
    [Fact]
    public void Time_before_the_first_report_does_not_count_for_the_speed()
    {
        RemainingTime remaining = new();
        TimeSpan warmUp = TimeSpan.FromMinutes(10);
        int? last = null;
        for (int i = 0; i <= 10; i++)
        {
            last = remaining.Estimate(0.1 + (i * 0.05), warmUp + TimeSpan.FromSeconds(i));
        }

        // 0.4 is left, at 0.05 a second.
        Assert.Equal(8, last);
    }

    [Fact]
    public void Nothing_is_said_before_a_few_reports_and_seconds()
    {
        RemainingTime early = new();
        Assert.All(Enumerable.Range(0, 10), i => Assert.Null(early.Estimate(0.001 * i, TimeSpan.FromMilliseconds(200 * i))));
        RemainingTime rare = new();
        Assert.All(Enumerable.Range(0, 3), i => Assert.Null(rare.Estimate(0.001 * i, TimeSpan.FromMinutes(i))));
    }

    [Fact]
    public void Work_that_stands_still_has_no_end()
    {
        RemainingTime remaining = new();
        Assert.All(Enumerable.Range(0, 10), i => Assert.Null(remaining.Estimate(0.5, TimeSpan.FromSeconds(i))));
    }

    [Fact]
    public void The_next_piece_of_work_is_measured_anew()
    {
        RemainingTime remaining = new();
        for (int i = 0; i <= 10; i++)
        {
            remaining.Estimate(0.5 + (i * 0.05), TimeSpan.FromSeconds(100 * i));
        }

        Assert.Null(remaining.Estimate(0, TimeSpan.FromSeconds(1001)));
        int? last = null;
        for (int i = 1; i <= 5; i++)
        {
            last = remaining.Estimate(i * 0.1, TimeSpan.FromSeconds(1001 + i));
        }

        Assert.Equal(5, last);
    }
}
