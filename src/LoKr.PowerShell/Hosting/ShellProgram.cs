using System.ComponentModel;
using System.Diagnostics;
using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Errors;

namespace LoKr.PowerShell.Hosting;

/// <summary>Programs: the PowerShell that runs, and others to their end.</summary>
internal static class ShellProgram
{
    /// <summary>The module that runs.</summary>
    public static string Manifest { get; } = Path.Combine(Path.GetDirectoryName(typeof(ShellProgram).Assembly.Location)!, "LoKr.psd1");

    /// <summary>Variables that say with how many threads a process computes: the module's own, and those of the libraries of libtorch.</summary>
    public static IReadOnlyList<string> ThreadVariables { get; } = ["LOKR_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"];

    /// <summary>The PowerShell that runs: pwsh by itself, or a program of .NET that dotnet runs.</summary>
    public static string[] Current()
    {
        string program = Environment.ProcessPath!;
        string first = Environment.GetCommandLineArgs()[0];
        return Path.GetFileNameWithoutExtension(program) == "dotnet" ? [program, Path.GetFullPath(first)] : [program];
    }

    /// <summary>How a process is started that computes with the same libtorch as this one.</summary>
    /// <param name="program">The program.</param>
    /// <param name="arguments">Its arguments.</param>
    public static ProcessStartInfo StartInfo(string program, IEnumerable<string> arguments)
    {
        ProcessStartInfo start = new(program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, CreateNoWindow = true };
        if (TorchRuntime.Current?.Path is string runtime)
        {
            start.Environment["LOKR_RUNTIME"] = runtime;
        }

        return start;
    }

    /// <summary>Starts a process.</summary>
    /// <exception cref="LoKrException"><see cref="ModuleErrorIds.SchedulerFailed"/>: the program is not there.</exception>
    public static Process Start(ProcessStartInfo start)
    {
        try
        {
            return Process.Start(start)!;
        }
        catch (Win32Exception exception)
        {
            throw Failed($"'{start.FileName}' cannot be started: {exception.Message}", exception);
        }
    }

    /// <summary>Runs a program to its end.</summary>
    /// <param name="program">The program.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <returns>Exit code, standard output and standard error.</returns>
    /// <exception cref="LoKrException"><see cref="ModuleErrorIds.SchedulerFailed"/>: the program is not there.</exception>
    public static (int Code, string Output, string Error) Run(string program, params IEnumerable<string> arguments)
    {
        using Process process = Start(StartInfo(program, arguments));
        process.StandardInput.Close();
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, error.GetAwaiter().GetResult());
    }

    /// <summary>The error of a scheduler.</summary>
    /// <param name="message">What happened.</param>
    /// <param name="inner">The cause.</param>
    public static LoKrException Failed(string message, Exception? inner = null) => new(ModuleErrorIds.SchedulerFailed, LoKrErrorKind.Unavailable, message, "Correct what it says.", inner);
}
