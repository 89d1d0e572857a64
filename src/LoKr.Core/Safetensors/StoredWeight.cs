using System.Buffers;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Safetensors;

/// <summary>A tensor of an open file.</summary>
/// <param name="File">The file.</param>
/// <param name="Entry">The tensor.</param>
internal sealed record StoredTensor(SafetensorsReader File, SafetensorsEntry Entry)
{
    private const int LargestJson = 1 << 16;

    private static readonly JsonErrors s_errors = new(ErrorIds.QuantizationInvalid, ErrorIds.QuantizationUnsupported, "Get the file again.");

    /// <summary>Number of elements.</summary>
    public long Count => Entry.Shape.Product();

    /// <summary>Reads bytes as they are in the file.</summary>
    /// <param name="start">First byte counted from the beginning of the tensor.</param>
    /// <param name="destination">Filled completely.</param>
    public void ReadBytes(long start, Span<byte> destination) => File.ReadBytes(Entry, start, destination);

    /// <summary>Reads numbers that are F32, F16 or BF16.</summary>
    /// <param name="start">Index of the first one.</param>
    /// <param name="count">How many.</param>
    public float[] ReadFloats(long start, int count)
    {
        byte[] bytes = new byte[count * SafetensorsDTypes.Size(Entry.DType)];
        ReadBytes(start * SafetensorsDTypes.Size(Entry.DType), bytes);
        return Entry.DType switch
        {
            SafetensorsDType.F32 => MemoryMarshal.Cast<byte, float>(bytes).ToArray(),
            SafetensorsDType.F16 => Array.ConvertAll(MemoryMarshal.Cast<byte, Half>(bytes).ToArray(), static value => (float)value),
            SafetensorsDType.BF16 => Array.ConvertAll(MemoryMarshal.Cast<byte, ushort>(bytes).ToArray(), static value => BitConverter.UInt32BitsToSingle((uint)value << 16)),
            _ => throw Error($"is {SafetensorsDTypes.Name(Entry.DType)}, and not F32, F16 or BF16"),
        };
    }

    /// <summary>Reads a tensor of bytes that are JSON.</summary>
    /// <exception cref="LoKrException"><c>LoKr.QuantizationInvalid</c>.</exception>
    public JsonFields ReadJson()
    {
        if (Entry.ByteCount > LargestJson)
        {
            throw Error($"has {Entry.ByteCount} bytes, too many for settings");
        }

        byte[] json = new byte[Entry.ByteCount];
        ReadBytes(0, json);
        return JsonFields.Parse(json, $"{Entry.Name} in {File.FilePath}", s_errors);
    }

    /// <summary>The error for a tensor that does not describe a quantized weight as it should.</summary>
    /// <param name="what">What is wrong with it, after its name.</param>
    public LoKrException Error(string what) => new(ErrorIds.QuantizationInvalid, LoKrErrorKind.InvalidData, $"'{Entry.Name}' in '{File.FilePath}' {what}.",
        "Get the file again, or use the model's float32, float16 or bfloat16 weights.") { Target = Entry.Name };
}

/// <summary>How values become bytes of a file and back. Positions count elements of the whole weight.</summary>
internal interface IWeightCodec
{
    /// <summary>Element type in the file.</summary>
    SafetensorsDType DType { get; }

    /// <summary>Name of the type in reports.</summary>
    string Format { get; }

    /// <summary>Bytes → values.</summary>
    /// <param name="stored">Bytes of whole elements.</param>
    /// <param name="start">Index of the first element.</param>
    /// <param name="values">As many values.</param>
    void Decode(ReadOnlySpan<byte> stored, long start, Span<float> values);

    /// <summary>Values → the bytes of the nearest ones that the type has.</summary>
    /// <param name="values">The values.</param>
    /// <param name="start">Index of the first element.</param>
    /// <param name="stored">Bytes of as many elements.</param>
    void Encode(ReadOnlySpan<float> values, long start, Span<byte> stored);

    /// <summary>Counts the values that are beyond the largest one that the type holds; 0 for types whose range does not matter.</summary>
    /// <param name="values">The values.</param>
    /// <param name="start">Index of the first element.</param>
    /// <param name="stored">What they are stored as.</param>
    long CountBeyond(ReadOnlySpan<float> values, long start, ReadOnlySpan<byte> stored);
}

/// <summary>A weight whose values are not simply the numbers in the file: floats of 8 bits, with or without scales, or the codes of a quantizer.</summary>
/// <param name="tensor">The tensor that holds it.</param>
internal abstract class StoredWeight(StoredTensor tensor)
{
    /// <summary>The tensor that holds it.</summary>
    public StoredTensor Tensor => tensor;

    /// <summary>Name of the type for people.</summary>
    public abstract string Format { get; }

    /// <summary>Shape of the values.</summary>
    public virtual IReadOnlyList<long> Shape => tensor.Entry.Shape;

    /// <summary>How values are written back; null where they cannot be.</summary>
    public virtual IWeightCodec? Codec => null;

    /// <summary>Why values cannot be read; null where they can.</summary>
    public virtual LoKrException? Problem => null;

    /// <summary>Reads consecutive values in row-major order, in float32.</summary>
    /// <param name="start">Index of the first one.</param>
    /// <param name="values">Where to put them.</param>
    public abstract void Read(long start, Span<float> values);
}

/// <summary>A weight of 8-bit floats; its values are the floats times a scale.</summary>
/// <param name="tensor">The tensor that holds it.</param>
/// <param name="scale">The scale; null for a plain cast.</param>
internal sealed class Float8Weight(StoredTensor tensor, WeightScale? scale) : StoredWeight(tensor)
{
    private readonly Float8Codec _codec = new(Float8.Of(tensor.Entry.DType)!, scale ?? WeightScale.One(tensor.Entry.Shape));

    /// <summary>The scale; null for a plain cast.</summary>
    public WeightScale? Scale => scale;

    /// <inheritdoc/>
    public override string Format => _codec.Format;

    /// <inheritdoc/>
    public override Float8Codec Codec => _codec;

    /// <inheritdoc/>
    public override void Read(long start, Span<float> values)
    {
        byte[] codes = ArrayPool<byte>.Shared.Rent(values.Length);
        try
        {
            Tensor.ReadBytes(start, codes.AsSpan(0, values.Length));
            _codec.Decode(codes.AsSpan(0, values.Length), start, values);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(codes);
        }
    }
}

/// <summary>8-bit floats with a scale for the whole weight or for each of its blocks.</summary>
/// <param name="format">The format of the floats.</param>
/// <param name="scale">The scale.</param>
internal sealed class Float8Codec(Float8 format, WeightScale scale) : IWeightCodec
{
    /// <inheritdoc/>
    public SafetensorsDType DType => format.Type;

    /// <inheritdoc/>
    public string Format => SafetensorsDTypes.Name(format.Type);

    /// <summary>The largest value that a scale of 1 can hold.</summary>
    public float Largest => format.Largest;

    /// <summary>The same floats with another scale.</summary>
    public Float8Codec With(WeightScale other) => new(format, other);

    /// <inheritdoc/>
    public void Decode(ReadOnlySpan<byte> stored, long start, Span<float> values)
    {
        for (int done = 0; done < stored.Length;)
        {
            (int block, int count) = scale.At(start + done, stored.Length - done);
            format.Decode(stored.Slice(done, count), scale.Values[block], values.Slice(done, count));
            done += count;
        }
    }

    /// <inheritdoc/>
    public void Encode(ReadOnlySpan<float> values, long start, Span<byte> stored)
    {
        for (int done = 0; done < values.Length;)
        {
            (int block, int count) = scale.At(start + done, values.Length - done);
            format.Encode(values.Slice(done, count), scale.Values[block], stored.Slice(done, count));
            done += count;
        }
    }

    /// <inheritdoc/>
    public long CountBeyond(ReadOnlySpan<float> values, long start, ReadOnlySpan<byte> stored)
    {
        long beyond = 0;
        for (int done = format.HoldsLargest(stored) ? 0 : values.Length; done < values.Length;)
        {
            (int block, int count) = scale.At(start + done, values.Length - done);
            beyond += format.CountBeyond(values.Slice(done, count), scale.Values[block]);
            done += count;
        }

        return beyond;
    }
}

/// <summary>Scales of the blocks of a weight: one for all of it, one a row, or a grid.</summary>
/// <param name="Tensor">Where they are stored; null for a scale of 1 that is not.</param>
/// <param name="Values">The scales, row by row.</param>
/// <param name="Columns">Elements in a row of the weight.</param>
/// <param name="RowBlock">Rows that share a scale.</param>
/// <param name="ColumnBlock">Columns that share a scale.</param>
internal sealed record WeightScale(StoredTensor? Tensor, float[] Values, long Columns, long RowBlock, long ColumnBlock)
{
    /// <summary>Rows and columns of a block where the name of the scale says that there is a grid.</summary>
    private const long GridBlock = 128;

    /// <summary>A scale that changes nothing.</summary>
    /// <param name="shape">Shape of the weight.</param>
    public static WeightScale One(IReadOnlyList<long> shape) => Whole(null, [1], shape);

    /// <summary>Reads the scale of a weight.</summary>
    /// <param name="tensor">The scale.</param>
    /// <param name="shape">Shape of the weight.</param>
    /// <param name="isGrid">Whether it has one number for 128×128 elements.</param>
    /// <exception cref="LoKrException"><c>LoKr.QuantizationInvalid</c>: its type or shape does not fit the weight, or a scale is not a positive number.</exception>
    public static WeightScale Read(StoredTensor tensor, IReadOnlyList<long> shape, bool isGrid)
    {
        long count = tensor.Count;
        IReadOnlyList<long> given = tensor.Entry.Shape;
        long rows = shape.Count > 0 ? shape[0] : 1;
        long columns = shape.Skip(1).Product();
        LoKrException Unfit() => tensor.Error($"has shape [{string.Join(", ", given)}], which is not that of a scale for a weight of [{string.Join(", ", shape)}]");
        if (count is 0 or > int.MaxValue / sizeof(double) || count > Math.Max(1, rows * columns))
        {
            throw Unfit();
        }

        float[] values = tensor.ReadFloats(0, (int)count);
        foreach (float value in values)
        {
            if (!(value > 0) || float.IsInfinity(value))
            {
                throw tensor.Error($"holds {value}, which is not a scale");
            }
        }

        if (count == 1)
        {
            return Whole(tensor, values, shape);
        }

        if (isGrid)
        {
            return given.Count == 2 && given[0] == Blocks(rows) && given[1] == Blocks(columns) ? new(tensor, values, columns, GridBlock, GridBlock) : throw Unfit();
        }

        // [rows], [rows, 1], or [rows, blocks of columns, 1].
        return given[0] == rows && columns % (count / rows) == 0 && given.Skip(2).All(static size => size == 1) ? new(tensor, values, columns, 1, columns / (count / rows)) : throw Unfit();
    }

    /// <summary>The block of an element, and how many elements from there on are in it.</summary>
    /// <param name="index">The element.</param>
    /// <param name="most">No more than these.</param>
    public (int Block, int Count) At(long index, int most)
    {
        if (Values.Length == 1)
        {
            return (0, most);
        }

        (long row, long column) = Math.DivRem(index, Columns);
        long across = column / ColumnBlock;
        long end = Math.Min(Columns, (across + 1) * ColumnBlock);
        return ((int)((row / RowBlock * ((Columns + ColumnBlock - 1) / ColumnBlock)) + across), (int)Math.Min(most, end - column));
    }

    /// <summary>Raises the largest magnitude of each block to those of some values; NaN counts as infinity.</summary>
    /// <param name="values">The values.</param>
    /// <param name="start">Index of the first one in the weight.</param>
    /// <param name="largest">The largest magnitude so far for each scale.</param>
    public void Measure(ReadOnlySpan<float> values, long start, Span<float> largest)
    {
        for (int done = 0; done < values.Length;)
        {
            (int block, int count) = At(start + done, values.Length - done);
            largest[block] = Math.Max(largest[block], LargestMagnitude(values.Slice(done, count)));
            done += count;
        }
    }

    // Magnitudes compare as integers do, and NaN is above infinity.
    private static float LargestMagnitude(ReadOnlySpan<float> values)
    {
        ReadOnlySpan<uint> bits = MemoryMarshal.Cast<float, uint>(values);
        Vector256<uint> mask = Vector256.Create(0x7fffffffu);
        Vector256<uint> most = Vector256<uint>.Zero;
        int i = 0;
        for (; i <= bits.Length - Vector256<uint>.Count; i += Vector256<uint>.Count)
        {
            most = Vector256.Max(most, Vector256.Create(bits[i..]) & mask);
        }

        uint largest = 0;
        for (int lane = 0; lane < Vector256<uint>.Count; lane++)
        {
            largest = Math.Max(largest, most[lane]);
        }

        for (; i < bits.Length; i++)
        {
            largest = Math.Max(largest, bits[i] & 0x7fffffffu);
        }

        return BitConverter.UInt32BitsToSingle(Math.Min(largest, 0x7f800000u));
    }

    private static WeightScale Whole(StoredTensor? tensor, float[] values, IReadOnlyList<long> shape)
    {
        long columns = Math.Max(1, shape.Skip(1).Product());
        return new(tensor, values, columns, Math.Max(1, shape.Count > 0 ? shape[0] : 1), columns);
    }

    private static long Blocks(long length) => (length + GridBlock - 1) / GridBlock;
}

/// <summary>A quantized weight of a format whose values this library cannot read. It can be copied.</summary>
/// <param name="tensor">The tensor that holds its codes.</param>
/// <param name="format">Name of the format.</param>
/// <param name="why">What is not supported.</param>
internal sealed class UnreadableWeight(StoredTensor tensor, string format, string why) : StoredWeight(tensor)
{
    /// <inheritdoc/>
    public override string Format => format;

    /// <inheritdoc/>
    public override LoKrException Problem => new(ErrorIds.QuantizationUnsupported, LoKrErrorKind.NotSupported,
        $"'{Tensor.Entry.Name}' in '{Tensor.File.FilePath}' is stored as {format}: {why}.", "Use a checkpoint of this model with floating-point weights.") { Target = Tensor.Entry.Name };

    /// <inheritdoc/>
    public override void Read(long start, Span<float> values) => throw Problem;
}
