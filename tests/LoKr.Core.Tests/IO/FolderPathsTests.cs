using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.IO;

public sealed class FolderPathsTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("link/model")]
    [InlineData("relative/model")]
    [InlineData("relative/model/deeper/new")]
    [InlineData("twice/model")]
    [InlineData("twice")]
    [InlineData("real/model")]
    public void The_source_is_found_through_links_at_every_depth(string destination)
    {
        Directory.CreateDirectory(_folder["real", "model"]);
        Directory.CreateDirectory(_folder["real", "other"]);
        SymbolicLink.ToFolder(_folder["link"], _folder["real"]);
        SymbolicLink.ToFolder(_folder["relative"], "real/other/..");
        SymbolicLink.ToFolder(_folder["twice"], "link");
        foreach ((string from, string to) in new[] { (_folder["real", "model"], _folder[destination]), (_folder[destination], _folder["real", "model"]) })
        {
            ErrorAssert.Throws(ErrorIds.ExportIntoSource, () => FolderPaths.CheckApart(from, to), to);
        }

        FolderPaths.CheckApart(_folder["link", "model"], _folder["twice", "model2"]);
    }

    [Fact]
    public void Links_in_a_circle_are_an_error()
    {
        SymbolicLink.ToFolder(_folder["a"], "b");
        SymbolicLink.ToFolder(_folder["b"], "a");
        ErrorAssert.Throws(ErrorIds.FileNotReadable, () => FolderPaths.Resolve(_folder["a", "c"]), "a");
    }
}
