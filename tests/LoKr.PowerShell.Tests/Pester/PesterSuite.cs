using System.Diagnostics;
using System.Reflection;
using System.Text.Json;
using LoKr.Testing;

namespace LoKr.PowerShell.Tests.Pester;

/// <summary>How one Pester test ended.</summary>
/// <param name="Name">File, blocks and name of the test.</param>
/// <param name="Result">Passed, Failed, Skipped, Inconclusive or NotRun.</param>
/// <param name="Message">The message and the place of a failure.</param>
public sealed record PesterResult(string Name, string Result, string Message);

/// <summary>Runs tests/Pester in the pwsh of the NuGet package PowerShell, in a process of its own; an installed pwsh is not needed.</summary>
internal static class PesterSuite
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(30);

    /// <summary>Runs every test of the suite.</summary>
    /// <exception cref="InvalidOperationException">Pester did not come to an end, or ran no test.</exception>
    public static IReadOnlyList<PesterResult> Run()
    {
        using TempFolder folder = new();
        string results = folder["results.jsonl"];
        string output = Execute(results);
        PesterResult[] tests = File.Exists(results)
            ? [.. File.ReadLines(results).Select(line => JsonSerializer.Deserialize<PesterResult>(line)!)]
            : [];
        return tests.Length > 0 ? tests : throw new InvalidOperationException($"Pester ran no test. Its output:{Environment.NewLine}{output}");
    }

    private static string Execute(string results)
    {
        string repository = Fixtures.Repository!;
        string configuration = Path.GetFileName(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
        string built = Path.Combine(repository, "artifacts", "bin");
        ProcessStartInfo start = new("dotnet")
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = repository,
        };
        string[] arguments =
        [
            Metadata("Pwsh"), "-NoProfile", "-NonInteractive", "-File", Path.Combine(AppContext.BaseDirectory, "Pester", "Invoke-Suite.ps1"),
            "-Pester", Metadata("Pester"), "-Suite", Path.Combine(repository, "tests", "Pester"), "-Destination", results,
        ];
        foreach (string argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }

        start.Environment["LOKR_MODULE"] = Path.Combine(built, "LoKr.PowerShell", configuration, "LoKr.psd1");
        start.Environment["LOKR_SHELL"] = Path.Combine(built, "LoKr.Shell", configuration, "LoKr.Shell.dll");
        start.Environment["NO_COLOR"] = "1";

        // For the processes that the tests start; they read English.
        start.Environment["LC_ALL"] = "C.UTF-8";
        using Process process = Process.Start(start)!;
        process.StandardInput.Close();
        Task<string> error = process.StandardError.ReadToEndAsync();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        if (!process.WaitForExit(s_limit))
        {
            process.Kill(entireProcessTree: true);
            throw new InvalidOperationException($"Pester did not end within {s_limit}. Its output:{Environment.NewLine}{output.GetAwaiter().GetResult()}");
        }

        return $"{output.GetAwaiter().GetResult()}{Environment.NewLine}{error.GetAwaiter().GetResult()}";
    }

    // The build knows where NuGet unpacked what the suite needs.
    private static string Metadata(string key) => typeof(PesterSuite).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(item => item.Key == key).Value!;
}
