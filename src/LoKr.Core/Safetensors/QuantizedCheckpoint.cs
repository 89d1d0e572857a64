using System.Runtime.InteropServices;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runtime;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Safetensors;

/// <summary>
/// The tensors of a checkpoint as numbers: a quantized weight has the type F32 and the shape of its values, and what only describes how
/// weights are stored (scales, codebooks, marks) is left out. Everything else is as it is in the files. Disposing closes the source.
/// </summary>
internal sealed class QuantizedCheckpoint : ITensorSource
{
    // Numbers that are converted at a time.
    private const long BlockNumbers = 1 << 20;

    private readonly ITensorSource _source;
    private readonly QuantizedWeights _quantized;

    /// <summary>Finds the quantized weights of a checkpoint.</summary>
    /// <param name="source">The checkpoint.</param>
    /// <param name="files">Its files.</param>
    /// <exception cref="LoKrException"><c>LoKr.QuantizationInvalid</c>: scales or settings of a weight are missing or do not fit it.</exception>
    public QuantizedCheckpoint(ITensorSource source, IReadOnlyList<SafetensorsReader> files)
    {
        _source = source;
        _quantized = QuantizedWeights.Find(files);
        Entries = source.Entries.Where(pair => !_quantized.Companions.Contains(pair.Key))
            .ToDictionary(static pair => pair.Key, pair => _quantized.Weights.GetValueOrDefault(pair.Key) is { Problem: null } weight ? pair.Value with { DType = SafetensorsDType.F32, Shape = weight.Shape } : pair.Value, StringComparer.Ordinal).AsReadOnly();
    }

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries { get; }

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> Metadata => _source.Metadata;

    /// <summary>The tensors as they are in the files.</summary>
    public ITensorSource Source => _source;

    /// <summary>The quantized weights by name.</summary>
    public IReadOnlyDictionary<string, StoredWeight> Weights => _quantized.Weights;

    /// <summary>Names of the tensors that only describe how weights are stored.</summary>
    public IReadOnlySet<string> Companions => _quantized.Companions;

    /// <inheritdoc/>
    public Tensor Read(string name, ScalarType? dtype = null, Device? device = null)
    {
        if (!Weights.TryGetValue(name, out StoredWeight? weight))
        {
            return _source.Read(name, dtype, device);
        }

        TorchRuntime.EnsureLoaded();
        Tensor values = empty([.. weight.Shape], dtype ?? ScalarType.Float32, device ?? CPU);
        try
        {
            ReadRange(name, 0, values);
            return values;
        }
        catch
        {
            values.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void ReadInto(string name, Tensor destination)
    {
        ArgumentNullException.ThrowIfNull(destination);
        if (Weights.ContainsKey(name))
        {
            ReadRange(name, 0, destination);
        }
        else
        {
            _source.ReadInto(name, destination);
        }
    }

    /// <inheritdoc/>
    public void ReadRange(string name, long start, Tensor destination)
    {
        ArgumentNullException.ThrowIfNull(destination);
        if (!Weights.TryGetValue(name, out StoredWeight? weight))
        {
            _source.ReadRange(name, start, destination);
            return;
        }

        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        long count = destination.numel();
        bool isDirect = destination is { dtype: ScalarType.Float32, device_type: DeviceType.CPU } && destination.is_contiguous();
        Tensor values = isDirect ? destination.detach().view(-1) : empty(count, ScalarType.Float32);
        for (long done = 0; done < count; done += BlockNumbers)
        {
            using Tensor block = values.narrow(0, done, Math.Min(BlockNumbers, count - done));
            weight.Read(start + done, MemoryMarshal.Cast<byte, float>(block.bytes));
        }

        if (!isDirect)
        {
            destination.copy_(values.reshape(destination.shape));
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _source.Dispose();
}

/// <summary>
/// The quantized weights of a checkpoint, found by the names that programs give them. Floats of 8 bits: <c>X.scale_weight</c> with the mark
/// <c>scaled_fp8</c> (ComfyUI's first form), <c>X.weight_scale</c> with <c>X.comfy_quant</c> or <c>_quantization_metadata</c> in the header
/// (its present form, and compressed-tensors), <c>X.weight_scale_inv</c> for blocks of 128×128 (transformers), or no scale: a plain cast.
/// bitsandbytes: <c>X.weight.quant_state.bitsandbytes__nf4</c> and <c>X.SCB</c>, as transformers writes them.
/// </summary>
/// <param name="Weights">The weights by name.</param>
/// <param name="Companions">Names of the tensors that only describe how weights are stored.</param>
internal sealed record QuantizedWeights(IReadOnlyDictionary<string, StoredWeight> Weights, IReadOnlySet<string> Companions)
{
    /// <summary>Key of the header under which ComfyUI names the format of layers.</summary>
    public const string MetadataKey = "_quantization_metadata";

    private const string WeightSuffix = ".weight";
    private const string GridSuffix = ".weight_scale_inv";
    private const string FormatSuffix = ".comfy_quant";
    private const string Mark = "scaled_fp8";

    private static readonly string[] s_scaleSuffixes = [".scale_weight", ".weight_scale", GridSuffix];

    // Scales of the activations, and second scales of formats that are not read.
    private static readonly string[] s_otherSuffixes = [".scale_input", ".input_scale", ".weight_scale_2", FormatSuffix];

    private static readonly JsonErrors s_errors = new(ErrorIds.QuantizationInvalid, ErrorIds.QuantizationUnsupported, "Get the file again.");

    /// <summary>Finds the quantized weights.</summary>
    /// <param name="files">The files of the checkpoint; what describes a weight may be in another one.</param>
    /// <exception cref="LoKrException"><c>LoKr.QuantizationInvalid</c>.</exception>
    public static QuantizedWeights Find(IReadOnlyList<SafetensorsReader> files)
    {
        Dictionary<string, StoredTensor> tensors = files.SelectMany(static file => file.Entries.Values.Select(entry => new StoredTensor(file, entry)))
            .ToDictionary(static tensor => tensor.Entry.Name, StringComparer.Ordinal);
        Dictionary<string, string> formats = Formats(files);
        Dictionary<string, StoredWeight> weights = new(StringComparer.Ordinal);
        HashSet<string> companions = new(StringComparer.Ordinal);
        foreach (StoredTensor tensor in tensors.Values)
        {
            string name = tensor.Entry.Name;
            if (tensor.Entry.DType is SafetensorsDType.F8E4M3 or SafetensorsDType.F8E5M2 && (name == Mark || name.EndsWith("." + Mark, StringComparison.Ordinal)))
            {
                companions.Add(name);
            }
            else if (tensor.Entry.DType is SafetensorsDType.F8E4M3 or SafetensorsDType.F8E5M2 or SafetensorsDType.U8 or SafetensorsDType.I8)
            {
                string? module = name.EndsWith(WeightSuffix, StringComparison.Ordinal) ? name[..^WeightSuffix.Length] : null;
                Parts parts = new(tensors, companions);
                if (Weight(tensor, module, module is null ? null : formats.GetValueOrDefault(module), parts) is { } weight)
                {
                    weights.Add(name, weight);
                    parts.AddToCompanions();
                }
            }
        }

        return new(weights, companions);
    }

    private static StoredWeight? Weight(StoredTensor tensor, string? module, string? format, Parts parts)
    {
        bool isFloat = Float8.Of(tensor.Entry.DType) is not null;
        if (module is null)
        {
            return isFloat ? new Float8Weight(tensor, null) : null;
        }

        string name = tensor.Entry.Name;
        if (tensor.Entry.DType == SafetensorsDType.U8 && FourBitWeight.States.Keys.FirstOrDefault(suffix => parts.Has(name + suffix)) is string state)
        {
            return FourBitWeight.Read(tensor, state, suffix => parts.Find(name + suffix));
        }

        if (tensor.Entry.DType == SafetensorsDType.I8 && tensor.Entry.Shape.Count == 2 && parts.Find(module + EightBitWeight.ScaleSuffix) is { } largest)
        {
            return IsByRows(parts.Find(module + EightBitWeight.OrderSuffix)) ? new EightBitWeight(tensor, largest)
                : new UnreadableWeight(tensor, "INT8", "its numbers are in an order for one kind of GPU");
        }

        format = parts.Find(module + FormatSuffix) is { } settings ? settings.ReadJson().GetString("format") : format;
        if (!isFloat && format is null)
        {
            return null;
        }

        foreach (string suffix in s_otherSuffixes)
        {
            parts.Find(module + suffix);
        }

        StoredTensor[] scales = [.. s_scaleSuffixes.Select(suffix => parts.Find(module + suffix)).OfType<StoredTensor>()];
        if (!isFloat || (format is not null && format != FormatOf(tensor.Entry.DType)))
        {
            return new UnreadableWeight(tensor, format!, "the values of this format cannot be read");
        }

        return scales.Length switch
        {
            0 => new Float8Weight(tensor, null),
            1 => new Float8Weight(tensor, WeightScale.Read(scales[0], tensor.Entry.Shape, scales[0].Entry.Name.EndsWith(GridSuffix, StringComparison.Ordinal))),
            _ => throw tensor.Error($"has {scales.Length} scales, {string.Join(" and ", scales.Select(static scale => scale.Entry.Name))}"),
        };
    }

    // ComfyUI's names of the element types.
    private static string FormatOf(SafetensorsDType type) => type == SafetensorsDType.F8E4M3 ? "float8_e4m3fn" : "float8_e5m2";

    private static bool IsByRows(StoredTensor? order)
    {
        if (order is null || order.Entry.ByteCount == 0)
        {
            return true;
        }

        Span<byte> first = stackalloc byte[1];
        order.ReadBytes(0, first);
        return first[0] == 0;
    }

    /// <summary>The formats of layers by the headers of the files.</summary>
    private static Dictionary<string, string> Formats(IReadOnlyList<SafetensorsReader> files)
    {
        Dictionary<string, string> formats = new(StringComparer.Ordinal);
        foreach (SafetensorsReader file in files)
        {
            if (file.Metadata.TryGetValue(MetadataKey, out string? json) && JsonFields.Parse(json, $"{MetadataKey} in {file.FilePath}", s_errors).FindObject("layers") is { } layers)
            {
                foreach (string layer in layers.Members.Select(static member => member.Key))
                {
                    formats[layer] = layers.GetObject(layer).GetString("format");
                }
            }
        }

        return formats;
    }

    /// <summary>The tensors beside a weight. Those that were found become companions of the weight when it is quantized.</summary>
    private sealed class Parts(Dictionary<string, StoredTensor> tensors, HashSet<string> companions)
    {
        private readonly List<string> _found = [];

        public bool Has(string name) => tensors.ContainsKey(name);

        public StoredTensor? Find(string name)
        {
            if (tensors.GetValueOrDefault(name) is not { } tensor)
            {
                return null;
            }

            _found.Add(name);
            return tensor;
        }

        public void AddToCompanions() => companions.UnionWith(_found);
    }
}
