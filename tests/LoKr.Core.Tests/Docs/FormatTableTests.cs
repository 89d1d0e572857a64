using System.Text.RegularExpressions;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Docs;

/// <summary>docs/formats.md says of every layout what the code does.</summary>
public sealed partial class FormatTableTests
{
    [Fact]
    public void Every_layout_has_a_row_with_a_name_that_is_recognized()
    {
        Match[] rows = [.. RowPattern().Matches(Page()).Cast<Match>()];
        Assert.Equal(Enum.GetNames<AdapterLayout>(), rows.Select(static row => row.Groups["layout"].Value));
        using TempFolder folder = new();
        foreach (Match row in rows)
        {
            AdapterLayout layout = Enum.Parse<AdapterLayout>(row.Groups["layout"].Value);
            string path = folder[$"{layout}.safetensors"];
            string w1 = row.Groups["name"].Value;
            Dictionary<string, string>? metadata = layout == AdapterLayout.DiffusersModel
                ? new() { ["lora_adapter_metadata"] = LoKrConfigJson.Write(new() { R = 4 }) }
                : null;
            SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { [w1] = ones(2, 2), [w1.Replace("lokr_w1", "lokr_w2", StringComparison.Ordinal)] = ones(4, 4) }, metadata);
            using AdapterFile file = AdapterFile.Open(path);
            Assert.Equal(layout, file.Layout);
            Assert.Single(file.Modules);
            Assert.Equal(AdapterLayouts.IsUnderscored(layout) ? "underscores" : "dots", row.Groups["names"].Value);
            Assert.Equal(AdapterLayouts.HasAlphaTensors(layout) ? "a tensor" : "in the configuration", row.Groups["alpha"].Value);
        }
    }

    [Fact]
    public void Every_prefix_is_named() => Assert.All(
        Enum.GetValues<AdapterLayout>().SelectMany(AdapterLayouts.Prefixes).Select(static entry => entry.Text).Where(static prefix => !prefix.StartsWith("text_encoders.", StringComparison.Ordinal)),
        prefix => Assert.Contains(prefix, Page(), StringComparison.Ordinal));

    private static string Page()
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        return File.ReadAllText(Path.Combine(Fixtures.Repository!, "docs", "formats.md"));
    }

    [GeneratedRegex(@"^\| `(?<layout>\w+)` \| `(?<name>[^`]+lokr_w1[^`]*)` \| (?<names>\w+) \| (?<alpha>[^|]+?) \|", RegexOptions.Multiline)]
    private static partial Regex RowPattern();
}
