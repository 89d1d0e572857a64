using LoKr.Testing;
using Xunit;

namespace LoKr.Reliability;

/// <summary>Every reader of files reads mutated files or refuses them with an id, in bounded time and memory, and never ends its process.</summary>
public sealed class FuzzTests(ITestOutputHelper output)
{
    [Fact]
    public async Task A_mutated_file_is_a_value_or_an_error_with_an_id()
    {
        string folder = Path.Combine(Fixtures.Repository ?? Path.GetTempPath(), "artifacts", "reliability", $"fuzz-{Environment.ProcessId}");
        FuzzResult result = await FuzzRun.RunAsync(folder, Effort.Cases, Effort.Seed, TestContext.Current.CancellationToken);
        output.WriteLine($"Seed {Effort.Seed}, {FuzzReader.All.Count} readers, {result}");
        Assert.True(result.Failures.Count == 0, $"Seed {Effort.Seed}: {string.Join('\n', result.Failures)}");
        Assert.Equal(Effort.Cases, result.Cases);
        Assert.True(result.Refused > Effort.Cases / 10);
        Directory.Delete(folder, recursive: true);
    }
}
