using System.Diagnostics;
using System.Globalization;

namespace LoKr.Benchmarks.Harness;

/// <summary>Measures memory in a process of its own, which nothing before it has filled.</summary>
internal static class ProbeProcess
{
    /// <summary>Runs this program again as a probe.</summary>
    /// <param name="environment">Variables beside those of this process.</param>
    /// <param name="arguments">Which probe, and what it needs.</param>
    /// <returns>The numbers that it printed.</returns>
    public static long[] Run(IReadOnlyDictionary<string, string> environment, params string[] arguments)
    {
        ProcessStartInfo start = new("dotnet", [typeof(ProbeProcess).Assembly.Location, BenchmarkOptions.ProbeName, .. arguments]) { RedirectStandardOutput = true };
        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }

        using Process process = Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? [.. output.Trim().Split(' ').Select(static number => long.Parse(number, CultureInfo.InvariantCulture))]
            : throw new InvalidOperationException($"The process that measures '{arguments[0]}' ended with {process.ExitCode}.");
    }
}
