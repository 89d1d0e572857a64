using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Safetensors;

namespace LoKr.Benchmarks.Cases;

/// <summary>Adapter files described from their headers, against reading the bytes of the headers alone.</summary>
internal sealed class InspectCase : IBenchmarkCase
{
    private const int Files = 50;

    /// <inheritdoc/>
    public string Name => "inspect";

    /// <inheritdoc/>
    public string Title => "adapter files described from their headers";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        Measure(context, "64 modules", layers: 32, new LoKrConfig { R = 8 }, ["q_proj", "v_proj"]);
        Measure(context, "224 modules", layers: 32, new LoKrConfig { R = 8 }, null);
    }

    private static void Measure(BenchmarkContext context, string name, int layers, LoKrConfig config, string[]? modules)
    {
        string root = Path.Combine(context.Directory, "inspect", name);
        string first = LlamaFiles.WriteAdapter(Path.Combine(root, "0"), layers, config, modules);
        string[] folders = [first, .. Enumerable.Range(1, Files - 1).Select(i => Path.Combine(root, $"{i}"))];
        foreach (string folder in folders.Skip(1))
        {
            System.IO.Directory.CreateDirectory(folder);
            foreach (string file in System.IO.Directory.EnumerateFiles(first))
            {
                File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
            }
        }

        byte[] buffer = new byte[1 << 20];
        double[][] times = context.Compare(
            $"{Files} adapters of {name}",
            [
                new("describe", () => Array.ForEach(folders, static folder => AdapterInspector.Inspect(folder))),
                new("parse header", () => Array.ForEach(folders, static folder => SafetensorsReader.Open(Path.Combine(folder, PeftAdapterFolder.WeightsFile)).Dispose())),
                new("read header", () => Array.ForEach(folders, folder => ReadHeader(Path.Combine(folder, PeftAdapterFolder.WeightsFile), buffer))),
            ],
            [new("describe", "read header"), new("parse header", "read header")],
            weight: 0.4);
        context.Note(FormattableString.Invariant($"{Files / Statistics.Median(times[0]):N0} adapters a second; headers alone {Files / Statistics.Median(times[1]):N0} a second"));
    }

    private static void ReadHeader(string path, byte[] buffer)
    {
        using FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.Read, 1);
        stream.ReadExactly(buffer, 0, 8);
        stream.ReadExactly(buffer, 8, (int)BitConverter.ToUInt64(buffer));
    }
}
