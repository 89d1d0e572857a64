using System.Buffers.Binary;
using System.Globalization;
using System.IO.Compression;
using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>The loss over the steps of a run as a PNG picture: each step in gray, their running mean in blue, evaluations in orange.</summary>
internal static class LossChart
{
    private const int Width = 960;
    private const int Height = 480;
    private const int Left = 88;
    private const int Right = 24;
    private const int Top = 20;
    private const int Bottom = 44;

    private static readonly Rgb s_grid = new(225, 225, 225);
    private static readonly Rgb s_text = new(90, 90, 90);
    private static readonly Rgb s_step = new(185, 195, 205);
    private static readonly Rgb s_mean = new(20, 100, 190);
    private static readonly Rgb s_evaluation = new(225, 110, 10);

    /// <summary>Draws the steps; values that are not finite are left out. Equal steps give equal bytes.</summary>
    public static byte[] Draw(IReadOnlyList<LoKrTrainingStep> history)
    {
        Canvas canvas = new(Width, Height);
        (double X, double Y)[] losses = Finite(history.Select(static step => ((double)step.Step, (double?)step.Loss)));
        (double X, double Y)[] evaluations = Finite(history.Select(static step => ((double)step.Step, step.EvaluationLoss)));
        (double X, double Y)[] all = [.. losses, .. evaluations];
        if (all.Length == 0)
        {
            return canvas.ToPng();
        }

        Axis x = Axis.Over(1, Math.Max(2, history.Count), Left, Width - Right, isWhole: true);
        Axis y = Axis.Over(all.Min(static point => point.Y), all.Max(static point => point.Y), Height - Bottom, Top, isWhole: false);
        foreach (double tick in y.Ticks)
        {
            canvas.Line((Left, y.Of(tick)), (Width - Right, y.Of(tick)), 1, s_grid);
            canvas.Number(y.Text(tick), Left - 10, y.Of(tick), s_text, isCentered: false);
        }

        foreach (double tick in x.Ticks)
        {
            canvas.Line((x.Of(tick), Top), (x.Of(tick), Height - Bottom), 1, s_grid);
            canvas.Number(x.Text(tick), x.Of(tick), Height - (Bottom / 2.0), s_text, isCentered: true);
        }

        Draw(Thin(losses), 1, s_step);
        Draw(Thin(RunningMean(losses, Math.Max(1, losses.Length / 25))), 2.5, s_mean);
        Draw(evaluations, 2, s_evaluation);
        foreach ((double px, double py) in evaluations)
        {
            canvas.Line((x.Of(px), y.Of(py)), (x.Of(px), y.Of(py)), 7, s_evaluation);
        }

        return canvas.ToPng();

        void Draw((double X, double Y)[] points, double thickness, Rgb color)
        {
            for (int i = 1; i < points.Length; i++)
            {
                canvas.Line((x.Of(points[i - 1].X), y.Of(points[i - 1].Y)), (x.Of(points[i].X), y.Of(points[i].Y)), thickness, color);
            }
        }
    }

    private static (double X, double Y)[] Finite(IEnumerable<(double X, double? Y)> points) =>
        [.. points.Where(static point => point.Y is double y && double.IsFinite(y)).Select(static point => (point.X, point.Y!.Value))];

    // Of many steps two for each column, the lowest and the highest, which look the same.
    private static (double X, double Y)[] Thin((double X, double Y)[] points) => points.Length <= 2 * Width ? points :
    [
        .. points.Chunk((points.Length / Width) + 1).SelectMany(static part => new[] { part.MinBy(static point => point.Y), part.MaxBy(static point => point.Y) }.OrderBy(static point => point.X)),
    ];

    private static (double X, double Y)[] RunningMean((double X, double Y)[] points, int window)
    {
        (double X, double Y)[] means = new (double, double)[points.Length];
        double sum = 0;
        for (int i = 0; i < points.Length; i++)
        {
            sum += points[i].Y - (i >= window ? points[i - window].Y : 0);
            means[i] = (points[i].X, sum / Math.Min(i + 1, window));
        }

        return means;
    }

    /// <summary>From values to pixels, with ticks at 1, 2 or 5 times a power of ten.</summary>
    private sealed record Axis(double Low, double High, double First, double Last, double Step)
    {
        public IEnumerable<double> Ticks => Enumerable.Range(0, 20).Select(i => (Math.Ceiling(Low / Step) + i) * Step).TakeWhile(tick => tick <= High + (Step * 1e-9));

        public static Axis Over(double low, double high, double first, double last, bool isWhole)
        {
            double range = high > low ? high - low : Math.Max(Math.Abs(low), 1e-6);
            double margin = isWhole ? 0 : range * 0.05;
            double raw = (range + (2 * margin)) / 6;
            double power = Math.Pow(10, Math.Floor(Math.Log10(raw)));
            double step = power * (raw / power) switch { <= 1 => 1, <= 2 => 2, <= 5 => 5, _ => 10 };
            return new(low - margin, high > low ? high + margin : low + range, first, last, isWhole ? Math.Max(1, step) : step);
        }

        public double Of(double value) => First + ((value - Low) / (High - Low) * (Last - First));

        public string Text(double tick) => Step is >= 1e-4 and < 1e6
            ? Math.Round(tick, 8).ToString("F" + Math.Max(0, -(int)Math.Floor(Math.Log10(Step))).ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture)
            : tick.ToString("0.#E0", CultureInfo.InvariantCulture);
    }

    private readonly record struct Rgb(byte R, byte G, byte B);

    /// <summary>A picture of three bytes a pixel, white at first.</summary>
    private sealed class Canvas
    {
        private const double Digit = 7;
        private const double Pitch = 12;

        private readonly int _width;
        private readonly int _height;
        private readonly byte[] _pixels;

        public Canvas(int width, int height)
        {
            (_width, _height, _pixels) = (width, height, new byte[width * height * 3]);
            Array.Fill(_pixels, byte.MaxValue);
        }

        /// <summary>Draws a line with round ends; edges are smooth.</summary>
        public void Line((double X, double Y) from, (double X, double Y) to, double thickness, Rgb color)
        {
            double reach = (thickness / 2) + 1;
            (double dx, double dy) = (to.X - from.X, to.Y - from.Y);
            double length = (dx * dx) + (dy * dy);
            for (int y = Math.Max(0, (int)(Math.Min(from.Y, to.Y) - reach)); y <= Math.Min(_height - 1, (int)(Math.Max(from.Y, to.Y) + reach)); y++)
            {
                for (int x = Math.Max(0, (int)(Math.Min(from.X, to.X) - reach)); x <= Math.Min(_width - 1, (int)(Math.Max(from.X, to.X) + reach)); x++)
                {
                    double along = length == 0 ? 0 : Math.Clamp((((x - from.X) * dx) + ((y - from.Y) * dy)) / length, 0, 1);
                    double distance = double.Hypot(x - from.X - (along * dx), y - from.Y - (along * dy));
                    Blend(x, y, Math.Clamp((thickness / 2) + 0.5 - distance, 0, 1), color);
                }
            }
        }

        /// <summary>Draws a number from strokes, as displays of seven segments do: a picture needs no font of the system then.</summary>
        public void Number(string text, double x, double y, Rgb color, bool isCentered)
        {
            double left = x - (isCentered ? text.Length * Pitch / 2 : text.Length * Pitch);
            foreach (char character in text)
            {
                if (character == '.')
                {
                    Line((left + (Digit / 2), y + Digit), (left + (Digit / 2), y + Digit), 2.4, color);
                }
                else
                {
                    foreach (char segment in Segments(character))
                    {
                        ((double ax, double ay), (double bx, double by)) = Ends(segment);
                        Line((left + (ax * Digit), y + (ay * Digit)), (left + (bx * Digit), y + (by * Digit)), 1.5, color);
                    }
                }

                left += Pitch;
            }
        }

        public byte[] ToPng()
        {
            using MemoryStream png = new();
            png.Write([0x89, (byte)'P', (byte)'N', (byte)'G', 0x0D, 0x0A, 0x1A, 0x0A]);
            byte[] header = new byte[13];
            BinaryPrimitives.WriteInt32BigEndian(header, _width);
            BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(4), _height);
            header[8] = 8; // bits
            header[9] = 2; // RGB
            Chunk(png, "IHDR"u8, header);
            using (MemoryStream rows = new())
            {
                using (ZLibStream zlib = new(rows, CompressionLevel.Optimal, leaveOpen: true))
                {
                    for (int y = 0; y < _height; y++)
                    {
                        zlib.WriteByte(0); // no filter
                        zlib.Write(_pixels, y * _width * 3, _width * 3);
                    }
                }

                Chunk(png, "IDAT"u8, rows.ToArray());
            }

            Chunk(png, "IEND"u8, []);
            return png.ToArray();
        }

        private static string Segments(char character) => character switch
        {
            '0' => "abcdef",
            '1' => "bc",
            '2' => "abged",
            '3' => "abgcd",
            '4' => "fgbc",
            '5' => "afgcd",
            '6' => "afgedc",
            '7' => "abc",
            '8' => "abcdefg",
            '9' => "abcdfg",
            'E' => "afged",
            _ => "g", // a minus
        };

        private static ((double, double) From, (double, double) To) Ends(char segment) => segment switch
        {
            'a' => ((0, -1), (1, -1)),
            'b' => ((1, -1), (1, 0)),
            'c' => ((1, 0), (1, 1)),
            'd' => ((0, 1), (1, 1)),
            'e' => ((0, 0), (0, 1)),
            'f' => ((0, -1), (0, 0)),
            _ => ((0, 0), (1, 0)),
        };

        private static void Chunk(MemoryStream png, ReadOnlySpan<byte> type, ReadOnlySpan<byte> data)
        {
            byte[] chunk = new byte[4 + data.Length];
            type.CopyTo(chunk);
            data.CopyTo(chunk.AsSpan(4));
            Span<byte> number = stackalloc byte[4];
            BinaryPrimitives.WriteInt32BigEndian(number, data.Length);
            png.Write(number);
            png.Write(chunk);
            BinaryPrimitives.WriteUInt32BigEndian(number, Checksum(chunk));
            png.Write(number);
        }

        // CRC-32 of PNG, bit by bit: one picture a run needs no table.
        private static uint Checksum(ReadOnlySpan<byte> bytes)
        {
            uint crc = uint.MaxValue;
            foreach (byte value in bytes)
            {
                crc ^= value;
                for (int bit = 0; bit < 8; bit++)
                {
                    crc = (crc >> 1) ^ (0xEDB88320 & (0 - (crc & 1)));
                }
            }

            return ~crc;
        }

        private void Blend(int x, int y, double share, Rgb color)
        {
            int at = ((y * _width) + x) * 3;
            _pixels[at] = Mix(_pixels[at], color.R);
            _pixels[at + 1] = Mix(_pixels[at + 1], color.G);
            _pixels[at + 2] = Mix(_pixels[at + 2], color.B);

            byte Mix(byte old, byte now) => (byte)Math.Round(old + (share * (now - old)));
        }
    }
}
