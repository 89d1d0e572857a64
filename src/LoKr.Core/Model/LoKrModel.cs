using LoKr.Core.Layers;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>
/// A model with its adapters: any <c>torch.nn.Module</c>, the folder it came from, adapters by name, which are active, enabled and merged.
/// Owns the module. Not safe for use from several threads at once.
/// </summary>
public sealed partial class LoKrModel : IDisposable
{
    private readonly List<LoKrAdapter> _adapters = [];
    private readonly List<LoKrAdapter> _active = [];
    private readonly Dictionary<string, LayerHost> _layers = new(StringComparer.Ordinal);
    private readonly Dictionary<string, SavedModuleHost> _saved = new(StringComparer.Ordinal);
    private readonly Dictionary<string, bool> _requiresGrad = new(StringComparer.Ordinal);
    private readonly WeightMerger _merger = new();
    private readonly ForwardHooks _hooks = new();
    private bool _enabled = true;
    private bool _disposed;

    /// <summary>Wraps a module.</summary>
    /// <param name="module">The model; it stays what it is, adapters are attached by hooks.</param>
    /// <param name="sourcePath">Folder it was read from, if any.</param>
    /// <param name="tokenizer">Its tokenizer, if any.</param>
    public LoKrModel(nn.Module module, string? sourcePath = null, ITextTokenizer? tokenizer = null)
    {
        ArgumentNullException.ThrowIfNull(module);
        Module = module;
        SourcePath = sourcePath;
        Tokenizer = tokenizer;
    }

    /// <summary>The base module.</summary>
    public nn.Module Module { get; }

    /// <summary>The module as a Hugging Face model, or null for a module made in a script.</summary>
    public IPretrainedModel? Pretrained => Module as IPretrainedModel;

    /// <summary>Class name of the model.</summary>
    public string Name => Pretrained?.Architecture ?? Module.GetType().Name;

    /// <summary><c>model_type</c>, or null.</summary>
    public string? ModelType => Pretrained?.ModelType;

    /// <summary>Folder the model was read from, or null.</summary>
    public string? SourcePath { get; }

    /// <summary>Tokenizer of the folder, or null.</summary>
    public ITextTokenizer? Tokenizer { get; }

    /// <summary>Device of the first parameter; the CPU for a model without parameters.</summary>
    public Device Device => Module.parameters().FirstOrDefault()?.device ?? CPU;

    /// <summary>Type of the first floating-point parameter; float32 for a model without one.</summary>
    public ScalarType DType => Module.parameters().FirstOrDefault(static parameter => parameter.is_floating_point())?.dtype ?? ScalarType.Float32;

    /// <summary>Adapters in the order they were added.</summary>
    public IReadOnlyList<LoKrAdapter> Adapters => _adapters;

    /// <summary>Names of the active adapters.</summary>
    public IReadOnlyList<string> ActiveAdapters => [.. _active.Select(static adapter => adapter.Name)];

    /// <summary>Names of the adapters merged into the base weights.</summary>
    public IReadOnlyList<string> MergedAdapters => [.. _merger.Merged.Select(static adapter => adapter.Name)];

    /// <summary>Whether adapters take part in the forward pass.</summary>
    public bool AdaptersEnabled => _enabled;

    /// <summary>Result of the last training run on this model, or null.</summary>
    public LoKrTrainingResult? LastTraining { get; set; }

    /// <summary>Result of the last merge, or null.</summary>
    public LoKrMergeResult? LastMerge { get; private set; }

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>Removes every hook, releases the adapters and the module.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        foreach (LayerHost host in _layers.Values)
        {
            host.Detach();
        }

        foreach (NormHost host in _norms.Values)
        {
            host.Detach();
        }

        foreach (SavedModuleHost host in _saved.Values)
        {
            host.Show(null);
            host.Dispose();
        }

        foreach (LoKrAdapter adapter in _adapters)
        {
            adapter.Release();
        }

        _merger.Dispose();
        Module.Dispose();
    }

    /// <summary>
    /// Brings hooks, trained copies and gradients in line with which adapters are active, merged and enabled.
    /// </summary>
    private void Apply()
    {
        LoKrAdapter[] running = _enabled ? [.. _active.Where(adapter => !_merger.Merged.Contains(adapter))] : [];
        foreach (LayerHost host in _layers.Values)
        {
            // As in PEFT, a layer with a merged adapter runs on its weight alone.
            host.SetRunning(host.Layers.Any(entry => _merger.Merged.Contains(entry.Adapter)) ? [] : running);
        }

        RunNorms(running);
        foreach (LoKrAdapter adapter in _adapters)
        {
            bool trains = adapter.IsTrainable && _active.Contains(adapter);
            foreach (FlatParameter flat in adapter.FlatParameters)
            {
                flat.SetRequiresGrad(trains);
            }
        }

        foreach (SavedModuleHost host in _saved.Values)
        {
            LoKrAdapter? owner = _enabled ? host.Adapters.FirstOrDefault(adapter => _active.Contains(adapter) || _merger.Merged.Contains(adapter)) : null;
            if (!ReferenceEquals(owner, host.Current))
            {
                host.Show(owner);
            }
        }
    }
}
