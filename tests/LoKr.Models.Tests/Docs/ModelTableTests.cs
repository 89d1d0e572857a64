using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Docs;

public sealed class ModelTableTests
{
    [Fact]
    public void Every_architecture_is_in_the_table_of_models()
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        string page = File.ReadAllText(Path.Combine(Fixtures.Repository!, "docs", "models.md"));
        Assert.Equal([], ArchitectureRegistry.Default.ModelTypes.Where(type => !page.Split('\n').Any(line => line.StartsWith("| `", StringComparison.Ordinal) && line.Contains($"`{type}`", StringComparison.Ordinal))));
    }
}
