using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Imaging;

/// <summary>
/// Scales pictures with Lanczos' filter of three lobes, widened when it makes them smaller, so that nothing aliases: the filter of
/// diffusers' training scripts (Pillow's LANCZOS).
/// </summary>
public static class Resampler
{
    private const int Lobes = 3;

    /// <summary>Scales so that the picture covers a size, and cuts the middle out.</summary>
    /// <param name="picture">Bytes [height, width, 3].</param>
    /// <param name="width">Wanted width in pixels.</param>
    /// <param name="height">Wanted height in pixels.</param>
    /// <returns>Single precision [3, height, width] between −1 and 1, as an autoencoder takes it.</returns>
    public static Tensor Cover(Tensor picture, int width, int height)
    {
        ArgumentNullException.ThrowIfNull(picture);
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(height, 1);
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        (double rows, double columns) = (picture.shape[0], picture.shape[1]);
        double scale = Math.Max(width / columns, height / rows);
        Tensor down = Filter((int)rows, height, scale);
        Tensor across = Filter((int)columns, width, scale);
        Tensor values = picture.permute(2, 0, 1).to(ScalarType.Float32);
        Tensor scaled = down.matmul(values).matmul(across.t());
        return scaled.round().clamp(0, 255).div_(127.5f).sub_(1).contiguous().MoveToOuterDisposeScope();
    }

    /// <summary>Weights [size, length] that take the middle of a scaled line of pixels.</summary>
    private static Tensor Filter(int length, int size, double scale)
    {
        double support = Lobes * Math.Max(1, 1 / scale);
        double margin = ((length * scale) - size) / 2;
        float[] weights = new float[size * length];
        for (int i = 0; i < size; i++)
        {
            double center = (i + margin + 0.5) / scale;
            int first = Math.Max((int)Math.Floor(center - support), 0);
            int last = Math.Min((int)Math.Ceiling(center + support), length - 1);
            double[] taps = [.. Enumerable.Range(first, last - first + 1).Select(j => Lanczos((j + 0.5 - center) * Lobes / support))];
            double sum = taps.Sum();
            for (int j = first; j <= last; j++)
            {
                weights[(i * length) + j] = (float)(taps[j - first] / sum);
            }
        }

        return tensor(weights, [size, length]);
    }

    private static double Lanczos(double x) => x == 0 ? 1 : Math.Abs(x) >= Lobes ? 0 : Sinc(x) * Sinc(x / Lobes);

    private static double Sinc(double x) => Math.Sin(Math.PI * x) / (Math.PI * x);
}
