using System.Diagnostics;
using System.Globalization;
using Xunit;

namespace LoKr.Reliability;

/// <summary>Writers are killed; what is at the destination, beside it and after the next run is looked at every time.</summary>
public sealed class KillTests(ITestOutputHelper output)
{
    public static TheoryData<string> Writers => [.. Writer.All.Select(static writer => writer.Name).Where(Effort.Includes)];

    public static TheoryData<string, bool> Commits
    {
        get
        {
            TheoryData<string, bool> cases = [];
            foreach (Writer writer in Writer.All.Where(static writer => writer.CommitsOnItsThread && Effort.Includes(writer.Name)))
            {
                foreach (bool byRenames in (writer.IsFile ? (bool[])[false] : [false, true]).Where(Effort.IncludesSwap))
                {
                    cases.Add(writer.Name, byRenames);
                }
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Writers))]
    public async Task A_writer_that_is_killed_at_a_random_moment_loses_nothing(string name)
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        Writer writer = Writer.Find(name);
        Random random = new(Effort.Seed);
        using Workplace place = new(writer);
        place.Reset();
        Stopwatch watch = Stopwatch.StartNew();
        place.Write(place.Destination, 0);
        double longest = Math.Max(20, watch.Elapsed.TotalMilliseconds * 2);
        KillCount count = new();
        for (int i = 0; i < Effort.Kills; i++)
        {
            using (ChildProcess child = await ChildProcess.StartAsync([ChildRoles.WriteForever, name, place.Root], cancellation))
            {
                child.Go();
                await Task.Delay(TimeSpan.FromMilliseconds(random.NextDouble() * longest), cancellation);
                Assert.False(child.HasExited, $"Seed {Effort.Seed}, kill {i}: the writer ended by itself.");
                child.Kill();
                await child.WaitAsync(cancellation);
            }

            CheckRecovery(place, count, $"seed {Effort.Seed}, kill {i}", version: random.Next(2), mayBeMissing: false);
        }

        output.WriteLine($"{name}: {count}");
    }

    [Theory]
    [MemberData(nameof(Commits))]
    public async Task A_writer_that_is_killed_before_any_system_call_of_its_commit_loses_nothing(string name, bool byRenames)
    {
        Assert.SkipUnless(NativeCalls.CanTrace, "The tracer is for Linux on x64 and arm64.");
        using Workplace place = new(Writer.Find(name));
        place.Reset();
        IReadOnlyList<string> all = await RunAsync(0);
        Assert.Equal(1, place.Look().Version);
        Assert.InRange(all.Count, 5, 5_000);
        Assert.Contains(all, static call => call.StartsWith("rename", StringComparison.Ordinal));

        KillCount count = new();
        foreach (int point in Points(place.Writer, byRenames, all))
        {
            place.Reset();
            IReadOnlyList<string> calls = await RunAsync(point);
            count.Completed += calls.Count < point ? 1 : 0;
            CheckRecovery(place, count, $"before system call {point} of {all.Count} ({calls[^1]})", version: point % 2, mayBeMissing: byRenames);
        }

        Assert.InRange(count.Missing, 0, byRenames ? 1 : 0);
        output.WriteLine($"{name}, {(byRenames ? "by renames" : "in one step")}: {count}; of {all.Count} system calls: "
            + string.Join(", ", all.GroupBy(static call => call).OrderBy(static group => group.Key, StringComparer.Ordinal).Select(static group => $"{group.Count()} {group.Key}")));

        Task<IReadOnlyList<string>> RunAsync(int point) =>
            NativeCalls.OnOneThread(() => NativeCalls.RunUntil([ChildRoles.WriteOnce, name, place.Root, byRenames ? "renames" : "exchange"], point));
    }

    /// <summary>
    /// The system calls at which to kill: all of them in a long run. In a short one a sample that moves with the seed; where a process takes
    /// seconds to start only the moment of the commit, which is between the two renames, or just after the one step.
    /// </summary>
    private static IEnumerable<int> Points(Writer writer, bool byRenames, IReadOnlyList<string> calls)
    {
        if (!Effort.IsLong && writer.NeedsTorch)
        {
            // The last rename of a folder moves the former version out of the way. A call is counted from 1, and killed before it happens.
            int[] renames = [.. Enumerable.Range(1, calls.Count).Where(point => calls[point - 1] is "rename" or "renameat")];
            return [byRenames ? renames[^2] : 1 + (writer.IsFile ? renames[^1] : calls.ToList().LastIndexOf("renameat2") + 1)];
        }

        int stride = Effort.IsLong ? 1 : 9;
        return Enumerable.Range(1, calls.Count).Where(point => point % stride == (1 + (Effort.Seed % stride)) % stride);
    }

    private static void CheckRecovery(Workplace place, KillCount count, string where, int version, bool mayBeMissing)
    {
        string name = place.Writer.Name;
        (int? found, string? problem) = place.Look();
        IReadOnlyList<string> leftovers = place.Leftovers();
        count.Kills++;
        count.Leftovers += leftovers.Count;
        if (found is null && mayBeMissing && !Path.Exists(place.Destination))
        {
            count.Missing++;
        }
        else
        {
            Assert.True(found is not null, $"{name}, {where}: {problem}; beside it {string.Join(", ", leftovers)}.");
            count.Found[found.Value]++;
        }

        place.Age();
        place.Write(place.Destination, version);
        (int? next, problem) = place.Look();
        Assert.True(next == version, $"{name}, {where}: the next run left version {next}; {problem}.");
        leftovers = place.Leftovers();
        Assert.True(leftovers.Count == 0, $"{name}, {where}: the next run left {string.Join(", ", leftovers)}.");
    }

    private sealed class KillCount
    {
        public int Kills { get; set; }

        // With several threads one run may have fewer calls than another.
        public int Completed { get; set; }

        public int Missing { get; set; }

        public int Leftovers { get; set; }

        public int[] Found { get; } = new int[2];

        public override string ToString() => string.Create(CultureInfo.InvariantCulture,
            $"{Kills - Completed} kills; {Found[0]} times version 0, {Found[1]} times version 1, {Missing} times none until the next run; {Leftovers} leftovers, all removed");
    }
}
