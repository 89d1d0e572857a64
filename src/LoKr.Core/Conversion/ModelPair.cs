using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>
/// A base model and its fine-tuning on disk. Names are those of the fine-tuned model; the base model's may lack its prefix, as those of a bare
/// model do, or have one more. Holds the files open until disposed.
/// </summary>
internal sealed class ModelPair : IDisposable
{
    private ModelPair(IReadOnlyList<Part> parts) => Parts = parts;

    /// <summary>The components of a pipeline, or the only model.</summary>
    public IReadOnlyList<Part> Parts { get; }

    /// <summary>All modules of the fine-tuned model that have tensors.</summary>
    public IReadOnlyCollection<string> ModuleNames => [.. Parts.SelectMany(static part => part.Tuned.Entries.Keys).Where(static name => name.Contains('.', StringComparison.Ordinal)).Select(static name => name[..name.LastIndexOf('.')]).Distinct()];

    /// <summary>Identities of the base models.</summary>
    public IReadOnlyDictionary<AdapterComponent, ModelIdentity> Identities => Parts
        .Select(static part => (part.Component, Files: ((part.Base as QuantizedCheckpoint)?.Source ?? part.Base) as CheckpointReader)).Where(static part => part.Files is not null)
        .ToDictionary(static part => part.Component, static part => new ModelIdentity(CheckpointFingerprint.Compute(part.Files!), null));

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

    /// <summary>Names of tensors of the fine-tuned model that differ, or that only it has, and of those that only the base model has; a component's name comes first in a pipeline.</summary>
    /// <param name="skips">Tensors of the fine-tuned model that need no look.</param>
    /// <param name="cancellation">Checked before every tensor.</param>
    public IEnumerable<string> Changed(Func<(AdapterComponent Component, string Name), bool> skips, CancellationToken cancellation)
    {
        foreach (Part part in Parts)
        {
            HashSet<string> unseen = [.. part.Base.Entries.Keys];
            foreach (string name in part.Tuned.Entries.Keys.Order(StringComparer.Ordinal))
            {
                cancellation.ThrowIfCancellationRequested();
                string? before = part.FindBase(name);
                unseen.Remove(before ?? "");
                if (!skips((part.Component, name)) && (before is null || part.Differs(name, before)))
                {
                    yield return part.FullName(name);
                }
            }

            foreach (string name in unseen.Order(StringComparer.Ordinal))
            {
                yield return part.FullName(name);
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
        private readonly (string Removed, string Prepended) _rule = Rule(Base, Tuned);

        public static Part Open(AdapterComponent component, string baseModel, string tuned)
        {
            ITensorSource left = CheckpointReader.OpenWeights(baseModel);
            ITensorSource? right = null;
            try
            {
                right = CheckpointReader.OpenWeights(tuned);
                return new(component, Directory.Exists(tuned) ? ModelConfig.LoadIfPresent(tuned)?.FindModelType() : null, left, right);
            }
            catch
            {
                left.Dispose();
                right?.Dispose();
                throw;
            }
        }

        /// <summary>The tensor of the base model that became a tensor of the fine-tuned one; null where there is none.</summary>
        public string? FindBase(string tuned) => Base.Entries.ContainsKey(tuned) ? tuned
            : tuned.StartsWith(_rule.Removed, StringComparison.Ordinal) && _rule.Prepended + tuned[_rule.Removed.Length..] is string name && Base.Entries.ContainsKey(name) ? name
            : null;

        /// <summary>Reads a weight of both models.</summary>
        /// <param name="baseName">Its name in the base model.</param>
        /// <param name="tuned">Its name in the fine-tuned one.</param>
        /// <param name="memory">Memory that the numbers are in until the next weight is read.</param>
        public (Tensor Base, Tensor Tuned) ReadBoth(string baseName, string tuned, FitMemory memory) =>
            (Read(Base, baseName, memory, FitMemory.Part.Base), Read(Tuned, tuned, memory, FitMemory.Part.Tuned));

        public string FullName(string name) => Component == AdapterComponent.Model ? name : $"{Component}.{name}";

        public bool Differs(string tuned, string baseName)
        {
            SafetensorsEntry left = Base.Entries[baseName];
            return !left.Shape.SequenceEqual(Tuned.Entries[tuned].Shape) || CheckpointTraits.Differs(Base, left, Tuned, tuned);
        }

        public void Dispose()
        {
            Base.Dispose();
            Tuned.Dispose();
        }

        private static Tensor Read(ITensorSource source, string name, FitMemory memory, FitMemory.Part part)
        {
            SafetensorsEntry entry = source.Entries[name];
            Tensor weight = memory.Take(part, SafetensorsDTypes.Natural(entry.DType), entry.Shape.Product()).view([.. entry.Shape]);
            source.ReadInto(name, weight);
            return weight;
        }

        /// <summary>Change of prefix that turns most names of the fine-tuned model into those of the base model, beside those that are the same.</summary>
        private static (string Removed, string Prepended) Rule(ITensorSource baseModel, ITensorSource tuned)
        {
            string[] names = [.. tuned.Entries.Keys.Where(name => !baseModel.Entries.ContainsKey(name))];
            IEnumerable<(string Removed, string Prepended)> rules =
                [("", ""), .. Prefixes(names).Select(static prefix => (prefix, "")), .. Prefixes(baseModel.Entries.Keys).Select(static prefix => ("", prefix))];
            return rules.MaxBy(rule => names.Count(name => name.StartsWith(rule.Removed, StringComparison.Ordinal) && baseModel.Entries.ContainsKey(rule.Prepended + name[rule.Removed.Length..])));
        }

        /// <summary>The first part of each dotted name, and the first two.</summary>
        private static IEnumerable<string> Prefixes(IEnumerable<string> names) => names.SelectMany(static name =>
        {
            int first = name.IndexOf('.', StringComparison.Ordinal);
            int second = name.IndexOf('.', first + 1);
            return (first, second) switch
            {
                ( < 0, _) => Array.Empty<string>(),
                (_, < 0) => [name[..(first + 1)]],
                _ => [name[..(first + 1)], name[..(second + 1)]],
            };
        }).Distinct(StringComparer.Ordinal);
    }
}
