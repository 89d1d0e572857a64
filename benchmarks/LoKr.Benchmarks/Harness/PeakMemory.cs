using System.Globalization;

namespace LoKr.Benchmarks.Harness;

/// <summary>Resident memory of this process, from Linux's <c>/proc</c>; zero elsewhere.</summary>
internal static class PeakMemory
{
    private const string Status = "/proc/self/status";

    /// <summary>Resident bytes now.</summary>
    public static long Current => Read("VmRSS:");

    /// <summary>Most resident bytes since the start or the last <see cref="Reset"/>.</summary>
    public static long Peak => Read("VmHWM:");

    /// <summary>Resets the peak.</summary>
    public static void Reset()
    {
        if (File.Exists(Status))
        {
            File.WriteAllText("/proc/self/clear_refs", "5");
        }
    }

    /// <summary>A number of bytes for people.</summary>
    public static string Format(long bytes) => bytes >= 1L << 30
        ? string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 30):0.00} GiB")
        : string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 20):0.0} MiB");

    private static long Read(string field)
    {
        if (!File.Exists(Status))
        {
            return 0;
        }

        string line = File.ReadLines(Status).First(line => line.StartsWith(field, StringComparison.Ordinal));
        return long.Parse(line.AsSpan(field.Length).Trim().TrimEnd("kB ").ToString(), CultureInfo.InvariantCulture) * 1024;
    }
}
