using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>Two models on disk whose tensors have the same names: a base model and its fine-tuning. Holds their files open until disposed.</summary>
internal sealed class ModelPair : IDisposable
{
    // Numbers that are compared at a time.
    private const long BlockNumbers = 4 << 20;

    private ModelPair(IReadOnlyList<Part> parts) => Parts = parts;

    /// <summary>The components of a pipeline, or the only model.</summary>
    public IReadOnlyList<Part> Parts { get; }

    /// <summary>All modules of the base model that have tensors.</summary>
    public IReadOnlyCollection<string> ModuleNames => [.. Parts.SelectMany(static part => part.Base.Entries.Keys).Where(static name => name.Contains('.', StringComparison.Ordinal)).Select(static name => name[..name.LastIndexOf('.')]).Distinct()];

    /// <summary>What tells the base models apart from others.</summary>
    public IReadOnlyDictionary<AdapterComponent, ModelIdentity> Identities => Parts.Where(static part => part.Base is CheckpointReader)
        .ToDictionary(static part => part.Component, static part => new ModelIdentity(CheckpointFingerprint.Compute((CheckpointReader)part.Base), null));

    /// <summary>Opens both models.</summary>
    /// <exception cref="LoKrException">A model cannot be read, or the two have no component in common.</exception>
    public static ModelPair Open(AdapterExtractionOptions options)
    {
        (string baseModel, string tuned) = (Path.GetFullPath(options.BasePath), Path.GetFullPath(options.FineTunedPath));
        List<Part> parts = [];
        try
        {
            foreach ((string folder, AdapterComponent component) in AdapterComponents.ByFolder)
            {
                (string left, string right) = (Path.Combine(baseModel, folder), Path.Combine(tuned, folder));
                if (Directory.Exists(left) && Directory.Exists(right))
                {
                    parts.Add(Part.Open(component, left, right));
                }
            }

            if (parts.Count == 0)
            {
                parts.Add(Part.Open(AdapterComponent.Model, baseModel, tuned));
            }

            return new(parts);
        }
        catch
        {
            parts.ForEach(static part => part.Dispose());
            throw;
        }
    }

    /// <summary>Names of tensors that differ or that only one model has; a component's name comes first in a pipeline.</summary>
    /// <param name="skips">Tensors that need no look.</param>
    /// <param name="cancellation">Checked before every tensor.</param>
    public IEnumerable<string> Changed(Func<(AdapterComponent Component, string Name), bool> skips, CancellationToken cancellation)
    {
        foreach (Part part in Parts)
        {
            foreach (string name in part.Base.Entries.Keys.Union(part.Tuned.Entries.Keys).Order(StringComparer.Ordinal))
            {
                cancellation.ThrowIfCancellationRequested();
                if (!skips((part.Component, name)) && part.Differs(name))
                {
                    yield return part.Component == AdapterComponent.Model ? name : $"{part.Component}.{name}";
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Part part in Parts)
        {
            part.Dispose();
        }
    }

    /// <summary>One model of each.</summary>
    internal sealed record Part(AdapterComponent Component, string? ModelType, ITensorSource Base, ITensorSource Tuned) : IDisposable
    {
        public static Part Open(AdapterComponent component, string baseModel, string tuned)
        {
            ITensorSource left = OpenWeights(baseModel);
            try
            {
                return new(component, Directory.Exists(baseModel) ? ModelConfig.LoadIfPresent(baseModel)?.FindModelType() : null, left, OpenWeights(tuned));
            }
            catch
            {
                left.Dispose();
                throw;
            }
        }

        public bool Differs(string name)
        {
            SafetensorsEntry? left = Base.Entries.GetValueOrDefault(name);
            SafetensorsEntry? right = Tuned.Entries.GetValueOrDefault(name);
            if (left is null || right is null || !left.Shape.SequenceEqual(right.Shape))
            {
                return true;
            }

            ScalarType type = SafetensorsDTypes.Natural(left.DType);
            long count = left.Shape.Aggregate(1L, static (product, size) => product * size);
            for (long start = 0; start < count; start += BlockNumbers)
            {
                using DisposeScope scope = NewDisposeScope();
                Tensor before = empty(Math.Min(BlockNumbers, count - start), type);
                Tensor after = empty_like(before);
                Base.ReadRange(name, start, before);
                Tuned.ReadRange(name, start, after);
                if (!before.eq(after).all().ToBoolean())
                {
                    return true;
                }
            }

            return false;
        }

        public void Dispose()
        {
            Base.Dispose();
            Tuned.Dispose();
        }

        private static ITensorSource OpenWeights(string path) => File.Exists(path)
            ? SafetensorsReader.Open(path)
            : CheckpointReader.Open(path, CheckpointReader.FindBaseName(path) ?? CheckpointReader.DefaultBaseName);
    }
}
