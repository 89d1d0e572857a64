using System.Globalization;
using System.Text;

namespace LoKr.Reliability;

/// <summary>Changes valid files the way damage, other programs and malice do: bytes, pieces, numbers, values of JSON, and parts of another valid file.</summary>
internal static class Mutator
{
    // Cut emoji, other types, numbers without end, repeated keys, nesting, control characters, names that lead elsewhere.
    private static readonly byte[][] s_parts =
    [
        .. ((string[])[
            "\"\\ud83d\"", "\"\\udc00x\"", "\\ud800", "null", "[]", "{}", "-1", "1e999", "-1e-400", "99999999999999999999", "2147483647", "2147483648", "9223372036854775807",
            "4294967296", "true", "\"\"", "\"\\u0000\"", "[[[[[[[[", "{\"a\":{\"a\":", "\"a\":1,\"a\":1", "é", "{\"\\ud800\":1}", ",", ":", "\n", "\r", "\"", "'", "0.5", "-0", "NaN",
            "Infinity", "0x10", "\t", "﻿", "../../etc/passwd", "/dev/zero", "\\", "\"\"\"", ";", " ", "(a+)+$", "(((((", "(?P<x>", ".lokr_w1", ".alpha", "lora_unet_", "F8_E4M3", "BF16", "I64", "[0,0]", "//",
        ]).Select(Encoding.UTF8.GetBytes),
        [0x00], [0xff], [0xff, 0xff, 0xff, 0xff], [0x7f, 0xff, 0xff, 0xff], [0x80, 0x00, 0x00, 0x00], [0xc3], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xff, 0xfe],
    ];

    /// <summary>One of an endless series of variants; the same seed and index give the same one.</summary>
    public static byte[] Mutate(IReadOnlyList<byte[]> valid, int seed, string reader, long index)
    {
        Random random = new(Stable($"{seed}:{reader}:{index}") & int.MaxValue);
        List<byte> bytes = [.. valid[random.Next(valid.Count)]];
        for (int change = random.Next(4) switch { 0 => random.Next(2, 12), 1 => random.Next(2, 4), _ => 1 }; change > 0; change--)
        {
            Change(bytes, valid, random);
        }

        return [.. bytes];
    }

    private static void Change(List<byte> bytes, IReadOnlyList<byte[]> valid, Random random)
    {
        if (bytes.Count == 0)
        {
            bytes.AddRange(s_parts[random.Next(s_parts.Length)]);
            return;
        }

        int at = random.Next(bytes.Count);
        switch (random.Next(12))
        {
            case 0:
                bytes[at] = (byte)random.Next(256);
                break;
            case 1:
                bytes[at] ^= (byte)(1 << random.Next(8));
                break;
            case 2:
                bytes.InsertRange(at, s_parts[random.Next(s_parts.Length)]);
                break;
            case 3:
                Replace(bytes, at, Math.Min(random.Next(1, 9), bytes.Count - at), s_parts[random.Next(s_parts.Length)]);
                break;
            case 4:
                bytes.RemoveRange(at, Math.Min(random.Next(1, 33), bytes.Count - at));
                break;
            case 5:
                bytes.RemoveRange(at, bytes.Count - at);
                break;
            case 6:
                byte[] piece = [.. bytes.GetRange(at, Math.Min(random.Next(1, 65), bytes.Count - at))];
                bytes.InsertRange(random.Next(bytes.Count + 1), piece);
                break;
            case 7:
                byte[] other = valid[random.Next(valid.Count)];
                int start = random.Next(other.Length + 1);
                bytes.InsertRange(at, other.AsSpan(start, Math.Min(random.Next(1, 129), other.Length - start)).ToArray());
                break;
            case 8:
                ChangeNumber(bytes, at, random);
                break;
            case 9:
                // A number of bytes in the header of a binary file, or a length.
                for (int i = 0; i < Math.Min(8, bytes.Count) && random.Next(3) > 0; i++)
                {
                    bytes[Math.Min(at + i, bytes.Count - 1)] = random.Next(2) == 0 ? (byte)0 : (byte)random.Next(256);
                }

                break;
            default:
                // A whole value of JSON, or a field of a table.
                int value = bytes.FindIndex(at, static item => item is (byte)':' or (byte)',' or (byte)'[') + 1;
                int end = bytes.FindIndex(value, static item => item is (byte)',' or (byte)'}' or (byte)']' or (byte)'\n');
                if (end > value)
                {
                    Replace(bytes, value, end - value, s_parts[random.Next(s_parts.Length)]);
                }

                break;
        }
    }

    private static void ChangeNumber(List<byte> bytes, int from, Random random)
    {
        int at = bytes.FindIndex(from, static item => item is >= (byte)'0' and <= (byte)'9');
        if (at < 0)
        {
            return;
        }

        int end = at;
        while (end < bytes.Count && bytes[end] is >= (byte)'0' and <= (byte)'9')
        {
            end++;
        }

        long number = long.TryParse(Encoding.ASCII.GetString([.. bytes.GetRange(at, end - at)]), CultureInfo.InvariantCulture, out long parsed) ? parsed : 1;
        long changed = random.Next(7) switch { 0 => number + 1, 1 => number - 1, 2 => -number, 3 => 0, 4 => unchecked(number * 1000), 5 => 1L << random.Next(63), _ => random.Next(1000) };
        Replace(bytes, at, end - at, Encoding.ASCII.GetBytes(changed.ToString(CultureInfo.InvariantCulture)));
    }

    private static void Replace(List<byte> bytes, int at, int count, byte[] part)
    {
        bytes.RemoveRange(at, count);
        bytes.InsertRange(at, part);
    }

    // The hash of a string differs from process to process.
    private static int Stable(string text) => text.Aggregate(17, static (hash, letter) => unchecked((hash * 31) + letter));
}
