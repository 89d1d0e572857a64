using LoKr.Core.Model;
using LoKr.Core.Runs;
using Xunit;

namespace LoKr.Core.Tests.Runs;

public sealed class RunProgressTests
{
    [Fact]
    public void The_time_that_is_left_comes_from_the_last_steps_once_there_are_five()
    {
        RunProgress progress = new();
        for (int step = 1; step <= 4; step++)
        {
            progress.Add(Step(step, 200, seconds: 100 * step));
        }

        Assert.Null(progress.SecondsRemaining);
        for (int step = 5; step <= 100; step++)
        {
            // Slow steps at the beginning; after them two seconds each.
            progress.Add(Step(step, 200, seconds: 400 + (2 * step)));
        }

        Assert.Equal(2.0 * 100, progress.SecondsRemaining!.Value, 1e-9);
    }

    [Fact]
    public void The_course_of_the_loss_has_the_means_of_at_most_32_equal_parts()
    {
        RunProgress progress = new();
        for (int step = 1; step <= 64; step++)
        {
            progress.AddLoss(Step(step, 64, loss: step));
        }

        Assert.Equal(Enumerable.Range(0, 32).Select(static part => (2 * part) + 1.5), progress.LossCurve);
        RunProgress few = new();
        few.AddLoss(Step(1, 3, loss: 5));
        few.AddLoss(Step(2, 3, loss: 4));
        Assert.Equal([5, 4], few.LossCurve);
        Assert.Null(few.SecondsRemaining);
    }

    private static LoKrTrainingStep Step(int step, int total, double seconds = 0, double loss = 1) => new()
    {
        Step = step,
        TotalSteps = total,
        Epoch = 1,
        Loss = loss,
        LearningRate = 1,
        GradientNorm = 1,
        TokensPerSecond = 1,
        Elapsed = TimeSpan.FromSeconds(seconds),
    };
}
