using System.Diagnostics;
using System.Globalization;
using LoKr.Core.Distributed;
using LoKr.Core.Runs;
using LoKr.Testing;
using Xunit;

namespace LoKr.Reliability;

/// <summary>Several processes that train one adapter over MPI, with the libraries and launchers of Open MPI and of MPICH as Debian ships them.</summary>
public sealed class MpiTests(MpiFolder folder, ITestOutputHelper output) : IClassFixture<MpiFolder>
{
    /// <summary>Both libraries, with numbers of processes that divide the batches and that do not; two are those of srun and those that are killed.</summary>
    public static TheoryData<MpiKind, int> Numbers { get; } = Effort.IsLong
        ? new() { { MpiKind.OpenMpi, 2 }, { MpiKind.OpenMpi, 3 }, { MpiKind.OpenMpi, 4 }, { MpiKind.OpenMpi, 8 }, { MpiKind.Mpich, 2 }, { MpiKind.Mpich, 3 }, { MpiKind.Mpich, 4 }, { MpiKind.Mpich, 8 } }
        : new() { { MpiKind.OpenMpi, 3 }, { MpiKind.Mpich, 4 } };

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>A classifier with a saved head, a language model and a pipeline of images, with dropout, accumulation and length buckets; and evaluations.</summary>
    [Theory]
    [MemberData(nameof(Numbers))]
    public async Task The_bits_do_not_depend_on_the_number_of_processes(MpiKind kind, int count)
    {
        MpiLauncher launcher = new(kind);
        string alone = await folder.AloneAsync(Token);
        MpiOutcome outcome = await launcher.RunAsync(count, [ChildRoles.Share, folder.Root, nameof(DistributedMode.Auto)], Token);
        Assert.True(outcome.ExitCode == 0, $"Exit code {outcome.ExitCode}.\n{outcome.Output}\n{outcome.Errors}");

        // One line, since only the first process writes; some launchers add an escape sequence of the terminal.
        string line = Assert.Single(outcome.Output.Split('\n'), static line => line.Contains(": ", StringComparison.Ordinal));
        output.WriteLine(line);
        Assert.Contains($"{count} {(kind is MpiKind.OpenMpi ? "Open MPI v" : "MPICH Version ")}", line, StringComparison.Ordinal);
        Assert.Equal(alone, line.Split(": ")[1]);
    }

    /// <summary>Each time another number of processes goes on, and the last time one alone.</summary>
    [Fact]
    public async Task A_run_that_loses_a_process_goes_on_with_fewer_and_ends_with_the_same_bits()
    {
        MpiLauncher[] launchers = [new(MpiKind.OpenMpi), new(MpiKind.Mpich)];
        KilledRun.Train(folder.Root, Path.Combine(folder.Root, "undisturbed"));
        Dictionary<string, string> expected = RunKillTests.Describe(Path.Combine(folder.Root, "undisturbed"));
        Random random = new(Effort.Seed);
        (int kills, int runs) = (0, 0);
        while (kills < Effort.WorkerKills)
        {
            RunFolder run = new(Path.Combine(folder.Root, $"run-{++runs}"));
            for (int count = 3; count >= 2; count--)
            {
                (int steps, int rank) = (random.Next(1, KilledRun.Steps / 3), random.Next(count));
                MpiOutcome outcome = await KillAsync(launchers[kills % 2], count, run, steps, rank);
                Assert.True(outcome.ExitCode != 0, $"Seed {Effort.Seed}, kill {kills} of worker {rank} of {count}: the launcher ended with 0.\n{outcome.Output}\n{outcome.Errors}");

                // The launcher may end before the processes that it ends are gone.
                for (int wait = 0; wait < 600 && run.Read().State is RunState.Running; wait++)
                {
                    await Task.Delay(100, Token);
                }

                Assert.Equal(RunState.Interrupted, run.Read().State);
                kills++;
            }

            KilledRun.Train(folder.Root, run.Path);
            Assert.Equal(RunState.Completed, run.Read().State);
            Dictionary<string, string> found = RunKillTests.Describe(run.Path);
            Assert.True(expected.OrderBy(static pair => pair.Key).SequenceEqual(found.OrderBy(static pair => pair.Key)),
                $"Seed {Effort.Seed}, after {kills} kills: {string.Join(", ", expected.Keys.Union(found.Keys).Where(file => expected.GetValueOrDefault(file) != found.GetValueOrDefault(file)))} differ.");
        }

        output.WriteLine($"{kills} kills of one of three or two processes over {runs} runs; every run ended with the bits of the undisturbed one.");
    }

    // Kills one of them when the run has made some steps more than it had.
    private static async Task<MpiOutcome> KillAsync(MpiLauncher launcher, int count, RunFolder run, int steps, int rank)
    {
        long LengthOfLog() => File.Exists(run.LogFile) ? new FileInfo(run.LogFile).Length : 0;
        long before = LengthOfLog();
        using Process process = launcher.Start(count, [ChildRoles.ShareRun, Path.GetDirectoryName(run.Path)!, Path.GetFileName(run.Path)]);
        int? victim = null;
        string output = "";
        while (victim is null && await process.StandardOutput.ReadLineAsync(Token) is string line)
        {
            output += line + "\n";
            if (line.Contains($"{ChildRoles.Ready} {rank} ", StringComparison.Ordinal))
            {
                victim = int.Parse(line.Split(' ')[^1], CultureInfo.InvariantCulture);
            }
        }

        // A line of the log has at least a hundred bytes.
        while (!process.HasExited && LengthOfLog() < before + (100 * steps))
        {
            await Task.Delay(5, Token);
        }

        if (victim is int id && !process.HasExited)
        {
            using Process worker = Process.GetProcessById(id);
            worker.Kill();
        }

        MpiOutcome outcome = await MpiLauncher.EndAsync(process, Token);
        return outcome with { Output = output + outcome.Output };
    }

    /// <summary>Two node daemons of a Slurm on this machine, each with a process, and the library of MPICH.</summary>
    [Fact]
    public async Task The_bits_are_those_of_processes_of_srun()
    {
        _ = new MpiLauncher(MpiKind.Mpich);
        string script = Path.Combine(Fixtures.Repository ?? "", "tests", "slurm", "cluster.sh");
        Assert.SkipUnless(File.Exists(script), "There is no script that starts a Slurm.");
        (int code, string why) = await BashAsync($"'{script}' available");
        Assert.SkipWhen(code != 0, why);
        string cluster = Path.Combine(folder.Root, "slurm");
        string role = $"dotnet '{typeof(MpiTests).Assembly.Location}' {ChildProcess.Role} {ChildRoles.Share} '{folder.Root}' {nameof(DistributedMode.Auto)}";
        try
        {
            (code, string text) = await BashAsync($"'{script}' start '{cluster}' 2 >&2 && SLURM_CONF='{cluster}/slurm.conf' OMP_NUM_THREADS=1 srun --mpi=pmi2 -n 2 -N 2 {role}");
            Assert.True(code == 0, text);
            string line = Assert.Single(text.Split('\n'), static line => line.Contains(": ", StringComparison.Ordinal));
            output.WriteLine(line);
            Assert.StartsWith("2 MPICH Version ", line, StringComparison.Ordinal);
            Assert.Equal(await folder.AloneAsync(Token), line.Split(": ")[1]);
        }
        finally
        {
            await BashAsync($"'{script}' stop '{cluster}'");
        }
    }

    private static async Task<(int ExitCode, string Output)> BashAsync(string command)
    {
        using Process process = Process.Start(new ProcessStartInfo("bash", ["-c", command]) { RedirectStandardOutput = true })!;
        string text = await process.StandardOutput.ReadToEndAsync(Token);
        await process.WaitForExitAsync(Token);
        return (process.ExitCode, text);
    }

    [Fact]
    public async Task A_process_that_nobody_started_with_others_can_use_MPI_alone()
    {
        _ = new MpiLauncher(MpiKind.OpenMpi);
        Assert.Equal(await folder.AloneAsync(Token), await folder.AloneAsync(Token, DistributedMode.Mpi));
    }
}

/// <summary>Models and data for the processes, and what one process makes of them.</summary>
public sealed class MpiFolder : IDisposable
{
    private string? _alone;

    /// <summary>Writes models and data.</summary>
    public MpiFolder() => SharedRuns.Prepare(Root);

    /// <summary>Where they are.</summary>
    public string Root { get; } = Directory.CreateDirectory(Path.Combine(Effort.Folder, $"lokr-{Guid.NewGuid():N}")).FullName;

    /// <inheritdoc/>
    public void Dispose() => Directory.Delete(Root, recursive: true);

    /// <summary>Values that a process alone computes.</summary>
    public async Task<string> AloneAsync(CancellationToken cancellation, DistributedMode mode = DistributedMode.Auto)
    {
        if (mode is DistributedMode.Auto && _alone is not null)
        {
            return _alone;
        }

        using ChildProcess child = ChildProcess.Start([ChildRoles.Share, Root, mode.ToString()]);
        string line = await child.ReadLineAsync(cancellation) ?? "";
        await child.WaitAsync(cancellation);
        Assert.True(child.ExitCode == 0, $"Exit code {child.ExitCode}: {line}");
        Assert.StartsWith("1 alone: ", line, StringComparison.Ordinal);
        return mode is DistributedMode.Auto ? _alone = line.Split(": ")[1] : line.Split(": ")[1];
    }
}
