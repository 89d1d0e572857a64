using System.Buffers.Binary;
using System.Collections.Frozen;
using System.Numerics;
using System.Text.Json.Nodes;

namespace LoKr.Core.Gguf;

/// <summary>
/// Types of one to three bits, to values: each index names a point of a lattice, eight or four numbers at once, and signs and scales are
/// stored beside. The lattices are data, in <c>Lattices.json</c>.
/// </summary>
internal static class LatticeBlocks
{
    private const int BlockLength = 256;
    private const int GroupLength = 32;
    private const int GroupCount = BlockLength / GroupLength;

    // What is added to the numbers of the types with one bit, or taken away.
    private const float Shift = 0.125f;

    private static readonly FrozenDictionary<GgmlType, Lattice> s_lattices = Load();

    /// <summary>IQ2_XXS → values.</summary>
    public static void FromIQ2Smallest(ReadOnlySpan<byte> source, Span<float> destination) => Each(source, 66, destination, static (block, group, values) =>
    {
        ReadOnlySpan<byte> indexes = block.Slice(2 + (group * 8), 4);
        uint signs = BinaryPrimitives.ReadUInt32LittleEndian(block[(6 + (group * 8))..]);
        float scale = FloatBlocks.ReadHalf(block, 0) * (0.5f + (signs >> 28)) * 0.25f;
        for (int i = 0; i < 4; i++)
        {
            Signed(s_lattices[GgmlType.IQ2_XXS].Point(indexes[i]), scale, SignsOf(signs >> (7 * i)), values[(i * 8)..]);
        }
    });

    /// <summary>IQ2_XS → values.</summary>
    public static void FromIQ2Small(ReadOnlySpan<byte> source, Span<float> destination) => Each(source, 74, destination, static (block, group, values) =>
    {
        for (int i = 0; i < 4; i++)
        {
            int code = BinaryPrimitives.ReadUInt16LittleEndian(block[(2 + (group * 8) + (i * 2))..]);
            Signed(s_lattices[GgmlType.IQ2_XS].Point(code & 511), HalfScale(block, block[66 + group], i), SignsOf((uint)code >> 9), values[(i * 8)..]);
        }
    });

    /// <summary>IQ2_S → values.</summary>
    public static void FromIQ2(ReadOnlySpan<byte> source, Span<float> destination) => Each(source, 82, destination, static (block, group, values) =>
    {
        for (int i = 0; i < 4; i++)
        {
            int index = block[2 + (group * 4) + i] | ((block[66 + group] << (8 - (2 * i))) & 0x300);
            Signed(s_lattices[GgmlType.IQ2_S].Point(index), HalfScale(block, block[74 + group], i), block[34 + (group * 4) + i], values[(i * 8)..]);
        }
    });

    /// <summary>IQ3_XXS → values.</summary>
    public static void FromIQ3Smallest(ReadOnlySpan<byte> source, Span<float> destination) => Each(source, 98, destination, static (block, group, values) =>
    {
        uint signs = BinaryPrimitives.ReadUInt32LittleEndian(block[(66 + (group * 4))..]);
        float scale = FloatBlocks.ReadHalf(block, 0) * (0.5f + (signs >> 28)) * 0.5f;
        for (int i = 0; i < 8; i++)
        {
            Signed(s_lattices[GgmlType.IQ3_XXS].Point(block[2 + (group * 8) + i]), scale, SignsOf(signs >> (7 * (i / 2))) >> (i % 2 * 4), values[(i * 4)..]);
        }
    });

    /// <summary>IQ3_S → values.</summary>
    public static void FromIQ3(ReadOnlySpan<byte> source, Span<float> destination) => Each(source, 110, destination, static (block, group, values) =>
    {
        float scale = FloatBlocks.ReadHalf(block, 0) * (1 + (2 * ((block[106 + (group / 2)] >> (group % 2 * 4)) & 15)));
        for (int i = 0; i < 8; i++)
        {
            int index = block[2 + (group * 8) + i] | ((block[66 + group] << (8 - i)) & 0x100);
            Signed(s_lattices[GgmlType.IQ3_S].Point(index), scale, (uint)block[74 + (group * 4) + (i / 2)] >> (i % 2 * 4), values[(i * 4)..]);
        }
    });

    /// <summary>IQ1_S → values.</summary>
    public static void FromIQ1Small(ReadOnlySpan<byte> source, Span<float> destination) => Each(source, 50, destination, static (block, group, values) =>
    {
        int high = BinaryPrimitives.ReadUInt16LittleEndian(block[(34 + (group * 2))..]);
        float scale = FloatBlocks.ReadHalf(block, 0) * ((2 * ((high >> 12) & 7)) + 1);
        for (int i = 0; i < 4; i++)
        {
            Shifted(block[2 + (group * 4) + i] | (((high >> (3 * i)) & 7) << 8), scale, (high & 0x8000) != 0, values[(i * 8)..]);
        }
    });

    /// <summary>IQ1_M → values. The four bits on top of each word of scales are the scale of the block.</summary>
    public static void FromIQ1(ReadOnlySpan<byte> source, Span<float> destination) => Each(source, 56, destination, static (block, group, values) =>
    {
        ReadOnlySpan<byte> words = block[48..];
        int bits = 0;
        for (int i = 0; i < 4; i++)
        {
            bits |= BinaryPrimitives.ReadUInt16LittleEndian(words[(i * 2)..]) >> 12 << (4 * i);
        }

        float scale = (float)BitConverter.UInt16BitsToHalf((ushort)bits);
        int scales = BinaryPrimitives.ReadUInt16LittleEndian(words[(group / 2 * 2)..]) >> (group % 2 * 6);
        for (int i = 0; i < 4; i++)
        {
            int high = block[32 + (group * 2) + (i / 2)] >> (i % 2 * 4);
            Shifted(block[(group * 4) + i] | ((high & 7) << 8), scale * ((2 * ((scales >> (i / 2 * 3)) & 7)) + 1), (high & 8) != 0, values[(i * 8)..]);
        }
    });

    private static void Each(ReadOnlySpan<byte> source, int bytes, Span<float> destination, GroupTransform transform)
    {
        for (int block = 0; block < source.Length / bytes; block++)
        {
            for (int group = 0; group < GroupCount; group++)
            {
                transform(source.Slice(block * bytes, bytes), group, destination.Slice((block * BlockLength) + (group * GroupLength), GroupLength));
            }
        }
    }

    private static float HalfScale(ReadOnlySpan<byte> block, byte scales, int part) => FloatBlocks.ReadHalf(block, 0) * (0.5f + ((scales >> (part / 2 * 4)) & 15)) * 0.25f;

    // Seven signs are stored; with the eighth one their number is even.
    private static uint SignsOf(uint code) => (code & 127) | ((uint)(BitOperations.PopCount(code & 127) & 1) << 7);

    private static void Signed(ReadOnlySpan<sbyte> point, float scale, uint signs, Span<float> values)
    {
        for (int i = 0; i < point.Length; i++)
        {
            // A product, because a NaN keeps its bits in it.
            values[i] = scale * point[i] * (((signs >> i) & 1) == 0 ? 1f : -1f);
        }
    }

    private static void Shifted(int index, float scale, bool isNegative, Span<float> values)
    {
        ReadOnlySpan<sbyte> point = s_lattices[GgmlType.IQ1_S].Point(index);
        float shift = isNegative ? -Shift : Shift;
        for (int i = 0; i < point.Length; i++)
        {
            values[i] = scale * (point[i] + shift);
        }
    }

    private static FrozenDictionary<GgmlType, Lattice> Load()
    {
        using Stream stream = typeof(LatticeBlocks).Assembly.GetManifestResourceStream("GgufLattices.json")!;
        return JsonNode.Parse(stream)!.AsObject().ToFrozenDictionary(static pair => Enum.Parse<GgmlType>(pair.Key), static pair => new Lattice(pair.Value!.AsObject()));
    }

    /// <summary>Values of a group of 32 in a block.</summary>
    private delegate void GroupTransform(ReadOnlySpan<byte> block, int group, Span<float> values);

    /// <summary>Points by index; in the data a point is a run of codes of a small table of numbers.</summary>
    private sealed class Lattice
    {
        private readonly int _length;
        private readonly sbyte[] _numbers;

        public Lattice(JsonObject json)
        {
            _length = json["length"]!.GetValue<int>();
            sbyte[] values = [.. json["values"]!.AsArray().Select(static value => value!.GetValue<sbyte>())];
            byte[] codes = Convert.FromBase64String(json["codes"]!.GetValue<string>());
            int bits = values.Length <= 4 ? 2 : 4;
            _numbers = [.. codes.SelectMany(code => Enumerable.Range(0, 8 / bits).Select(i => values[(code >> (bits * i)) & ((1 << bits) - 1)]))];
        }

        public ReadOnlySpan<sbyte> Point(int index) => _numbers.AsSpan(index * _length, _length);
    }
}
