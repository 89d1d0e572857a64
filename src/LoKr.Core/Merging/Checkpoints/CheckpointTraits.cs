using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The checkpoint that adapters are merged into, and the properties of its weights that only hints in the files tell.</summary>
/// <param name="source">The checkpoint.</param>
/// <param name="folder">Full path of its folder or file, for messages.</param>
/// <param name="model">Its configuration and architecture.</param>
internal sealed class CheckpointTraits(ITensorSource source, string folder, CheckpointBase model)
{
    private readonly TiedEmbeddings _tied = new(source, model.Config);

    /// <summary>Full path of the folder or file.</summary>
    public string Folder => folder;

    /// <summary>The tensors.</summary>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries => source.Entries;

    /// <summary>Why the values of a quantized weight cannot be read; null where they can.</summary>
    public LoKrException? Problem(string weight) => (source as QuantizedCheckpoint)?.Weights.GetValueOrDefault(weight)?.Problem;

    /// <summary>Published names, or null.</summary>
    public IModuleAliases? Aliases => model.Names;

    /// <summary>The architecture, or null.</summary>
    public string? ModelType => model.Config?.FindModelType();

    /// <summary>Number of layers that the configuration names; a checkpoint may hold more, which the model does not have. Null where it does not say.</summary>
    public int? LayerCount => model.Config?.FindInt("num_hidden_layers");

    /// <summary>The weights that are stored in×out.</summary>
    public TransposedWeights Transposed { get; } = new(source.Entries, model.Config?.FindModelType());

    /// <summary>The tables of input and output embeddings that are one weight: stored once or twice; none where they are two weights, or there is only one.</summary>
    public IReadOnlyList<SafetensorsEntry> TiedTables => [.. _tied.Tables.Select(key => source.Entries[key])];

    /// <summary>Whether a tensor of the checkpoint has other values than one of an adapter, in its own type.</summary>
    /// <param name="stored">The tensor of the checkpoint.</param>
    /// <param name="tensors">Tensors of the adapter.</param>
    /// <param name="key">Name of a tensor of the same shape.</param>
    public bool Differs(SafetensorsEntry stored, ITensorSource tensors, string key) => Differs(source, stored, tensors, key);

    /// <summary>Whether two tensors of the same shape have other values, in the type of the first.</summary>
    /// <param name="first">Source of the first.</param>
    /// <param name="stored">The first.</param>
    /// <param name="tensors">Source of the other one.</param>
    /// <param name="key">Name of the other one.</param>
    public static bool Differs(ITensorSource first, SafetensorsEntry stored, ITensorSource tensors, string key)
    {
        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = NewDisposeScope();
        long count = stored.Shape.Product();
        Tensor memory = empty(2, Math.Min(LayerDelta.BlockBytes, count), SafetensorsDTypes.Natural(stored.DType));
        for (long start = 0; start < count; start += LayerDelta.BlockBytes)
        {
            using DisposeScope inner = NewDisposeScope();
            long length = Math.Min(LayerDelta.BlockBytes, count - start);
            (Tensor own, Tensor copy) = (memory[0].narrow(0, 0, length), memory[1].narrow(0, 0, length));
            first.ReadRange(stored.Name, start, own);
            tensors.ReadRange(key, start, copy);
            if (!own.eq(copy).all().ToBoolean())
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Refuses a tensor to which no change can be added.</summary>
    /// <param name="weight">The tensor.</param>
    /// <exception cref="LoKrException"><c>LoKr.TensorDTypeMismatch</c>, <c>LoKr.QuantizationUnsupported</c>.</exception>
    public void CheckMergeable(SafetensorsEntry weight)
    {
        if (Problem(weight.Name) is { } problem)
        {
            throw problem;
        }

        if (!MergePlan.IsWeightType(weight.DType) || weight.ByteCount == 0)
        {
            throw NotMergeable(weight);
        }
    }

    /// <summary>The error for a tensor to which no change can be added.</summary>
    public LoKrException NotMergeable(SafetensorsEntry weight) => new(ErrorIds.TensorDTypeMismatch, LoKrErrorKind.InvalidData,
        $"'{weight.Name}' in '{folder}' is {SafetensorsDTypes.Name(weight.DType)} [{string.Join(", ", weight.Shape)}], to which no delta can be added.",
        "Quantized checkpoints cannot be merged into; use the model's float32, float16 or bfloat16 weights.") { Target = weight.Name };

    /// <summary>Refuses to change a weight that another module shares.</summary>
    /// <param name="module">Full name of the module in the adapter.</param>
    /// <exception cref="LoKrException"><c>LoKr.TiedWeight</c>.</exception>
    public void CheckNotTied(string module)
    {
        if (_tied.Partner(module) is string partner)
        {
            throw new LoKrException(ErrorIds.TiedWeight, LoKrErrorKind.NotSupported,
                $"'{module}' shares its weight with '{partner}': merging the adapter would change both.",
                "Leave the adapter unmerged, or train it without this module.") { Target = module };
        }
    }
}

/// <summary>Detects input and output embeddings that are one weight, so that a change of one would change the other.</summary>
internal sealed class TiedEmbeddings(ITensorSource source, ModelConfig? config)
{
    private readonly string? _stored = source.Entries.Keys.FirstOrDefault(static key => EmbeddingNames.IsOutput(AdapterKeys.Module(key)) && key.EndsWith(".weight", StringComparison.Ordinal));

    /// <summary>Names of the stored tensors of a tied weight, the input embeddings first; none where nothing is tied.</summary>
    public IReadOnlyList<string> Tables => Input is string input && Partner(AdapterKeys.Module(input)) is not null ? _stored is null ? [input] : [input, _stored] : [];

    private string? Input => source.Entries.Keys.FirstOrDefault(static key => key.EndsWith(".weight", StringComparison.Ordinal) && EmbeddingNames.IsInput(AdapterKeys.Module(key)));

    /// <summary>The module that shares its weight with another, or null.</summary>
    /// <param name="module">Full name of a module.</param>
    public string? Partner(string module)
    {
        bool output = EmbeddingNames.IsOutput(module);
        bool? ties = config?.TiesEmbeddings;
        bool? predicts = config?.PredictsTokens;
        if ((!output && !EmbeddingNames.IsInput(module)) || ties == false || predicts == false || (predicts is null && ties is null))
        {
            return null;
        }

        string? input = Input;
        if (input is null || (ties is null && _stored is not null && !IsSame(input, _stored)))
        {
            return null;
        }

        return output ? AdapterKeys.Module(input) : _stored is null ? "the output embeddings" : AdapterKeys.Module(_stored);
    }

    // Where config.json does not say, the weights do: a checkpoint may hold a tied weight twice.
    private bool IsSame(string first, string second)
    {
        (SafetensorsEntry a, SafetensorsEntry b) = (source.Entries[first], source.Entries[second]);
        if (a.DType != b.DType || !a.Shape.SequenceEqual(b.Shape))
        {
            return false;
        }

        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = NewDisposeScope();
        long count = a.Shape.Product();
        for (long start = 0; start < count; start += LayerDelta.BlockBytes)
        {
            using DisposeScope inner = NewDisposeScope();
            Tensor left = empty(Math.Min(LayerDelta.BlockBytes, count - start), SafetensorsDTypes.Natural(a.DType));
            Tensor right = empty_like(left);
            source.ReadRange(first, start, left);
            source.ReadRange(second, start, right);
            if (!left.bytes.SequenceEqual(right.bytes))
            {
                return false;
            }
        }

        return true;
    }
}

/// <summary>
/// The weights of a checkpoint that are stored in×out, as GPT-2's <c>Conv1D</c> stores them. The file says so only indirectly: by the length of
/// the bias, or by another layer of the same name.
/// </summary>
internal sealed class TransposedWeights
{
    private static readonly HashSet<string> s_modelTypes = new(["gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"], StringComparer.Ordinal);

    private readonly IReadOnlyDictionary<string, SafetensorsEntry> _entries;
    private readonly HashSet<string> _transposedNames;
    private readonly bool _isKnownFamily;

    /// <summary>Examines every weight that has a bias.</summary>
    /// <param name="entries">Tensors of the checkpoint.</param>
    /// <param name="modelType"><c>model_type</c> of config.json, or null.</param>
    public TransposedWeights(IReadOnlyDictionary<string, SafetensorsEntry> entries, string? modelType)
    {
        _entries = entries;
        _isKnownFamily = modelType is not null && s_modelTypes.Contains(modelType);
        _transposedNames = [.. entries.Values.Where(entry => BiasSays(entry) == true).Select(static entry => Last(entry.Name))];
    }

    /// <summary>Whether a weight is stored in×out.</summary>
    /// <param name="weight">The stored weight.</param>
    /// <param name="rows">Rows of the delta, out.</param>
    /// <param name="columns">Columns of the delta, in.</param>
    public bool Contains(SafetensorsEntry weight, long rows, long columns)
    {
        if (weight.Shape.Count != 2 || weight.Shape[0] != columns || weight.Shape[1] != rows)
        {
            return false;
        }

        if (rows != columns)
        {
            // A linear layer of a model whose sizes are the other way round is an error, which the comparison of shapes reports.
            return BiasSays(weight) ?? _isKnownFamily;
        }

        return _transposedNames.Contains(Last(weight.Name)) || (_isKnownFamily && Last(weight.Name).StartsWith("c_", StringComparison.Ordinal));
    }

    // True for in×out, false for out×in, null where the bias is missing or fits both.
    private bool? BiasSays(SafetensorsEntry weight)
    {
        const string end = ".weight";
        return weight.Shape.Count == 2 && weight.Shape[0] != weight.Shape[1] && weight.Name.EndsWith(end, StringComparison.Ordinal)
            && _entries.TryGetValue(weight.Name[..^end.Length] + ".bias", out SafetensorsEntry? bias) && bias.Shape.Count == 1
            && (bias.Shape[0] == weight.Shape[0] || bias.Shape[0] == weight.Shape[1])
            ? bias.Shape[0] == weight.Shape[1]
            : null;
    }

    private static string Last(string key)
    {
        string[] parts = key.Split('.');
        return parts.Length > 1 ? parts[^2] : key;
    }
}
