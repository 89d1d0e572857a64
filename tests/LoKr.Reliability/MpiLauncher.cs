using System.Diagnostics;
using System.Globalization;
using LoKr.Core.Distributed;
using Xunit;

namespace LoKr.Reliability;

/// <summary>This program as several processes of mpirun, each with the same role and one thread.</summary>
/// <param name="kind">Whose mpirun.</param>
internal sealed class MpiLauncher(MpiKind kind)
{
    private readonly string _file = Find(kind is MpiKind.OpenMpi ? "mpirun.openmpi" : "mpirun.mpich");

    /// <summary>Runs the processes to their end.</summary>
    /// <param name="count">How many.</param>
    /// <param name="role">Their role.</param>
    public async Task<MpiOutcome> RunAsync(int count, IEnumerable<string> role, CancellationToken cancellation)
    {
        using Process process = Start(count, role);
        return await EndAsync(process, cancellation);
    }

    /// <summary>Starts the processes. Their output is to be read by <see cref="EndAsync"/>.</summary>
    public Process Start(int count, IEnumerable<string> role)
    {
        // The tests run as root in containers, with fewer processors than processes.
        string[] options = kind is MpiKind.OpenMpi ? ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"] : [];
        ProcessStartInfo start = new(_file,
            [.. options, "-n", count.ToString(CultureInfo.InvariantCulture), "dotnet", typeof(MpiLauncher).Assembly.Location, ChildProcess.Role, .. role])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["OMP_NUM_THREADS"] = "1";
        return Process.Start(start)!;
    }

    /// <summary>Waits until the launcher ends.</summary>
    public static async Task<MpiOutcome> EndAsync(Process process, CancellationToken cancellation)
    {
        Task<string> output = process.StandardOutput.ReadToEndAsync(cancellation);
        Task<string> errors = process.StandardError.ReadToEndAsync(cancellation);
        try
        {
            await process.WaitForExitAsync(cancellation).WaitAsync(TimeSpan.FromMinutes(2), cancellation);
        }
        finally
        {
            if (!process.HasExited)
            {
                process.Kill(entireProcessTree: true);
            }
        }

        return new(process.ExitCode, await output, await errors);
    }

    private static string Find(string name)
    {
        string? found = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Select(folder => Path.Combine(folder, name)).FirstOrDefault(File.Exists);
        Assert.SkipWhen(found is null, $"There is no {name} (Debian: apt install openmpi-bin mpich).");
        return found!;
    }
}

/// <summary>How processes of a launcher ended.</summary>
/// <param name="ExitCode">Exit code of the launcher.</param>
/// <param name="Output">What they wrote.</param>
/// <param name="Errors">What they wrote to the stream of errors.</param>
internal sealed record MpiOutcome(int ExitCode, string Output, string Errors);
