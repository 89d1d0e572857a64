using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using LoKr.Benchmarks.Harness;

namespace LoKr.Benchmarks.Cases;

/// <summary>A PowerShell that imports the module and ends, against one that only starts, and one that imports a module with nothing in it.</summary>
internal sealed class ImportCase : IBenchmarkCase
{
    // What an import may cost beyond the start of pwsh.
    private const double Limit = 0.1;

    /// <inheritdoc/>
    public string Name => "import";

    /// <inheritdoc/>
    public string Title => "Import-Module LoKr in a fresh pwsh";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        string configuration = Path.GetFileName(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
        string module = Path.GetFullPath(Path.Combine(AppContext.BaseDirectory, "..", "..", "LoKr.PowerShell", configuration, "LoKr.psd1"));
        string empty = Path.Combine(context.Directory, "import", "Empty.psd1");
        Directory.CreateDirectory(Path.GetDirectoryName(empty)!);
        File.WriteAllText(empty, "@{ ModuleVersion = '1.0.0'; FunctionsToExport = @(); CmdletsToExport = @(); AliasesToExport = @(); VariablesToExport = @() }");

        const string Start = "pwsh";
        const string Import = "with the module";
        const string Nothing = "with an empty module";
        List<double> import = [], nothing = [], start = [];
        double[][] times = context.Compare(
            "start, import, end",
            [
                new(Import, () => import.Add(Pwsh($"Import-Module '{module}'"))),
                new(Nothing, () => nothing.Add(Pwsh($"Import-Module '{empty}'"))),
                new(Start, () => start.Add(Pwsh(""))),
            ],
            [new(Import, Start), new(Nothing, Start)],
            weight: 4);

        double[] beyond = [.. times[0].Zip(times[2], static (import, start) => (import - start) / Limit)];
        context.Report(new("start, import, end", new("import beyond pwsh", "100 ms", 1), Statistics.Median(beyond), Statistics.Quantile(beyond, 0.25), Statistics.Quantile(beyond, 0.75)));

        // On a busy machine the time of the processors says more than the clock.
        double idle = Statistics.Median([.. start]);
        context.Note(FormattableString.Invariant($"processor time beyond pwsh: {1000 * (Statistics.Median([.. import]) - idle):0} ms with the module, {1000 * (Statistics.Median([.. nothing]) - idle):0} ms with an empty one"));
    }

    /// <summary>Runs a command in a pwsh of its own; returns the processor time of the process in seconds.</summary>
    private static double Pwsh(string command)
    {
        ProcessStartInfo start = new("dotnet", [Program, "-NoProfile", "-NonInteractive", "-Command", $"{command}\n[Environment]::CpuUsage.TotalTime.Ticks"]) { RedirectStandardOutput = true };
        using Process process = Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? TimeSpan.FromTicks(long.Parse(output.Trim(), CultureInfo.InvariantCulture)).TotalSeconds
            : throw new InvalidOperationException($"pwsh ended with {process.ExitCode} after: {command}");
    }

    // The build knows where NuGet unpacked it.
    private static string Program => typeof(ImportCase).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(static item => item.Key == "Pwsh").Value!;
}
