using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Text;

namespace LoKr.Models.Tokenization;

/// <summary>
/// The <c>precompiled_charsmap</c> of a SentencePiece model: a double array of darts-clone over UTF-8 whose values are places in a list of texts.
/// The first four bytes are the length of the array; each unit has the offset to its children, the byte that leads to it, and whether a key
/// ends there (the layout of darts-clone's <c>DoubleArrayUnit</c>).
/// </summary>
internal sealed class CharacterMap
{
    private const uint LeafFlag = 1u << 8;
    private const uint LabelMask = 0x800000FF;
    private const uint ValueMask = 0x7FFFFFFF;

    private readonly uint[] _units;
    private readonly byte[] _values;
    private readonly string _file;
    private readonly bool[] _changesAscii = new bool[128];

    /// <param name="data">The map as it stands in the file.</param>
    /// <param name="file">The file, for errors.</param>
    public CharacterMap(ReadOnlySpan<byte> data, string file)
    {
        _file = file;
        uint length = data.Length < 4 ? 0 : BinaryPrimitives.ReadUInt32LittleEndian(data);
        if (length is 0 || length % 4 != 0 || length > (uint)data.Length - 4)
        {
            throw Damaged();
        }

        _units = new uint[length / 4];
        for (int i = 0; i < _units.Length; i++)
        {
            _units[i] = BinaryPrimitives.ReadUInt32LittleEndian(data[(4 + (4 * i))..]);
        }

        _values = data[(4 + (int)length)..].ToArray();
        for (int code = 1; code < _changesAscii.Length; code++)
        {
            _changesAscii[code] = TryShortest([(byte)code], out string? value) && !(value.Length == 1 && value[0] == code);
        }

        // With a line feed behind it, it is one cluster, which may be a key of its own.
        _changesAscii['\r'] = true;
    }

    /// <summary>Whether every character of a text is ASCII and stays as it is.</summary>
    public bool LeavesAlone(string text)
    {
        foreach (char c in text)
        {
            if (c >= 0x80 || _changesAscii[c])
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Finds the shortest key that a text begins with.</summary>
    public bool TryShortest(ReadOnlySpan<byte> utf8, [NotNullWhen(true)] out string? value) => TryFind(utf8, shortest: true, out value, out _);

    /// <summary>Finds the longest key that a text begins with.</summary>
    public bool TryLongest(ReadOnlySpan<byte> utf8, [NotNullWhen(true)] out string? value, out int length) =>
        TryFind(utf8, shortest: false, out value, out length);

    private bool TryFind(ReadOnlySpan<byte> utf8, bool shortest, [NotNullWhen(true)] out string? value, out int length)
    {
        uint found = uint.MaxValue;
        length = 0;
        uint node = Offset(_units[0]);
        for (int i = 0; i < utf8.Length && utf8[i] != 0; i++)
        {
            node ^= utf8[i];
            uint unit = Unit(node);
            if ((unit & LabelMask) != utf8[i])
            {
                break;
            }

            node ^= Offset(unit);
            if ((unit & LeafFlag) != 0)
            {
                (found, length) = (Unit(node) & ValueMask, i + 1);
                if (shortest)
                {
                    break;
                }
            }
        }

        value = found == uint.MaxValue ? null : Text(found);
        return value is not null;
    }

    private static uint Offset(uint unit) => (unit >> 10) << (int)((unit & 0x200) >> 6);

    private uint Unit(uint node) => node < _units.Length ? _units[node] : throw Damaged();

    private string Text(uint at)
    {
        int length = at < _values.Length ? _values.AsSpan((int)at).IndexOf((byte)0) : -1;
        return length >= 0 ? Encoding.UTF8.GetString(_values, (int)at, length) : throw Damaged();
    }

    private Core.Errors.LoKrException Damaged() => TokenizerError.Invalid(_file, "its character map is damaged");
}
