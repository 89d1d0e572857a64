using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The model on disk that adapters are merged into: a folder, a single file, or a pipeline with a folder for each component.</summary>
internal sealed class MergeBase : IDisposable
{
    private readonly List<MergePart> _parts = [];

    private MergeBase(string path) => Path = path;

    /// <summary>Full path.</summary>
    public string Path { get; }

    /// <summary>Whether it is one file, which may hold several components under prefixes.</summary>
    public bool IsFile { get; private init; }

    /// <summary>Its components; one for a model that is not a pipeline.</summary>
    public IReadOnlyList<MergePart> Parts => _parts;

    /// <summary>A model that is open already.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="traits">What is known about its tensors.</param>
    /// <param name="plan">The plan that takes the changes.</param>
    public static MergeBase Of(string path, CheckpointTraits traits, MergePlan plan) => Of(path, [new("", traits, plan)]);

    /// <summary>A model of components that are open already.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="parts">The components.</param>
    public static MergeBase Of(string path, IEnumerable<MergePart> parts)
    {
        MergeBase model = new(path);
        model._parts.AddRange(parts);
        return model;
    }

    /// <summary>Opens a model.</summary>
    /// <param name="model">The model.</param>
    /// <param name="type">Type that quantized weights get; null to keep theirs.</param>
    /// <param name="scaleMode">What becomes of the scales of quantized weights that change.</param>
    /// <exception cref="LoKrException"><c>LoKr.PathNotFound</c>, <c>LoKr.CheckpointNotFound</c>, and the errors of <see cref="CheckpointReader.Open"/>.</exception>
    public static MergeBase Open(CheckpointBase model, ScalarType? type = null, ScaleMode scaleMode = ScaleMode.Keep)
    {
        string path = System.IO.Path.GetFullPath(model.Path);
        bool isIndex = path.EndsWith(CheckpointReader.IndexExtension, StringComparison.Ordinal);
        MergeBase opened = new(path) { IsFile = File.Exists(path) && !isIndex };
        Storage storage = new(type, scaleMode);
        try
        {
            if (opened.IsFile)
            {
                opened.Add("", System.IO.Path.GetFileNameWithoutExtension(path), CheckpointReader.OpenFile(path), model, storage);
            }
            else if (isIndex)
            {
                string name = System.IO.Path.GetFileName(path)[..^CheckpointReader.IndexExtension.Length];
                opened.Add("", name, CheckpointReader.Open(System.IO.Path.GetDirectoryName(path)!, name), model, storage);
            }
            else if (model.Components.Count > 0)
            {
                foreach ((string folder, CheckpointBase component) in model.Components.OrderBy(static pair => pair.Key, StringComparer.Ordinal))
                {
                    string name = CheckpointReader.FindBaseName(component.Path)!;
                    opened.Add(folder, name, CheckpointReader.Open(component.Path, name), component, storage);
                }
            }
            else
            {
                string name = Directory.Exists(path) ? CheckpointReader.FindBaseName(path) ?? CheckpointReader.DefaultBaseName : throw FileErrors.NotFound(path);
                opened.Add("", name, CheckpointReader.Open(path, name), model, storage);
            }

            return opened;
        }
        catch
        {
            opened.Dispose();
            throw;
        }
    }

    /// <summary>Warnings about options for quantized weights that have no effect in any component.</summary>
    public IReadOnlyList<string> QuantizationWarnings()
    {
        string[][] warnings = [.. _parts.OfType<StoredPart>().Select(static part => part.Quantized.Warnings(part.Plan).ToArray())];
        return Array.TrueForAll(warnings, static part => part.Length > 0) ? warnings[0] : [];
    }

    /// <inheritdoc/>
    public void Dispose() => _parts.ForEach(static part => (part as StoredPart)?.Checkpoint.Dispose());

    private void Add(string folder, string baseName, CheckpointReader source, CheckpointBase model, Storage storage)
    {
        try
        {
            QuantizedCheckpoint weights = new(source, source.Shards);
            _parts.Add(new StoredPart(folder, baseName, source, new(weights, storage.Type, storage.ScaleMode), new(weights, System.IO.Path.GetFullPath(model.Path), model), new(weights)));
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    private readonly record struct Storage(ScalarType? Type, ScaleMode ScaleMode);
}

/// <summary>A component of a model on disk.</summary>
/// <param name="Folder">Its folder in the pipeline; empty for a model that is not one.</param>
/// <param name="Traits">What is known about its tensors.</param>
/// <param name="Plan">The changes that adapters make.</param>
internal record MergePart(string Folder, CheckpointTraits Traits, MergePlan Plan);

/// <summary>A component in safetensors files.</summary>
/// <param name="Folder">Its folder in the pipeline; empty for a model that is not one.</param>
/// <param name="BaseName">Name of its weights without extension.</param>
/// <param name="Checkpoint">The files.</param>
/// <param name="Quantized">What becomes of quantized weights.</param>
/// <param name="Traits">What is known about its tensors.</param>
/// <param name="Plan">The changes that adapters make.</param>
internal sealed record StoredPart(string Folder, string BaseName, CheckpointReader Checkpoint, QuantizedMerge Quantized, CheckpointTraits Traits, MergePlan Plan) : MergePart(Folder, Traits, Plan);
