using LoKr.Core.Training;
using Xunit;

namespace LoKr.Core.Tests.Training;

/// <summary>Against the formulas of transformers' get_*_schedule_with_warmup, written down again.</summary>
public sealed class ScheduleTests
{
    [Theory]
    [InlineData(0, 10)]
    [InlineData(3, 10)]
    [InlineData(10, 10)]
    [InlineData(15, 10)]
    [InlineData(17, 272)]
    public void Linear_follows_the_formula(int warmup, int total)
    {
        Schedule schedule = new(LearningRateSchedule.Linear, 5e-3, warmup, total);
        for (int step = 0; step < total; step++)
        {
            double factor = step < warmup
                ? (double)step / Math.Max(1, warmup)
                : Math.Max(0.0, (double)(total - step) / Math.Max(1, total - warmup));
            Assert.Equal(5e-3 * factor, schedule.At(step), 15);
        }
    }

    [Theory]
    [InlineData(0, 10)]
    [InlineData(4, 50)]
    public void Cosine_follows_the_formula(int warmup, int total)
    {
        Schedule schedule = new(LearningRateSchedule.Cosine, 1e-3, warmup, total);
        for (int step = 0; step < total; step++)
        {
            double progress = (double)(step - warmup) / Math.Max(1, total - warmup);
            double factor = step < warmup ? (double)step / warmup : Math.Max(0.0, 0.5 * (1.0 + Math.Cos(Math.PI * 0.5 * 2.0 * progress)));
            Assert.Equal(1e-3 * factor, schedule.At(step), 15);
        }
    }

    [Fact]
    public void Constant_stays_after_the_warm_up()
    {
        Schedule schedule = new(LearningRateSchedule.Constant, 2e-3, 2, 5);
        Assert.Equal([0, 1e-3, 2e-3, 2e-3, 2e-3], Enumerable.Range(0, 5).Select(schedule.At));
    }

    [Theory]
    [InlineData(0.06, 272, 17)]
    [InlineData(0.06, 168, 11)]
    [InlineData(0.5, 3, 2)]
    [InlineData(0, 100, 0)]
    public void A_warm_up_ratio_is_rounded_up(double ratio, int total, int expected) =>
        Assert.Equal(expected, Schedule.For(new TrainingOptions { WarmupRatio = ratio }, total).WarmupSteps);

    [Fact]
    public void Warm_up_steps_go_before_the_ratio() =>
        Assert.Equal(3, Schedule.For(new TrainingOptions { WarmupRatio = 0.5, WarmupSteps = 3 }, 100).WarmupSteps);
}
