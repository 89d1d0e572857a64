namespace LoKr.Models.StableDiffusion.Training;

/// <summary>
/// Sizes for pictures of many shapes: multiples of 64 pixels (of 8 below a resolution of 256) with at most the area of the resolution's square,
/// the shorter side at least half of it. Every picture takes the size whose shape is nearest.
/// </summary>
internal sealed class AspectBuckets
{
    private const int Step = 64;
    private const int SmallStep = PictureOptions.SizeStep;
    private const int SmallestWithStep = 4 * Step;

    private readonly List<(int Width, int Height)> _sizes = [];

    public AspectBuckets(int resolution)
    {
        int step = resolution < SmallestWithStep || resolution % Step != 0 ? SmallStep : Step;
        int shortest = Math.Max(step, resolution / 2 / step * step);
        for (int width = shortest; width <= 2 * resolution; width += step)
        {
            int height = Math.Min(resolution * resolution / width / step * step, 2 * resolution);
            if (height >= shortest)
            {
                _sizes.Add((width, height));
            }
        }
    }

    /// <summary>All sizes.</summary>
    public IReadOnlyList<(int Width, int Height)> Sizes => _sizes;

    /// <summary>The size for a picture.</summary>
    public (int Width, int Height) Choose(int width, int height)
    {
        double shape = Math.Log((double)width / height);
        return _sizes.OrderBy(size => Math.Abs(Math.Log((double)size.Width / size.Height) - shape)).ThenByDescending(size => size.Width * size.Height).First();
    }
}
