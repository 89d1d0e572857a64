using System.Diagnostics;
using System.Runtime.InteropServices;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests.Support;

/// <summary>LoKr.Shell as a child process: a host that links nothing of the module and imports it from its folder, as pwsh does.</summary>
internal static partial class ShellProcess
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(3);

    private static string Assembly { get; } = Path.Combine(
        Fixtures.Repository!, "artifacts", "bin", "LoKr.Shell", Path.GetFileName(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory)), "LoKr.Shell.dll");

    public static string ModuleFolder => Path.Combine(Path.GetDirectoryName(Assembly)!, "Modules", "LoKr");

    public static ProcessResult Run(params string[] arguments) => Wait(Start(arguments), null);

    public static ProcessResult RunIn(string directory, params string[] arguments) => Wait(Start(arguments, directory), null);

    public static ProcessResult RunWithVariable(string name, string value, params string[] arguments) => Wait(Start(arguments, variable: (name, value)), null);

    public static ProcessResult RunWithInput(string input, params string[] arguments) => Wait(Start(arguments), input);

    /// <summary>Sends a signal once the process has written a line to standard output that holds a text.</summary>
    public static ProcessResult Signal(PosixSignal signal, string after, params string[] arguments)
    {
        using Process process = Start(arguments);
        List<string> lines = [];
        while (process.StandardOutput.ReadLine() is string line)
        {
            lines.Add(line);
            if (line.Contains(after, StringComparison.Ordinal))
            {
                break;
            }
        }

        Assert.Equal(0, Kill(process.Id, signal == PosixSignal.SIGTERM ? 15 : 2));
        ProcessResult rest = Wait(process, null);
        return rest with { Output = string.Join('\n', [.. lines, rest.Output]) };
    }

    private static Process Start(string[] arguments, string? directory = null, (string Name, string Value)? variable = null)
    {
        ProcessStartInfo start = new("dotnet")
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = directory ?? Path.GetTempPath(),
        };
        start.Environment["NO_COLOR"] = "1";
        foreach (string argument in (string[])[Assembly, "-NoProfile", .. arguments])
        {
            start.ArgumentList.Add(argument);
        }

        if (variable is { } set)
        {
            start.Environment[set.Name] = set.Value;
        }

        return Process.Start(start)!;
    }

    private static ProcessResult Wait(Process process, string? input)
    {
        using (process)
        {
            Task<string> error = process.StandardError.ReadToEndAsync();
            if (input is not null)
            {
                process.StandardInput.Write(input);
            }

            process.StandardInput.Close();
            Task<string> output = process.StandardOutput.ReadToEndAsync();
            if (!process.WaitForExit(s_limit))
            {
                process.Kill(entireProcessTree: true);
                Assert.Fail($"LoKr.Shell did not end within {s_limit}.");
            }

            return new ProcessResult(process.ExitCode, output.GetAwaiter().GetResult(), error.GetAwaiter().GetResult());
        }
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int pid, int signal);
}
