using LoKr.Core.Merging;
using LoKr.Core.Modeling;
using LoKr.Core.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>
/// A model with its adapters: any <c>torch.nn.Module</c>, the folder it came from, adapters by name, which are active, enabled and merged.
/// Owns the module. Not safe for use from several threads at once.
/// </summary>
public sealed class LoKrModel : IDisposable
{
    /// <summary>Wraps a module.</summary>
    public LoKrModel(nn.Module module, string? sourcePath = null, ITextTokenizer? tokenizer = null) => throw new NotImplementedException();

    /// <summary>The base module.</summary>
    public nn.Module Module => throw new NotImplementedException();

    /// <summary>The module as a Hugging Face model, or null for a module made in a script.</summary>
    public IPretrainedModel? Pretrained => throw new NotImplementedException();

    /// <summary>Class name of the model.</summary>
    public string Name => throw new NotImplementedException();

    /// <summary><c>model_type</c>, or null.</summary>
    public string? ModelType => throw new NotImplementedException();

    /// <summary>Folder the model was read from, or null.</summary>
    public string? SourcePath => throw new NotImplementedException();

    /// <summary>Tokenizer of the folder, or null.</summary>
    public ITextTokenizer? Tokenizer => throw new NotImplementedException();

    /// <summary>Device of the first parameter.</summary>
    public Device Device => throw new NotImplementedException();

    /// <summary>Type of the first floating-point parameter.</summary>
    public ScalarType DType => throw new NotImplementedException();

    /// <summary>Adapters in the order they were added.</summary>
    public IReadOnlyList<LoKrAdapter> Adapters => throw new NotImplementedException();

    /// <summary>Names of the active adapters.</summary>
    public IReadOnlyList<string> ActiveAdapters => throw new NotImplementedException();

    /// <summary>Names of the adapters merged into the base weights.</summary>
    public IReadOnlyList<string> MergedAdapters => throw new NotImplementedException();

    /// <summary>Whether adapters take part in the forward pass.</summary>
    public bool AdaptersEnabled => throw new NotImplementedException();

    /// <summary>Result of the last training run on this model, or null.</summary>
    public LoKrTrainingResult? LastTraining { get; set; }

    /// <summary>Adds a fresh adapter; the first one becomes active.</summary>
    /// <param name="config">Its configuration; a null TargetModules takes the default of the architecture.</param>
    /// <param name="name">Its name.</param>
    /// <param name="seed">Seed of the initialisation; null draws from torch's global generator.</param>
    public LoKrAdapter AddAdapter(LoKrConfig config, string name = "default", long? seed = null) => throw new NotImplementedException();

    /// <summary>The adapter of that name; an unknown name is an error that lists the known ones.</summary>
    public LoKrAdapter GetAdapter(string name) => throw new NotImplementedException();

    /// <summary>Makes exactly these adapters active.</summary>
    public void SetActiveAdapters(IReadOnlyList<string> names) => throw new NotImplementedException();

    /// <summary>Removes an adapter; the base weights are as before.</summary>
    public void RemoveAdapter(string name) => throw new NotImplementedException();

    /// <summary>Lets adapters take part in the forward pass, or not.</summary>
    public void SetAdaptersEnabled(bool enabled) => throw new NotImplementedException();

    /// <summary>Adds the deltas of adapters into the base weights.</summary>
    /// <param name="names">Adapters; null for the active ones.</param>
    /// <param name="safe">Refuse results that are not finite and leave the weights alone.</param>
    public LoKrMergeResult Merge(IReadOnlyList<string>? names = null, bool safe = false) => throw new NotImplementedException();

    /// <summary>Takes every merged adapter out again; the base weights are bit for bit as before.</summary>
    public void UndoMerge() => throw new NotImplementedException();

    /// <summary>Every module of the model (without the root), in order, with shapes, counts and adapter state.</summary>
    public IReadOnlyList<LoKrModuleInfo> GetModules() => throw new NotImplementedException();

    /// <summary>Trainable and total parameters as PEFT counts them.</summary>
    public ParameterCount CountParameters() => throw new NotImplementedException();

    /// <summary>Tensors of the merged or unadapted base model by published name, tied duplicates left out; not copies.</summary>
    public IReadOnlyDictionary<string, Tensor> GetBaseState() => throw new NotImplementedException();

    /// <inheritdoc/>
    public void Dispose() => throw new NotImplementedException();
}
