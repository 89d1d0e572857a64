using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>Treatment of the scale of a quantized weight that adapters change.</summary>
public enum ScaleMode
{
    /// <summary>The scale of the base model stays; values beyond its range become the largest one it holds.</summary>
    Keep,

    /// <summary>The largest value of the merged weight over the largest one of the type, for each block that has a scale.</summary>
    Refit,
}

/// <summary>How the quantized weights of a checkpoint are stored in the result of a merge.</summary>
internal sealed class QuantizedMerge
{
    private readonly QuantizedCheckpoint _source;
    private readonly PlainCodec? _codec;
    private readonly ScaleMode _scaleMode;
    private readonly Dictionary<string, Float8Weight> _scaled;
    private readonly Dictionary<string, RefitScale> _scales = new(StringComparer.Ordinal);

    /// <summary>Decides about the weights of a checkpoint.</summary>
    /// <param name="source">The checkpoint.</param>
    /// <param name="type">Type that every quantized weight gets: float32, float16 or bfloat16; null to keep theirs.</param>
    /// <param name="scaleMode">What becomes of the scales of changed weights that keep their type.</param>
    /// <exception cref="LoKrException"><c>LoKr.InvalidArgument</c> for another type.</exception>
    public QuantizedMerge(QuantizedCheckpoint source, ScalarType? type, ScaleMode scaleMode)
    {
        _source = source;
        _codec = type switch
        {
            null => null,
            ScalarType.Float32 => new PlainCodec(SafetensorsDType.F32),
            ScalarType.Float16 => new PlainCodec(SafetensorsDType.F16),
            ScalarType.BFloat16 => new PlainCodec(SafetensorsDType.BF16),
            _ => throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"Quantized weights cannot become {type}.", "Give float32, float16 or bfloat16."),
        };
        _scaleMode = scaleMode;
        _scaled = source.Weights.Values.OfType<Float8Weight>().Where(static weight => weight.Scale is not null).ToDictionary(static weight => weight.Scale!.Tensor!.Entry.Name, StringComparer.Ordinal);
    }

    /// <summary>Whether quantized weights get another type.</summary>
    public bool Dequantizes => _codec is not null && _source.Weights.Count > 0;

    /// <summary>Shares of the changes that rounding leaves.</summary>
    public QuantizationLoss Loss { get; } = new();

    /// <summary>Text about the options that decide the bytes of the result beside its headers.</summary>
    public string Fingerprint => _scaleMode.ToString();

    /// <summary>Whether a weight of the base model is quantized.</summary>
    public bool IsQuantized(string weight) => _source.Weights.ContainsKey(weight);

    /// <summary>Warnings about options that have no effect.</summary>
    public IEnumerable<string> Warnings(MergePlan plan)
    {
        if (_codec is not null && _source.Weights.Count == 0)
        {
            yield return $"No weight of the base model is quantized, so none becomes {_codec.Format}.";
        }

        if (_scaleMode == ScaleMode.Refit && _codec is null && _scaled.Values.All(weight => plan.Target(_source.Entries[weight.Tensor.Entry.Name]).IsUnchanged))
        {
            yield return "No weight that changes has a scale, so none is fitted again.";
        }
    }

    /// <summary>A tensor of a file of the checkpoint in the result; null where it is left out.</summary>
    /// <param name="entry">The tensor as it is in the file.</param>
    /// <param name="plan">The changes.</param>
    /// <exception cref="LoKrException"><c>LoKr.QuantizationUnsupported</c>, <c>LoKr.QuantizationNotWritable</c>, <c>LoKr.AdapterShapeMismatch</c>.</exception>
    public MergeTarget? Target(SafetensorsEntry entry, MergePlan plan)
    {
        if (_source.Companions.Contains(entry.Name))
        {
            return _codec is not null ? null
                : _scaleMode == ScaleMode.Refit && _scaled.TryGetValue(entry.Name, out Float8Weight? owner) && !plan.Target(_source.Entries[owner.Tensor.Entry.Name]).IsUnchanged
                    ? plan.Target(entry) with { Storage = new ScaleStorage(entry.DType, Refit(owner, plan)) }
                    : plan.Target(entry);
        }

        if (!_source.Weights.TryGetValue(entry.Name, out StoredWeight? weight))
        {
            return plan.Target(entry) with { Loss = entry.DType is SafetensorsDType.BF16 or SafetensorsDType.F16 ? Loss : null };
        }

        MergeTarget values = plan.Target(_source.Entries[entry.Name]);
        return values.IsUnchanged && _codec is null ? plan.Target(entry) : Check(values, weight) with { Storage = StorageOf(weight, plan) };
    }

    /// <summary>The order of the tensors of a file: that of the base model, or where types change the one of the reference implementation, which aligns them.</summary>
    public IEnumerable<MergeTarget> Order(IEnumerable<MergeTarget> targets) => Dequantizes
        ? targets.Order(Comparer<MergeTarget>.Create(static (left, right) => SafetensorsHeaderWriter.Compare(left.Header, right.Header))) : targets;

    /// <summary>Metadata of a file of the result.</summary>
    /// <param name="metadata">That of the file of the base model.</param>
    public IReadOnlyDictionary<string, string> Metadata(IReadOnlyDictionary<string, string> metadata) => Dequantizes
        ? metadata.Where(static pair => pair.Key != QuantizedWeights.MetadataKey).ToDictionary(StringComparer.Ordinal) : metadata;

    private WeightStorage StorageOf(StoredWeight weight, MergePlan plan)
    {
        if (_codec is not null)
        {
            return weight.Problem is { } problem ? throw problem : new(weight, _codec, null, Loss);
        }

        IWeightCodec codec = weight.Codec ?? throw new LoKrException(ErrorIds.QuantizationNotWritable, LoKrErrorKind.NotSupported,
            $"'{weight.Tensor.Entry.Name}' in '{weight.Tensor.File.FilePath}' is stored as {weight.Format}, and changed values cannot be stored as that.", "Give the quantized weights another type in the result.")
        { Target = weight.Tensor.Entry.Name };
        return new(weight, codec, _scaleMode == ScaleMode.Refit && weight is Float8Weight { Scale: not null } floats ? Refit(floats, plan) : null, Loss);
    }

    private RefitScale Refit(Float8Weight weight, MergePlan plan)
    {
        string name = weight.Tensor.Entry.Name;
        if (!_scales.TryGetValue(name, out RefitScale? scale))
        {
            _scales.Add(name, scale = new(plan.Target(_source.Entries[name]), weight));
        }

        return scale;
    }

    private static MergeTarget Check(MergeTarget target, StoredWeight weight) => target.Shape.SequenceEqual(weight.Shape) ? target
        : throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
            $"'{target.Name}' has shape [{string.Join(", ", target.Shape)}] in the adapter, and the model's, which is stored as {weight.Format}, has [{string.Join(", ", weight.Shape)}].",
            "A quantized weight keeps its shape; merge into the model's float32, float16 or bfloat16 weights.") { Target = target.Name };
}

/// <summary>A tensor of the result whose bytes are not simply its numbers.</summary>
internal abstract class TargetStorage
{
    /// <summary>Its element type in the file.</summary>
    public abstract SafetensorsDType DType { get; }

    /// <summary>Its bytes in pieces.</summary>
    /// <param name="target">The tensor.</param>
    /// <param name="offset">Position of its first byte.</param>
    public abstract IEnumerable<MergePiece> Pieces(MergeTarget target, long offset);
}
