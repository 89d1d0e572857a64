using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging;

/// <summary>
/// Merges adapter files of any kind, LoRA and others included, into the weights of a model in memory: placed and computed as in a merge on disk, with the
/// same bits. The files do not become adapters of the model; the merge can be undone.
/// </summary>
public static class FileMerge
{
    /// <summary>Adds the changes of files into the base weights.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="adapters">The files, in the order in which they are added.</param>
    /// <param name="safe">Refuse results that are not finite.</param>
    /// <param name="cancellation">Checked before every weight; all weights are as before.</param>
    /// <exception cref="LoKrException">The files are not valid, do not fit the model, or would change a weight that another module shares; all weights are as before.</exception>
    public static LoKrMergeResult Merge(IAdaptable target, IReadOnlyList<CheckpointMergeSource> adapters, bool safe = false, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(target);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "merged");
        using OpenMerge merge = new(target, adapters);
        LoKrMergeResult result = AdaptableExtensions.MergeAll(merge.Parts.Select(part => part.Model.BeginMerge(part.Changes, part.SavedModules, safe, cancellation)));
        return result with { Warnings = [.. merge.Warnings, .. result.Warnings] };
    }

    /// <summary>Throws what <see cref="Merge"/> would throw. No weight is changed; with <paramref name="safe"/> every result is computed on a copy.</summary>
    /// <inheritdoc cref="Merge"/>
    public static void Check(IAdaptable target, IReadOnlyList<CheckpointMergeSource> adapters, bool safe = false, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(target);
        using ModelUses uses = ModelUses.Change(target.Models.Values, "merged");
        using OpenMerge merge = new(target, adapters);
        foreach (ModelPart part in merge.Parts)
        {
            part.Model.CheckMerge(part.Changes, safe, cancellation);
        }
    }

    /// <summary>Changes by files in one component.</summary>
    private sealed record ModelPart(LoKrModel Model, MergedChanges Changes, int SavedModules);

    /// <summary>The files, open and placed on the weights.</summary>
    private sealed class OpenMerge : IDisposable
    {
        private readonly MergeAdapters _adapters;
        private readonly ProductMemory _memory = new();

        public OpenMerge(IAdaptable target, IReadOnlyList<CheckpointMergeSource> adapters)
        {
            MergeAdapters.Check(adapters);
            List<(MergePart Part, LoKrModel Model, ModelTensors Tensors)> parts = [];
            foreach ((string folder, LoKrModel model) in target.Models)
            {
                ModelTensors tensors = new(model, _memory);
                ModelConfig? config = model.Pretrained is { } pretrained ? new(pretrained.Config) : null;
                string path = model.SourcePath ?? model.Name;
                CheckpointBase known = new(path, config) { Names = model.Module as IModuleAliases };
                parts.Add((new MergePart(folder, new(tensors, path, known), new(tensors)), model, tensors));
            }

            _adapters = MergeAdapters.Open(adapters, MergeBase.Of(target.Name, parts.Select(static part => part.Part)), fingerprint: null);
            try
            {
                string[] files = [.. adapters.Select(static adapter => Path.TrimEndingDirectorySeparator(Path.GetFullPath(adapter.Path)))];
                Parts = [.. parts.Where(static part => part.Part.Plan.DeltaCount + part.Part.Plan.SavedModuleCount > 0)
                    .Select(part => new ModelPart(part.Model, new([.. part.Tensors.Changes(part.Part.Plan)]) { Files = files }, part.Part.Plan.SavedModuleCount))];
            }
            catch
            {
                _adapters.Dispose();
                throw;
            }
        }

        public IReadOnlyList<ModelPart> Parts { get; }

        public IReadOnlyList<string> Warnings => _adapters.Warnings;

        public void Dispose()
        {
            _adapters.Dispose();
            _memory.Dispose();
        }
    }

    /// <summary>The weights of a model as a checkpoint: those without any adapter, under the names of the module tree.</summary>
    private sealed class ModelTensors : ITensorSource
    {
        private readonly LoKrModel _model;
        private readonly ProductMemory _memory;
        private readonly HashSet<string> _layers;
        private readonly IReadOnlyDictionary<string, Tensor> _state;

        public ModelTensors(LoKrModel model, ProductMemory memory)
        {
            (_model, _memory) = (model, memory);
            _layers = [.. ModuleTree.Places(model.Module).Where(static place => BaseLayer.TryCreate(place) is not null).Select(static place => place.Name)];
            Dictionary<string, SafetensorsEntry> entries = new(StringComparer.Ordinal);
            HashSet<string> parameters = [.. ModuleTree.Parameters(model.Module).Select(static entry => entry.Name)];
            _state = model.GetBaseState();
            foreach ((string name, Tensor tensor) in _state.Where(entry => parameters.Contains(entry.Key)))
            {
                if (tensor.device_type == DeviceType.META)
                {
                    throw ModelErrors.NoWeights();
                }

                if (SafetensorsDTypes.TryFromTorch(tensor.dtype, out SafetensorsDType type))
                {
                    entries.Add(name, new(name, type, tensor.shape, 0, tensor.numel() * SafetensorsDTypes.Size(type)));
                }
            }

            Entries = entries;
        }

        public IReadOnlyDictionary<string, SafetensorsEntry> Entries { get; }

        public IReadOnlyDictionary<string, string> Metadata { get; } = new Dictionary<string, string>();

        /// <summary>The changes of a plan.</summary>
        /// <exception cref="LoKrException"><c>LoKr.AdapterKeysMismatch</c>, <c>LoKr.AdapterShapeMismatch</c>: an adapter adds or enlarges tensors.</exception>
        public IEnumerable<NamedChange> Changes(MergePlan plan)
        {
            if (plan.Added.Count > 0)
            {
                throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                    $"The adapter adds {string.Join(", ", plan.Added.Keys)}, which the model does not have.", "Load the model with such a head, or merge the files.") { Target = plan.Added.Keys.First() };
            }

            foreach (SafetensorsEntry entry in Entries.Values)
            {
                MergeTarget change = plan.Target(entry);
                if (change.IsUnchanged)
                {
                    continue;
                }

                if (!change.Shape.SequenceEqual(entry.Shape))
                {
                    throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
                        $"'{entry.Name}' is [{string.Join(", ", change.Shape)}] in the adapter, and [{string.Join(", ", entry.Shape)}] in the model.", "A model in memory keeps its shapes; merge the files.") { Target = entry.Name };
                }

                string name = entry.Name;
                yield return new(string.Join(", ", change.AdapterNames), new(Key(name), () => Parameter(name), change.Precision, (weight, _) => Apply(change, weight)));
            }
        }

        public Tensor Read(string name, ScalarType? dtype = null, Device? device = null)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor weight = Weight(name);
            return weight.to(dtype ?? weight.dtype, device ?? CPU, copy: true).MoveToOuterDisposeScope();
        }

        public void ReadInto(string name, Tensor destination) => ReadRange(name, 0, destination);

        public void ReadRange(string name, long start, Tensor destination)
        {
            using DisposeScope scope = NewDisposeScope();
            using IDisposable noGrad = no_grad();
            destination.copy_(Weight(name).reshape(-1).narrow(0, start, destination.numel()).reshape(destination.shape));
        }

        // Whoever merges owns the model.
        public void Dispose()
        {
        }

        private Tensor Weight(string name) => (_model.Unmerged(Key(name)) ?? _state[name]).detach();

        /// <summary>The name under which merges know a weight: that of a layer that takes adapters, or of the parameter.</summary>
        private string Key(string name)
        {
            const string weight = ".weight";
            return name.EndsWith(weight, StringComparison.Ordinal) && _layers.Contains(name[..^weight.Length]) ? name[..^weight.Length] : name;
        }

        // Looked up each time, because moving a model replaces parameters.
        private TorchSharp.Modules.Parameter Parameter(string name) => ModuleTree.Parameters(_model.Module).First(entry => entry.Name == name).Parameter;

        private void Apply(MergeTarget change, Tensor weight)
        {
            using DisposeScope scope = NewDisposeScope();
            if (change.Replacement is AdapterTensor given)
            {
                weight.copy_(given.Read(weight.dtype));
                return;
            }

            using MergeWork work = new(change);
            work.Prepare(_memory);
            Tensor rows = weight.dim() > 0 ? weight.detach() : weight.detach().reshape(1);
            long length = change.Shape.Skip(1).Product();
            foreach ((long start, long count) in work.Runs)
            {
                using DisposeScope piece = NewDisposeScope();
                Tensor part = rows.narrow(0, start, count);
                Tensor memory = part.to(CPU, copy: true).reshape(-1).contiguous();
                work.Merge(memory, 0, (int)(count * length), start * length);
                part.copy_(memory.reshape(part.shape));
            }
        }
    }
}
