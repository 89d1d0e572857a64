using System.Globalization;

namespace LoKr.Reliability;

/// <summary>
/// How long the tests run, and where: seconds with <c>dotnet test</c>, hours with <c>LOKR_RELIABILITY=long</c>. <c>LOKR_RELIABILITY_KILLS</c>,
/// <c>…_CASES</c>, <c>…_SECONDS</c> and <c>…_SEED</c> set single numbers, <c>…_WRITERS</c> chooses writers by their names, with commas between
/// them, <c>…_SWAP</c> one way to swap folders, <c>exchange</c> or <c>renames</c>, and <c>…_FOLDER</c> sets a folder on another file system.
/// </summary>
internal static class Effort
{
    private const string Variable = "LOKR_RELIABILITY";

    /// <summary>Whether every kill point is tried, not a sample of them.</summary>
    public static bool IsLong => Environment.GetEnvironmentVariable(Variable) == "long";

    /// <summary>Kills of each writer at random moments.</summary>
    public static int Kills => Number("KILLS", brief: 1, full: 200);

    /// <summary>Kills of a run with checkpoints at random moments.</summary>
    public static int RunKills => Number("RUN_KILLS", brief: 20, full: 200);

    /// <summary>Kills of a night, at most one before every system call.</summary>
    public static int NightKills => Number("NIGHT_KILLS", brief: 8, full: 5_000);

    /// <summary>Kibibytes of free space between two tries to write on a disk that becomes full.</summary>
    public static int DiskStep => Number("DISK_STEP", brief: 8, full: 4);

    /// <summary>Kills of one of several processes that train together, at random moments.</summary>
    public static int WorkerKills => Number("WORKER_KILLS", brief: 2, full: 20);

    /// <summary>Mutated files over all readers.</summary>
    public static int Cases => Number("CASES", brief: 4_000, full: 1_000_000);

    /// <summary>Seconds of writers and readers at one destination.</summary>
    public static int Seconds => Number("SECONDS", brief: 3, full: 60);

    /// <summary>Seed of everything random. Tests print it.</summary>
    public static int Seed => Number("SEED", brief: 20261128, full: 20261128);

    /// <summary>
    /// Folder to write in. A kill does not depend on the disk, whose flushes would take most of the time: in memory where the system has such a folder.
    /// </summary>
    public static string Folder => Text("FOLDER") is { Length: > 0 } named ? named : Directory.Exists("/dev/shm") ? "/dev/shm" : Path.GetTempPath();

    /// <summary>Whether a writer is to be tested.</summary>
    public static bool Includes(string writer) => Text("WRITERS") is not { Length: > 0 } names || names.Split(',').Contains(writer);

    /// <summary>Whether commits of one kind are to be tested: those that swap folders in one step, or those by renames.</summary>
    public static bool IncludesSwap(bool byRenames) => Text("SWAP") is not { Length: > 0 } kind || kind == (byRenames ? "renames" : "exchange");

    private static string? Text(string name) => Environment.GetEnvironmentVariable($"{Variable}_{name}");

    private static int Number(string name, int brief, int full)
    {
        string? text = Text(name);
        return string.IsNullOrEmpty(text) ? (IsLong ? full : brief) : int.Parse(text, CultureInfo.InvariantCulture);
    }
}
