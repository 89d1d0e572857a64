using LoKr.Core.Layouts.Names;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>The weights of a base model on disk, by the modules of an adapter. Files are opened when a weight is read, and hold nothing between.</summary>
internal sealed class BaseWeights
{
    // Numbers that are read at a time.
    private const long BlockNumbers = 4 << 20;

    private readonly List<Part> _parts = [];

    private BaseWeights()
    {
    }

    /// <summary>Matches the modules of an adapter with the weights of a model folder, a pipeline folder or one file.</summary>
    /// <exception cref="Errors.LoKrException">There are no weights, they cannot be read, or a module fits several of them.</exception>
    public static BaseWeights Find(string path, IReadOnlyList<AdapterModule> modules)
    {
        string full = Path.GetFullPath(path);
        BaseWeights weights = new();
        foreach ((string folder, AdapterComponent component) in AdapterComponents.ByFolder)
        {
            string part = Path.Combine(full, folder);
            if (Directory.Exists(part))
            {
                weights.Add(component, part, [.. modules.Where(module => AdapterComponents.Matches(module.Component, component))]);
            }
        }

        if (weights._parts.Count == 0)
        {
            weights.Add(null, full, modules);
        }

        return weights;
    }

    /// <summary>‖W‖ of the base weight of a module, read in pieces; null where the base model has none.</summary>
    public double? Norm(AdapterModule module)
    {
        Part? part = _parts.Find(part => part.Component is not AdapterComponent component || AdapterComponents.Matches(module.Component, component));
        if (part?.Names.Find(module.Name + ".weight") is not string name)
        {
            return null;
        }

        using IDisposable noGrad = no_grad();
        using ITensorSource source = CheckpointReader.OpenWeights(part.Path);
        long count = source.Entries[name].Shape.Product();
        double squares = 0;
        for (long start = 0; start < count; start += BlockNumbers)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor block = empty(Math.Min(BlockNumbers, count - start), dtype: float64);
            source.ReadRange(name, start, block);
            squares += block.square().sum().ToDouble();
        }

        return Math.Sqrt(squares);
    }

    private void Add(AdapterComponent? component, string path, IReadOnlyList<AdapterModule> modules)
    {
        if (modules.Count > 0)
        {
            using ITensorSource source = CheckpointReader.OpenWeights(path);
            _parts.Add(new(component, path, CheckpointNames.Match([.. source.Entries.Keys], [.. modules.Select(static module => module.Name)], null)));
        }
    }

    private sealed record Part(AdapterComponent? Component, string Path, CheckpointNames Names);
}
