using System.Globalization;
using LoKr.Benchmarks;
using LoKr.Benchmarks.Cases;
using LoKr.Benchmarks.Harness;
using LoKr.Core.Runtime;

if (args is [BenchmarkOptions.ProbeName, string variant, string factor])
{
    TorchRuntime.EnsureLoaded();
    LayerMemoryCase.RunProbe(variant, int.Parse(factor, CultureInfo.InvariantCulture));
    return 0;
}

if (args is [BenchmarkOptions.ProbeName, "disk-merge", string from, string adapter, string to])
{
    DiskMergeCase.RunProbe(from, adapter, to);
    return 0;
}

if (args is [BenchmarkOptions.ProbeName, "file-merge", string file, string style, string result])
{
    FileMergeCase.RunProbe(file, style, result);
    return 0;
}

if (args is [BenchmarkOptions.ProbeName, "language-model-step", string model, string side, string prompt, string completion])
{
    LanguageModelStepCase.RunProbe(model, side, int.Parse(prompt, CultureInfo.InvariantCulture), int.Parse(completion, CultureInfo.InvariantCulture));
    return 0;
}

BenchmarkOptions? options = BenchmarkOptions.Parse(args, out string? problem);
if (options is null)
{
    Console.Error.WriteLine(problem);
    Console.Error.WriteLine(BenchmarkOptions.Usage);
    return 2;
}

if (options.List)
{
    foreach (IBenchmarkCase benchmark in BenchmarkCatalog.All)
    {
        Console.WriteLine($"{benchmark.Name,-20} {benchmark.Title}");
    }

    return 0;
}

IBenchmarkCase[] selected = [.. BenchmarkCatalog.All.Where(benchmark => options.Selects(benchmark.Name))];
if (selected.Length == 0)
{
    Console.Error.WriteLine($"No benchmark is named {string.Join(" or ", options.Only)}; there are {string.Join(", ", BenchmarkCatalog.All.Select(static benchmark => benchmark.Name))}.");
    return 2;
}

using BenchmarkContext context = new(options, Console.Out);
context.PrintHeader();
foreach (IBenchmarkCase benchmark in selected)
{
    context.Run(benchmark);
}

context.PrintSummary();
return options.Check && !context.AllTargetsMet ? 1 : 0;
