using System.Globalization;
using System.Text.RegularExpressions;
using Xunit;

namespace LoKr.Reliability;

/// <summary>Two processes write one destination many times a second, and two others read it.</summary>
public sealed partial class SharedDestinationTests(ITestOutputHelper output)
{
    public static TheoryData<string> Writers => 
        [.. (Effort.IsLong ? (string[])["adapter folder", "adapter file", "model", "disk merge"] : ["adapter folder", "model"]).Where(Effort.Includes)];

    [Theory]
    [MemberData(nameof(Writers))]
    public async Task Readers_see_the_old_or_the_new_version_and_writers_succeed_or_are_told_who_writes(string name)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Only Linux swaps folders in one step.");
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        using Workplace place = new(Writer.Find(name));
        place.Reset();
        string seconds = Effort.Seconds.ToString(CultureInfo.InvariantCulture);
        ChildProcess[] children = await Task.WhenAll(Enumerable.Range(0, 4).Select(index =>
            ChildProcess.StartAsync([index < 2 ? ChildRoles.WriteBeside : ChildRoles.ReadBeside, name, place.Root, seconds], cancellation)));
        try
        {
            foreach (ChildProcess child in children)
            {
                child.Go();
            }

            string[] results = await Task.WhenAll(children.Select(async child => await child.ReadLineAsync(cancellation) ?? "nothing"));
            output.WriteLine($"{name}, {seconds} s: {string.Join(" | ", results)}");
            Assert.All(results[..2], static result => Assert.Matches(WroteSome(), result));
            Assert.All(results[2..], static result => Assert.Matches(ReadRight(), result));
            await Task.WhenAll(children.Select(child => child.WaitAsync(cancellation)));
            Assert.All(children, static child => Assert.Equal(0, child.ExitCode));
        }
        finally
        {
            foreach (ChildProcess child in children)
            {
                child.Dispose();
            }
        }

        Assert.NotNull(place.Look().Version);
        Assert.Empty(place.Leftovers());
    }

    [GeneratedRegex(@"^[1-9]\d* written, \d+ busy$")]
    private static partial Regex WroteSome();

    // Few reads fit into a short test, and all of them may meet one version.
    [GeneratedRegex(@"^(?!0 and 0 )\d+ and \d+ reads, 0 wrong$")]
    private static partial Regex ReadRight();
}
