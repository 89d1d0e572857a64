using System.Globalization;
using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Model;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>
/// Memory of an adapted layer in training. Each variant runs in a process of its own in which every tensor of more than 64 KB is mapped by
/// itself, so that resident memory is what is alive.
/// </summary>
internal sealed class LayerMemoryCase : IBenchmarkCase
{
    private const long Size = 4096;
    private const long Tokens = 512;
    private const int Rank = 16;

    private static readonly Dictionary<string, string> s_environment = new() { ["MALLOC_MMAP_THRESHOLD_"] = "65536" };

    /// <inheritdoc/>
    public string Name => "layer-memory";

    /// <inheritdoc/>
    public string Title => $"memory of a {Size}x{Size} layer in training, {Tokens} tokens, rank {Rank}, beyond that of the frozen layer";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        if (!OperatingSystem.IsLinux())
        {
            context.Note("Left out: only Linux tells what is needed.");
            return;
        }

        foreach (int factor in (int[])[-1, 8])
        {
            Measure(context, factor);
        }
    }

    /// <summary>The work of the process of one variant: prints the bytes kept from forward to backward and the bytes at the peak.</summary>
    public static void RunProbe(string variant, int factor)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor weight = randn([Size, Size]) / Math.Sqrt(Size);
        Tensor input = randn([Tokens, Size]);
        Tensor gradient = randn([Tokens, Size]);
        Linear layer = nn.Linear(Size, Size, hasBias: false, device: META);
        layer.weight = new Parameter(weight, false);
        using LoKrModel? adapted = variant == "frozen" ? null : Adapters.Add(layer, Config(factor));
        if (variant == "dense")
        {
            Dictionary<string, Tensor> factors = Adapters.CopyFactors(adapted!);
            adapted!.SetActiveAdapters([]);
            _ = new DenseReference(layer, factors, 2);
        }

        using LayerStep step = new(layer, input, gradient);
        List<double> kept = [];
        List<double> peak = [];
        for (int i = 0; i < 8; i++)
        {
            long before = PeakMemory.Current;
            PeakMemory.Reset();
            using (DisposeScope inner = NewDisposeScope())
            {
                Tensor output = step.Forward();
                kept.Add(PeakMemory.Current - before);
                step.Backward(output);
            }

            peak.Add(PeakMemory.Peak - before);
        }

        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{Statistics.Median(kept.Skip(3)):0} {Statistics.Median(peak.Skip(3)):0}"));
    }

    private static LoKrConfig Config(int factor) => new() { R = Rank, Alpha = 2 * Rank, DecomposeFactor = factor };

    private static void Measure(BenchmarkContext context, int factor)
    {
        (long Kept, long Peak) frozen = Probe("frozen", factor);
        (long Kept, long Peak) lokr = Probe("LoKr", factor);
        (long Kept, long Peak) dense = Probe("dense", factor);
        FactorShapes shapes = FactorShapes.Create(Size, Size, [], Rank, Config(factor));
        const double Delta = Size * Size * 4;

        // The tokens times the rank between the factors: these are activations, as the x of the layer is.
        long activations = Tokens * Rank * (shapes.L + shapes.M) * 4;
        string name = $"{Size}x{Size}, {Tokens} tokens, factor {factor}, r {Rank}";
        context.Note("");
        context.Note($"{name}: kept from forward to backward, and at the peak of the step, in MiB");
        foreach ((string variant, (long kept, long peak)) in (IEnumerable<(string, (long, long))>)[("frozen", frozen), ("LoKr", lokr), ("PEFT's dense way", dense)])
        {
            context.Note($"  {variant,-28} {PeakMemory.Format(kept),12} {PeakMemory.Format(peak),12}");
        }

        Report(context, name, "kept beyond activations", (lokr.Kept - frozen.Kept - activations) / Delta, 0.05);
        Report(context, name, "LoKr kept", (lokr.Kept - frozen.Kept) / Delta, null);
        Report(context, name, "LoKr peak", (lokr.Peak - frozen.Peak) / Delta, null);
        Report(context, name, "PEFT peak", (dense.Peak - frozen.Peak) / Delta, null);
    }

    private static void Report(BenchmarkContext context, string name, string what, double ratio, double? limit) =>
        context.Report(new(name, new(what, "dense delta", limit), ratio, ratio, ratio));

    private static (long Kept, long Peak) Probe(string variant, int factor)
    {
        long[] numbers = ProbeProcess.Run(s_environment, variant, factor.ToString(CultureInfo.InvariantCulture));
        return (numbers[0], numbers[1]);
    }
}
