using System.Globalization;
using LoKr.Core.Errors;
using Xunit;

namespace LoKr.Reliability;

/// <summary>
/// Writers whose disk becomes full, with more free space each time until they succeed: each failure is an error that says so and leaves the old
/// version; when there is space the same process writes the new one.
/// </summary>
public sealed class FullDiskTests(ITestOutputHelper output)
{
    private const int Page = 4; // KiB

    public static TheoryData<string> Writers => KillTests.Writers;

    [Theory]
    [MemberData(nameof(Writers))]
    public void A_writer_whose_disk_is_full_at_any_moment_says_so_and_loses_nothing(string name)
    {
        using Workplace place = new(Writer.Find(name));
        string folder = Path.GetDirectoryName(place.Destination)!;
        using SmallDisk disk = SmallDisk.Mount(folder, kilobytes: 32_000);
        place.Reset();
        long written = Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Sum(static file => new FileInfo(file).Length);
        int step = Page * (Effort.IsLong ? 1 : Math.Max(1, (int)(written / Page / 1024 / 40)));
        List<string> problems = [];
        int failures = 0;
        bool succeeded = false;
        for (int free = 0; !succeeded && free < 16_000; free += step)
        {
            string where = string.Create(CultureInfo.InvariantCulture, $"{name}, with {free} KiB of free space");
            place.Reset();
            disk.Fill(free);
            try
            {
                place.Write(place.Destination, 1);
                succeeded = true;
            }
            catch (LoKrException exception) when (exception.ErrorId is ErrorIds.DiskFull)
            {
                failures++;
            }
            catch (Exception exception)
            {
                failures++;
                problems.Add($"{where}: {exception}");
            }

            disk.MakeSpace();
            int version = succeeded ? 1 : 0;
            (int? found, string? problem) = place.Look();
            if (found != version)
            {
                problems.Add($"{where}: version {found} is there; {problem}");
            }

            place.Write(place.Destination, 1);
            (found, problem) = place.Look();
            IReadOnlyList<string> leftovers = place.Leftovers();
            if (found != 1 || leftovers.Count > 0)
            {
                problems.Add($"{where}, then with space: version {found} is there; {problem}; beside it {string.Join(", ", leftovers)}");
            }
        }

        Assert.True(problems.Count == 0, string.Join(Environment.NewLine, problems));
        Assert.True(succeeded, "It needs more space than the test expects.");
        Assert.InRange(failures, 1, 10_000);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name}: {failures} failures, each said so; {step} KiB between them; 0 lost."));
    }
}
