using System.Diagnostics;
using Xunit;

namespace LoKr.Testing;

/// <summary>Other .NET processes that tests start and wait for.</summary>
public static class TestProcess
{
    /// <summary>Runs one explicit test of a class in a process of its own, and returns its output.</summary>
    /// <exception cref="Xunit.Sdk.XunitException">The test did not run or did not pass.</exception>
    public static async Task<string> RunTestAsync(Type testClass, string method, params (string Name, string Value)[] variables)
    {
        string output = await RunAsync(testClass.Assembly.Location, ["-method", $"{testClass.FullName}.{method}", "-explicit", "only"], variables);
        Assert.Contains("Total: 1,", output, StringComparison.Ordinal);
        Assert.Contains("Skipped: 0,", output, StringComparison.Ordinal);
        return output;
    }

    /// <summary>Runs a program of .NET from its file, and returns its output.</summary>
    /// <exception cref="Xunit.Sdk.XunitException">It ended with another exit code than 0.</exception>
    public static async Task<string> RunAsync(string file, IEnumerable<string> arguments, params (string Name, string Value)[] variables)
    {
        ProcessStartInfo start = new("dotnet", [file, .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach ((string name, string value) in variables)
        {
            start.Environment[name] = value;
        }

        using Process process = Process.Start(start)!;
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        Task<string> errors = process.StandardError.ReadToEndAsync(cancellation);
        string output = await process.StandardOutput.ReadToEndAsync(cancellation);
        await process.WaitForExitAsync(cancellation);
        Assert.True(process.ExitCode == 0, output + await errors);
        return output;
    }
}
