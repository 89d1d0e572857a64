using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace LoKr.Core.Safetensors;

/// <summary>
/// The two floats of 8 bits (Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433) to values and back. E5M2 follows IEEE;
/// E4M3 has no infinities, and NaN only where every bit but the sign is set, which torch calls float8_e4m3fn.
/// </summary>
internal sealed class Float8
{
    // Numbers that are encoded at a time.
    private const int Step = 32;
    private const uint Magnitude = 0x7f;
    private const uint InfinityBits = 0x7f800000;

    private readonly int _shift;
    private readonly uint _bias;
    private readonly uint _firstNormal;
    private readonly uint _firstSpecial;
    private readonly float _unit;
    private readonly float _magic;

    private Float8(SafetensorsDType type, int mantissaBits, uint firstSpecial)
    {
        Type = type;
        int bias = (1 << (6 - mantissaBits)) - 1;
        _shift = 23 - mantissaBits;
        _bias = (uint)(127 - bias) << mantissaBits;
        _firstNormal = 1u << mantissaBits;
        _firstSpecial = firstSpecial;
        _unit = MathF.ScaleB(1, 1 - bias - mantissaBits);

        // The last bit of this number has the weight of the smallest subnormal, so that a sum with it is rounded as subnormals are.
        _magic = MathF.ScaleB(_unit, 23);
        Largest = Decode((byte)(firstSpecial - 1));
    }

    /// <summary>4 exponent and 3 mantissa bits.</summary>
    public static Float8 E4M3 { get; } = new(SafetensorsDType.F8E4M3, mantissaBits: 3, firstSpecial: 0x7f);

    /// <summary>5 exponent and 2 mantissa bits.</summary>
    public static Float8 E5M2 { get; } = new(SafetensorsDType.F8E5M2, mantissaBits: 2, firstSpecial: 0x7c);

    /// <summary>The element type.</summary>
    public SafetensorsDType Type { get; }

    /// <summary>The largest finite value.</summary>
    public float Largest { get; }

    /// <summary>The format of an element type, or null for one that is not a float of 8 bits.</summary>
    public static Float8? Of(SafetensorsDType type) => type switch
    {
        SafetensorsDType.F8E4M3 => E4M3,
        SafetensorsDType.F8E5M2 => E5M2,
        _ => null,
    };

    /// <summary>Codes → values · scale.</summary>
    /// <param name="codes">The codes.</param>
    /// <param name="scale">Factor of every value.</param>
    /// <param name="values">As many values.</param>
    public void Decode(ReadOnlySpan<byte> codes, float scale, Span<float> values)
    {
        Vector256<float> factor = Vector256.Create(scale);
        int i = 0;
        for (; i <= codes.Length - Step; i += Step)
        {
            (Vector256<ushort> low, Vector256<ushort> high) = Vector256.Widen(Vector256.Create(codes[i..]));
            (Vector256<uint> first, Vector256<uint> second) = Vector256.Widen(low);
            (Vector256<uint> third, Vector256<uint> fourth) = Vector256.Widen(high);
            Span<float> to = values.Slice(i, Step);
            (Decode(first) * factor).CopyTo(to);
            (Decode(second) * factor).CopyTo(to[8..]);
            (Decode(third) * factor).CopyTo(to[16..]);
            (Decode(fourth) * factor).CopyTo(to[24..]);
        }

        for (; i < codes.Length; i++)
        {
            values[i] = Decode(codes[i]) * scale;
        }
    }

    /// <summary>
    /// Values / scale → the nearest codes, with ties to even. Finite values beyond the largest one become the largest one; infinity stays
    /// infinity in E5M2 and becomes NaN in E4M3.
    /// </summary>
    /// <param name="values">The values.</param>
    /// <param name="scale">Divisor of every value.</param>
    /// <param name="codes">As many codes.</param>
    public void Encode(ReadOnlySpan<float> values, float scale, Span<byte> codes)
    {
        Vector256<float> divisor = Vector256.Create(scale);
        int i = 0;
        for (; i <= values.Length - Step; i += Step)
        {
            Encode(values.Slice(i, Step), divisor).CopyTo(codes[i..]);
        }

        if (i < values.Length)
        {
            Span<float> rest = stackalloc float[Step];
            rest.Clear();
            values[i..].CopyTo(rest);
            Span<byte> encoded = stackalloc byte[Step];
            Encode(rest, divisor).CopyTo(encoded);
            encoded[..(values.Length - i)].CopyTo(codes[i..]);
        }
    }

    /// <summary>Whether a code is that of the largest finite value, of either sign.</summary>
    /// <param name="codes">The codes.</param>
    public bool HoldsLargest(ReadOnlySpan<byte> codes) => codes.ContainsAny((byte)(_firstSpecial - 1), (byte)((_firstSpecial - 1) | 0x80));

    /// <summary>Counts the values whose magnitude divided by a scale is beyond the largest finite value.</summary>
    /// <param name="values">The values.</param>
    /// <param name="scale">Divisor of every value.</param>
    public long CountBeyond(ReadOnlySpan<float> values, float scale)
    {
        // A product, so that a value that was decoded with the same scale is never beyond it.
        float limit = Largest * scale;
        Vector256<float> limits = Vector256.Create(limit);
        long count = 0;
        int i = 0;
        for (; i <= values.Length - Vector256<float>.Count; i += Vector256<float>.Count)
        {
            count += BitOperations.PopCount(Vector256.GreaterThan(Vector256.Abs(Vector256.Create(values[i..])), limits).ExtractMostSignificantBits());
        }

        for (; i < values.Length; i++)
        {
            count += MathF.Abs(values[i]) > limit ? 1 : 0;
        }

        return count;
    }

    private float Decode(byte code) => Decode(Vector256.Create((uint)code))[0];

    // Subnormal codes are converted as integers: float32's own subnormals would slow the processor down.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Vector256<float> Decode(Vector256<uint> code)
    {
        Vector256<uint> magnitude = code & Vector256.Create(Magnitude);
        Vector256<uint> normal = (magnitude + Vector256.Create(_bias)) << _shift;
        Vector256<uint> subnormal = (Vector256.ConvertToSingle(magnitude.AsInt32()) * Vector256.Create(_unit)).AsUInt32();
        Vector256<uint> finite = Vector256.ConditionalSelect(Less(magnitude, _firstNormal), subnormal, normal);
        Vector256<uint> special = (magnitude << _shift) | Vector256.Create(InfinityBits);
        Vector256<uint> value = Vector256.ConditionalSelect(Less(magnitude, _firstSpecial), finite, special);
        return (value | ((code & Vector256.Create(0x80u)) << 24)).AsSingle();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Vector256<byte> Encode(ReadOnlySpan<float> values, Vector256<float> divisor)
    {
        ref float start = ref MemoryMarshal.GetReference(values);
        return Vector256.Narrow(
            Vector256.Narrow(Encode(Vector256.LoadUnsafe(ref start, 0) / divisor), Encode(Vector256.LoadUnsafe(ref start, 8) / divisor)),
            Vector256.Narrow(Encode(Vector256.LoadUnsafe(ref start, 16) / divisor), Encode(Vector256.LoadUnsafe(ref start, 24) / divisor)));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Vector256<uint> Encode(Vector256<float> value)
    {
        Vector256<uint> bits = value.AsUInt32();
        Vector256<uint> sign = (bits >>> 24) & Vector256.Create(0x80u);
        Vector256<uint> magnitude = bits & Vector256.Create(0x7fffffffu);
        Vector256<uint> clamped = Vector256.Min(magnitude, Vector256.Create(BitConverter.SingleToUInt32Bits(Largest)));

        // Rounding adds half a unit of the last bit that stays, less one for an even number.
        Vector256<uint> odd = (clamped >>> _shift) & Vector256<uint>.One;
        Vector256<uint> normal = ((clamped + odd + Vector256.Create((1u << (_shift - 1)) - 1)) >>> _shift) - Vector256.Create(_bias);
        Vector256<uint> subnormal = (clamped.AsSingle() + Vector256.Create(_magic)).AsUInt32() - Vector256.Create(BitConverter.SingleToUInt32Bits(_magic));
        Vector256<uint> finite = Vector256.ConditionalSelect(Less(clamped, (_firstNormal + _bias) << _shift), subnormal, normal);
        Vector256<uint> special = Vector256.ConditionalSelect(Vector256.Equals(magnitude, Vector256.Create(InfinityBits)), Vector256.Create(_firstSpecial), Vector256.Create(Magnitude));
        return Vector256.ConditionalSelect(Less(magnitude, InfinityBits), finite, special) | sign;
    }

    // Both are below 2³¹, and processors compare signed numbers.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<uint> Less(Vector256<uint> left, uint right) => Vector256.LessThan(left.AsInt32(), Vector256.Create((int)right)).AsUInt32();
}
