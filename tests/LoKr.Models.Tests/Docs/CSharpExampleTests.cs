using System.Text.RegularExpressions;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Docs;

/// <summary>The C# example runs as it stands.</summary>
public sealed class CSharpExampleTests
{
    [Fact]
    public async Task The_example_trains_and_exports_an_adapter()
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        using TempFolder folder = new();
        string own = AppContext.BaseDirectory.TrimEnd(Path.DirectorySeparatorChar);
        string example = Path.Combine(own, "..", "..", "AdaptTrainExport", Path.GetFileName(own), "AdaptTrainExport.dll");
        string output = await TestProcess.RunAsync(example, [Path.Combine(Fixtures.Repository!, "examples"), folder["adapter"]]);

        // As the quickstart in PowerShell: the last evaluation has most of the held-out tickets right.
        string last = Regex.Matches(output, @"accuracy ([\d.]+)").Last().Groups[1].Value;
        Assert.True(double.Parse(last, System.Globalization.CultureInfo.InvariantCulture) > 85, output);
        Assert.Contains("hardware", output, StringComparison.Ordinal);
        using PeftAdapterFolder adapter = PeftAdapterFolder.Read(folder["adapter"]);
        Assert.Equal(TaskType.SequenceClassification, adapter.Config.TaskType);
        Assert.NotEmpty(adapter.Tensors.Entries);
    }
}
