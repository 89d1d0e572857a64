using System.Buffers;
using System.Runtime.InteropServices;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Safetensors;

/// <summary>
/// A weight of bitsandbytes with 4 bits a value (NF4 or FP4; Dettmers et al., QLoRA, arXiv 2305.14314), as transformers stores it: two
/// indexes of a table of 16 values in a byte, the first one in its upper half, and for each block of values the largest magnitude, which may
/// be quantized itself (double quantization).
/// </summary>
internal sealed class FourBitWeight : StoredWeight
{
    /// <summary>Ends of the names of the tensors that describe the weight, after its own.</summary>
    public static readonly IReadOnlyList<string> Suffixes = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];

    /// <summary>Ends of the name of the tensor with its settings, and the name of the type.</summary>
    public static readonly IReadOnlyDictionary<string, string> States =
        new Dictionary<string, string> { [".quant_state.bitsandbytes__nf4"] = "NF4", [".quant_state.bitsandbytes__fp4"] = "FP4" };

    private readonly float[] _map;
    private readonly int _block;
    private readonly StoredTensor _largest;
    private readonly NestedScale? _nested;

    private FourBitWeight(StoredTensor tensor, string format, IReadOnlyList<long> shape, float[] map, int block, StoredTensor largest, NestedScale? nested)
        : base(tensor) => (Format, Shape, _map, _block, _largest, _nested) = (format, shape, map, block, largest, nested);

    /// <inheritdoc/>
    public override string Format { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<long> Shape { get; }

    /// <summary>Reads what describes a weight.</summary>
    /// <param name="tensor">Its codes.</param>
    /// <param name="state">The end of the name of its settings.</param>
    /// <param name="find">Finds a tensor by the end of its name after that of the weight.</param>
    /// <exception cref="LoKrException"><c>LoKr.QuantizationInvalid</c>: a part is missing or does not fit.</exception>
    public static FourBitWeight Read(StoredTensor tensor, string state, Func<string, StoredTensor?> find)
    {
        StoredTensor Part(string suffix) => find(suffix) ?? throw tensor.Error($"has no '{tensor.Entry.Name}{suffix}' beside it");
        StoredTensor settings = Part(state);
        JsonFields fields = settings.ReadJson();
        long[] shape = [.. fields.GetInts("shape").Select(static size => (long)size)];
        int block = fields.GetSize("blocksize");
        long count = 2 * tensor.Entry.ByteCount;
        foreach (long size in shape)
        {
            count = size > 0 ? count / size : 0;
        }

        // The last byte may hold one value.
        count = count > 0 ? shape.Product() : -1;
        StoredTensor largest = Part(Suffixes[0]);
        StoredTensor map = Part(Suffixes[1]);
        NestedScale? nested = null;
        if (find(Suffixes[2]) is { } outer)
        {
            StoredTensor codes = Part(Suffixes[3]);
            nested = new(outer, codes.Count == 256 ? codes.ReadFloats(0, 256) : throw codes.Error("does not have 256 values"), fields.GetSize("nested_blocksize"), (float)fields.GetDouble("nested_offset"));
        }

        return (count + 1) / 2 == tensor.Entry.ByteCount && map.Count == 16 && largest.Count == (count + block - 1) / block
            && (nested is null || (largest.Entry.DType == SafetensorsDType.U8 && nested.Largest.Count == (largest.Count + nested.Block - 1) / nested.Block))
            ? new(tensor, States[state], shape, map.ReadFloats(0, 16), block, largest, nested)
            : throw settings.Error("does not fit the tensors beside it");
    }

    /// <inheritdoc/>
    public override void Read(long start, Span<float> values)
    {
        if (values.IsEmpty)
        {
            return;
        }

        int count = (int)(((start + values.Length + 1) / 2) - (start / 2));
        byte[] codes = ArrayPool<byte>.Shared.Rent(count);
        try
        {
            Tensor.ReadBytes(start / 2, codes.AsSpan(0, count));
            long first = start / _block;
            float[] scales = Scales(first, (int)(((start + values.Length - 1) / _block) - first + 1));
            for (int i = 0; i < values.Length; i++)
            {
                long index = start + i;
                byte pair = codes[(index / 2) - (start / 2)];
                values[i] = _map[(index & 1) == 0 ? pair >> 4 : pair & 15] * scales[(index / _block) - first];
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(codes);
        }
    }

    private float[] Scales(long first, int count)
    {
        if (_nested is null)
        {
            return _largest.ReadFloats(first, count);
        }

        byte[] codes = new byte[count];
        _largest.ReadBytes(first, codes);
        long firstOuter = first / _nested.Block;
        float[] outer = _nested.Largest.ReadFloats(firstOuter, (int)(((first + count - 1) / _nested.Block) - firstOuter + 1));
        float[] scales = new float[count];
        for (int i = 0; i < count; i++)
        {
            scales[i] = (_nested.Map[codes[i]] * outer[((first + i) / _nested.Block) - firstOuter]) + _nested.Offset;
        }

        return scales;
    }

    private sealed record NestedScale(StoredTensor Largest, float[] Map, long Block, float Offset);
}

/// <summary>A weight of bitsandbytes with 8 bits a value (Dettmers et al., LLM.int8(), arXiv 2208.07339): integers, and the largest magnitude of each row.</summary>
/// <param name="tensor">The integers.</param>
/// <param name="largest">The largest magnitudes.</param>
internal sealed class EightBitWeight(StoredTensor tensor, StoredTensor largest) : StoredWeight(tensor)
{
    /// <summary>End of the name of the largest magnitudes, after that of the module.</summary>
    public const string ScaleSuffix = ".SCB";

    /// <summary>End of the name of the order of the integers, after that of the module; 0 is by rows.</summary>
    public const string OrderSuffix = ".weight_format";

    private const float Step = 1f / 127;

    private readonly long _columns = tensor.Entry.Shape.Skip(1).Product();
    private readonly float[] _scales = largest.Count == tensor.Entry.Shape[0] ? largest.ReadFloats(0, (int)largest.Count) : throw largest.Error($"does not have one number for each of {tensor.Entry.Shape[0]} rows");

    /// <inheritdoc/>
    public override string Format => "INT8";

    /// <inheritdoc/>
    public override void Read(long start, Span<float> values)
    {
        byte[] bytes = ArrayPool<byte>.Shared.Rent(values.Length);
        try
        {
            Tensor.ReadBytes(start, bytes.AsSpan(0, values.Length));
            ReadOnlySpan<sbyte> codes = MemoryMarshal.Cast<byte, sbyte>(bytes.AsSpan(0, values.Length));
            for (int i = 0; i < codes.Length;)
            {
                (long row, long column) = Math.DivRem(start + i, _columns);
                float scale = _scales[row];
                int end = (int)Math.Min(codes.Length, i + _columns - column);
                for (; i < end; i++)
                {
                    values[i] = codes[i] * scale * Step;
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bytes);
        }
    }
}
