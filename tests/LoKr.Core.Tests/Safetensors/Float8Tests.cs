using LoKr.Core.Safetensors;
using Xunit;

namespace LoKr.Core.Tests.Safetensors;

/// <summary>Floats of 8 bits against their definition: sign, exponent and mantissa, and the nearest of all finite values.</summary>
public sealed class Float8Tests
{
    public static TheoryData<SafetensorsDType> Types => [SafetensorsDType.F8E4M3, SafetensorsDType.F8E5M2];

    [Theory]
    [MemberData(nameof(Types))]
    public void All_codes_have_the_values_of_their_bits(SafetensorsDType type)
    {
        byte[] codes = [.. Enumerable.Range(0, 256).Select(static code => (byte)code)];
        float[] values = new float[codes.Length];
        Float8.Of(type)!.Decode(codes, scale: 1, values);
        float[] tail = new float[1];
        foreach (byte code in codes)
        {
            Assert.Equal(Value(type, code), values[code]);
            Assert.Equal(code >> 7 == 1, float.IsNegative(values[code]));

            // A single code takes another path than a block of them.
            Float8.Of(type)!.Decode(codes.AsSpan(code, 1), scale: 1, tail);
            Assert.Equal(values[code], tail[0]);
        }
    }

    [Theory]
    [MemberData(nameof(Types))]
    public void Every_code_is_the_one_of_its_value(SafetensorsDType type)
    {
        byte[] codes = [.. Enumerable.Range(0, 256).Select(static code => (byte)code).Where(code => !float.IsNaN(Value(type, code)))];
        foreach (float scale in (float[])[1, 0.0123f, 3.7e-5f, 41])
        {
            float[] values = new float[codes.Length];
            byte[] again = new byte[codes.Length];
            Float8.Of(type)!.Decode(codes, scale, values);
            Float8.Of(type)!.Encode(values, scale, again);
            Assert.Equal(codes, again);
        }
    }

    [Theory]
    [MemberData(nameof(Types))]
    public void Values_get_the_nearest_code_with_ties_to_the_even_one(SafetensorsDType type)
    {
        Float8 format = Float8.Of(type)!;
        (byte Code, float Value)[] finite = [.. Enumerable.Range(0, 128).Select(code => ((byte)code, Value(type, (byte)code))).Where(static pair => float.IsFinite(pair.Item2))];
        List<(float Value, byte Code)> expected = [];
        foreach (((byte code, float low), (byte next, float high)) in finite.Zip(finite.Skip(1)))
        {
            // The middle of two neighbors is a float32 too.
            float middle = low + ((high - low) / 2);
            expected.Add((middle, (code & 1) == 0 ? code : next));
            expected.Add((MathF.BitDecrement(middle), code));
            expected.Add((MathF.BitIncrement(middle), next));
            expected.Add((MathF.BitIncrement(low), code));
            expected.Add((MathF.BitDecrement(high), next));
        }

        float[] values = [.. expected.Select(static pair => pair.Value), .. expected.Select(static pair => -pair.Value)];
        byte[] codes = new byte[values.Length];
        format.Encode(values, scale: 1, codes);
        Assert.Equal([.. expected.Select(static pair => pair.Code), .. expected.Select(static pair => (byte)(pair.Code | 0x80))], codes);
    }

    [Theory]
    [InlineData(SafetensorsDType.F8E4M3, 448f, 0x7e, 0x7f)]
    [InlineData(SafetensorsDType.F8E5M2, 57344f, 0x7b, 0x7c)]
    public void Large_values_become_the_largest_and_infinity_does_not(SafetensorsDType type, float largest, byte code, byte infinity)
    {
        Float8 format = Float8.Of(type)!;
        Assert.Equal(largest, format.Largest);
        byte[] codes = new byte[7];
        format.Encode([largest, largest * 1.5f, -largest * 100, float.MaxValue, float.PositiveInfinity, float.NegativeInfinity, float.Epsilon], scale: 1, codes);
        Assert.Equal([code, code, (byte)(code | 0x80), code, infinity, (byte)(infinity | 0x80), 0], codes);
        Assert.Equal(0, format.CountBeyond([largest * 0.3f, -largest * 0.3f, float.NaN], scale: 0.3f));
        Assert.Equal(41, format.CountBeyond([.. Enumerable.Repeat(-largest * 0.31f, 40), largest, largest * 0.3f, 0], scale: 0.3f));
        byte[] nan = new byte[1];
        format.Encode([float.NaN], scale: 1, nan);
        Assert.Equal(0x7f, nan[0] & 0x7f);
    }

    // Powers of two are exact.
    private static float Value(SafetensorsDType type, byte code)
    {
        (int mantissaBits, int bias) = type == SafetensorsDType.F8E4M3 ? (3, 7) : (2, 15);
        int exponent = (code & 0x7f) >> mantissaBits;
        int mantissa = code & ((1 << mantissaBits) - 1);
        double magnitude = exponent == 0 ? mantissa * Math.Pow(2, 1 - bias - mantissaBits) : (1 + (mantissa / Math.Pow(2, mantissaBits))) * Math.Pow(2, exponent - bias);
        if (type == SafetensorsDType.F8E5M2 && exponent == 31)
        {
            magnitude = mantissa == 0 ? double.PositiveInfinity : double.NaN;
        }

        if (type == SafetensorsDType.F8E4M3 && (code & 0x7f) == 0x7f)
        {
            magnitude = double.NaN;
        }

        return (float)(code >> 7 == 1 ? -magnitude : magnitude);
    }
}
