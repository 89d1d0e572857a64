using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>No model of a family is taken for another one: the names of its modules return from every layout as they were.</summary>
public sealed class LayoutNameTests : IDisposable
{
    private const string Bare = "bare";

    private static readonly AdapterLayout[] s_layouts = [.. Enum.GetValues<AdapterLayout>().Where(static layout => layout != AdapterLayout.Peft)];

    private readonly TempFolder _folder = new();

    public static TheoryData<string, string> Models()
    {
        TheoryData<string, string> rows = [];
        foreach (string family in EveryLayerTests.Families.Select(static row => row.Data).Where(static family => !family.Contains(',', StringComparison.Ordinal)))
        {
            ModelArchitecture[] classes = [.. Architectures(family)];
            foreach (ModelArchitecture architecture in classes)
            {
                rows.Add(family, architecture.Name);
            }

            if (classes is [{ Layout.BasePrefix.Length: > 0 }, ..])
            {
                rows.Add(family, Bare);
            }
        }

        return rows;
    }

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Models))]
    public void Names_return_from_every_layout(string family, string model)
    {
        string[] all = Names(family, model);
        Assert.NotEmpty(all);
        Check(all, "all", s_layouts);

        // Few names may be those of other models too; the first has underscores, the second has not.
        foreach (IGrouping<string, string> kind in all.GroupBy(static name => name[(name.LastIndexOf('.') + 1)..]).Where(_ => model == Bare))
        {
            Check([.. kind], kind.Key, [AdapterLayout.Lycoris, AdapterLayout.Comfy]);
        }
    }

    private void Check(string[] names, string what, AdapterLayout[] layouts)
    {
        using DisposeScope scope = NewDisposeScope();
        string source = _folder["source-" + what];
        PeftAdapterFolder.Write(source, new LoKrConfig { R = 2, Alpha = 2, TargetModules = ModuleSelector.FromNames(names) }, names
            .SelectMany(static name => (KeyValuePair<string, Tensor>[])[new(name + ".lokr_w1", ones(2, 2)), new(name + ".lokr_w2", ones(3, 3))])
            .ToDictionary(StringComparer.Ordinal));
        string[] expected = Keys(source);
        foreach (AdapterLayout layout in layouts)
        {
            string file = _folder[$"{what}-{layout}.safetensors"];
            AdapterConverter.Convert(source, file, layout, new(), out _);
            AdapterConverter.Convert(file, _folder[$"{what}-{layout}"], AdapterLayout.Peft, new(), out _);
            string[] actual = Keys(_folder[$"{what}-{layout}"]);
            Assert.True(expected.SequenceEqual(actual), $"{layout}: '{expected.Except(actual).FirstOrDefault()}' became '{actual.Except(expected).FirstOrDefault()}'.");
        }
    }

    private static string[] Keys(string folder)
    {
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder, PeftAdapterFolder.WeightsFile));
        return [.. reader.Entries.Keys.Order(StringComparer.Ordinal)];
    }

    private static string[] Names(string family, string model)
    {
        ModelArchitecture architecture = Architectures(family).First(candidate => model == Bare || candidate.Name == model);
        JsonObject config = EveryLayerTests.Config(family);
        if (architecture.TakesTokens)
        {
            config["architectures"] = new JsonArray(architecture.Name);
        }

        using LoKrModel built = new(architecture.Build(new ModelConfig(config), new ModelBuildOptions()));
        IEnumerable<string> names = built.GetModules().Where(static module => module.IsSupported).Select(static module => module.Name);
        string prefix = architecture.Layout.BasePrefix;
        return [.. model == Bare ? names.Where(name => name.StartsWith(prefix, StringComparison.Ordinal)).Select(name => name[prefix.Length..]) : names];
    }

    private static IEnumerable<ModelArchitecture> Architectures(string family) => ArchitectureRegistry.Default.All.Where(architecture => architecture.ModelType == family);
}
