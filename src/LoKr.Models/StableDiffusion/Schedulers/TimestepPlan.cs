namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>The timesteps that a number of steps visits, largest first, rounded as numpy does.</summary>
internal static class TimestepPlan
{
    /// <summary>Unrounded timesteps in the order of sampling.</summary>
    public static double[] Create(SchedulerSettings settings, int steps)
    {
        int train = settings.TrainTimesteps;
        switch (settings.Spacing)
        {
            case TimestepSpacing.Linspace:
                double gap = steps == 1 ? 0 : (train - 1.0) / (steps - 1);
                return [.. Enumerable.Range(0, steps).Select(i => i == steps - 1 && steps > 1 ? train - 1.0 : i * gap).Reverse()];
            case TimestepSpacing.Leading:
                int stride = train / steps;
                return [.. Enumerable.Range(0, steps).Select(i => (double)((i * stride) + settings.StepsOffset)).Reverse()];
            default:
                double ratio = (double)train / steps;
                return [.. Enumerable.Range(0, (int)Math.Ceiling(train / ratio)).Select(i => Math.Round(train - (i * ratio)) - 1)];
        }
    }

    /// <summary>Timesteps rounded to whole ones, halves to even.</summary>
    public static int[] Whole(SchedulerSettings settings, int steps) => [.. Create(settings, steps).Select(timestep => (int)Math.Round(timestep))];
}
