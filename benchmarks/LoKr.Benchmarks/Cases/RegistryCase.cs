using System.Globalization;
using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Runs;

namespace LoKr.Benchmarks.Cases;

/// <summary>One adapter of a registry of ten thousand with a hundred versions each: listing and publishing against 50 ms, and all against a registry of that adapter alone.</summary>
internal sealed class RegistryCase : IBenchmarkCase
{
    private const int Versions = 100;
    private const double Limit = 0.050; // seconds

    /// <inheritdoc/>
    public string Name => "registry";

    /// <inheritdoc/>
    public string Title => "one adapter among 10,000, with 100 versions";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        string source = LlamaFiles.WriteAdapter(Path.Combine(context.Directory, "adapter"), 2, new LoKrConfig { R = 8 }, ["q_proj", "v_proj"]);
        AdapterRegistry alone = Fill(Path.Combine(context.Directory, "alone"), source, 0, 0);

        // Every folder of a version of the others, or with --quick one each: what one adapter costs must depend on neither.
        AdapterRegistry many = Fill(Path.Combine(context.Directory, "many"), source, 10_000, context.Options.Quick ? 1 : Versions);
        (string Name, bool IsLimited, Action<AdapterRegistry> Do)[] operations =
        [
            ("list its versions", true, static registry => registry.GetVersions("tickets")),
            ("publish another version", true, static registry => registry.Publish("tickets", registry.Get("tickets").Version == 1 ? Versions : 1)),
            ("register a version, and remove it", false, registry => registry.Unregister("tickets", registry.Register("tickets", source).Version)),
        ];
        foreach ((string name, bool isLimited, Action<AdapterRegistry> action) in operations)
        {
            double[][] times = context.Compare(name, [new("among 10,000", () => action(many)), new("alone", () => action(alone))], [new("among 10,000", "alone")], weight: 0.4);
            if (isLimited)
            {
                double[] shares = [.. times[0].Select(static time => time / Limit)];
                context.Report(new(name, new(name, "50 ms", 1), Statistics.Median(shares), Statistics.Quantile(shares, 0.25), Statistics.Quantile(shares, 0.75)));
            }
        }
    }

    private static AdapterRegistry Fill(string path, string source, int neighbors, int versions)
    {
        for (int i = 0; i < neighbors; i++)
        {
            for (int version = 1; version <= versions; version++)
            {
                Directory.CreateDirectory(Path.Combine(path, i.ToString("D5", CultureInfo.InvariantCulture), "versions", version.ToString("D4", CultureInfo.InvariantCulture)));
            }
        }

        AdapterRegistry registry = new(path);
        for (int version = 1; version <= Versions; version++)
        {
            registry.Register("tickets", source);
        }

        registry.Publish("tickets");
        return registry;
    }
}
