using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using LoKr.Core.Runtime;
using TorchSharp;

namespace LoKr.Benchmarks.Harness;

/// <summary>The meters and the report of a benchmark.</summary>
internal sealed class BenchmarkContext : IDisposable
{
    private readonly TextWriter _output;
    private readonly List<Ratio> _ratios = [];
    private readonly long _started = Stopwatch.GetTimestamp();

    public BenchmarkContext(BenchmarkOptions options, TextWriter output)
    {
        Options = options;
        _output = output;
        Device = DeviceSelector.Select(options.Device);
        Directory = System.IO.Directory.CreateTempSubdirectory("lokr-benchmark-").FullName;
    }

    /// <summary>The command line.</summary>
    public BenchmarkOptions Options { get; }

    /// <summary>Where tensors live.</summary>
    public torch.Device Device { get; }

    /// <summary>An empty folder for files; removed at the end.</summary>
    public string Directory { get; }

    /// <summary>Whether no target was missed.</summary>
    public bool AllTargetsMet => _ratios.All(static ratio => ratio.IsMet != false);

    /// <summary>Machine, runtime and options.</summary>
    public void PrintHeader()
    {
        LoKrRuntimeInfo runtime = TorchRuntime.EnsureLoaded();
        _output.WriteLine($"{MachineName()}, {Environment.ProcessorCount} processors, {torch.get_num_threads()} threads; {RuntimeInformation.OSDescription}");
        _output.WriteLine($".NET {Environment.Version}, TorchSharp {runtime.TorchSharpVersion}, libtorch {runtime.LibtorchVersion} ({runtime.Flavor}), device {Device}");
        _output.WriteLine("Times are medians; a ratio is the median of the ratios of all rounds, with its quartiles.");
    }

    /// <summary>Runs one benchmark.</summary>
    public void Run(IBenchmarkCase benchmark)
    {
        _output.WriteLine();
        _output.WriteLine($"== {benchmark.Name}: {benchmark.Title}");
        benchmark.Run(this);
    }

    /// <summary>Writes a line of explanation.</summary>
    public void Note(string text) => _output.WriteLine($"  {text}");

    /// <summary>Times variants against each other and reports the ratios.</summary>
    /// <param name="name">What is measured, for example a shape.</param>
    /// <param name="variants">The ways to do it.</param>
    /// <param name="targets">The ratios to report.</param>
    /// <param name="weight">How much more time than usual this comparison is worth.</param>
    /// <returns>Seconds per call, by variant and round.</returns>
    public double[][] Compare(string name, IReadOnlyList<Variant> variants, IReadOnlyList<Target> targets, double weight = 1)
    {
        TimeSpan budget = TimeSpan.FromSeconds((Options.Quick ? 2.5 : 15) * weight);
        PeakMemory.Reset();
        double[][] times = new PairedRunner(budget, Synchronize).Measure(variants);
        _output.WriteLine();
        _output.WriteLine($"  {name}   ({times[0].Length} rounds, peak memory of the process {PeakMemory.Format(PeakMemory.Peak)})");
        for (int i = 0; i < variants.Count; i++)
        {
            _output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"    {variants[i].Name,-28} {Time(Statistics.Median(times[i])),12}"));
        }

        foreach (Target target in targets)
        {
            double[] above = times[IndexOf(variants, target.Variant)];
            double[] below = times[IndexOf(variants, target.Against)];
            double[] ratios = [.. above.Zip(below, static (a, b) => a / b)];
            Report(new(name, target, Statistics.Median(ratios), Statistics.Quantile(ratios, 0.25), Statistics.Quantile(ratios, 0.75)));
        }

        return times;
    }

    /// <summary>Reports a ratio that was measured another way.</summary>
    public void Report(Ratio ratio)
    {
        _ratios.Add(ratio);
        _output.WriteLine($"    {Describe(ratio)}");
    }

    /// <summary>Every ratio with a target once more, in one table.</summary>
    public void PrintSummary()
    {
        _output.WriteLine();
        _output.WriteLine("== Targets");
        foreach (Ratio ratio in _ratios.Where(static ratio => ratio.IsMet is not null))
        {
            _output.WriteLine($"  {ratio.Case,-44} {Describe(ratio)}");
        }

        _output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"  {_ratios.Count(static ratio => ratio.IsMet == true)} of {_ratios.Count(static ratio => ratio.IsMet is not null)} met, in {Stopwatch.GetElapsedTime(_started).TotalSeconds:0} s"));
    }

    /// <inheritdoc/>
    public void Dispose() => System.IO.Directory.Delete(Directory, recursive: true);

    private static int IndexOf(IReadOnlyList<Variant> variants, string name) => variants.Index().Single(entry => entry.Item.Name == name).Index;

    private static string Describe(Ratio ratio)
    {
        string limit = ratio.Target.AtMost is double most
            ? string.Create(CultureInfo.InvariantCulture, $"   target ≤ {most:0.00} {(ratio.IsMet == true ? "met" : "MISSED")}")
            : "";
        return string.Create(CultureInfo.InvariantCulture,
            $"{ratio.Target.Variant + " / " + ratio.Target.Against,-36} {ratio.Median,7:0.000}  [{ratio.Low:0.000} {ratio.High:0.000}]{limit}");
    }

    private static string Time(double seconds) => seconds switch
    {
        < 1e-3 => string.Create(CultureInfo.InvariantCulture, $"{seconds * 1e6:0.0} µs"),
        < 1 => string.Create(CultureInfo.InvariantCulture, $"{seconds * 1e3:0.000} ms"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{seconds:0.000} s"),
    };

    private static string MachineName()
    {
        const string Cpu = "/proc/cpuinfo";
        string? line = File.Exists(Cpu) ? File.ReadLines(Cpu).FirstOrDefault(static line => line.StartsWith("model name", StringComparison.Ordinal)) : null;
        return line?.Split(':', 2)[1].Trim() ?? RuntimeInformation.ProcessArchitecture.ToString();
    }

    private void Synchronize()
    {
        if (Device.type == DeviceType.CUDA)
        {
            torch.cuda.synchronize(Device);
        }
    }
}
