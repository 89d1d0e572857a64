using System.Buffers.Binary;
using System.Text;

namespace LoKr.Core.Runtime;

/// <summary>
/// The symbol versions of a 64-bit little-endian ELF library: what it defines, what it needs, and whether anything uses it
/// (System V ABI, Linux Standard Base "Symbol Versioning"). Every read is checked; a damaged file is an <see cref="InvalidDataException"/>.
/// </summary>
internal sealed class ElfFile
{
    private const uint SectionRela = 4;
    private const uint SectionDynamicSymbols = 11;
    private const uint SectionVersionDefinitions = 0x6ffffffd;
    private const uint SectionVersionNeeds = 0x6ffffffe;
    private const uint SectionVersionIndices = 0x6fffffff;

    private readonly byte[] _bytes;
    private readonly List<Section> _sections = [];

    private ElfFile(byte[] bytes) => _bytes = bytes;

    /// <summary>Versions that the library defines.</summary>
    public IReadOnlySet<string> DefinedVersions { get; private set; } = new HashSet<string>();

    /// <summary>Versions that the library needs of others, in file order.</summary>
    public IReadOnlyList<ElfVersionNeed> NeededVersions { get; private set; } = [];

    /// <summary>Parses the bytes of a library.</summary>
    public static ElfFile Parse(byte[] bytes)
    {
        ElfFile file = new(bytes);
        file.ReadSections();
        file.DefinedVersions = file.ReadDefinitions();
        file.NeededVersions = file.ReadNeeds();
        return file;
    }

    /// <summary>Names of the dynamic symbols bound to a version index.</summary>
    public IReadOnlyList<string> SymbolsOfVersion(ushort index) =>
        [.. SymbolNumbers(index).Select(number => Text(Linked(SymbolTable()), U32(SymbolTable().At(number * 24L, 24))))];

    /// <summary>Whether any relocation refers to a symbol of this version: whether the library really uses it.</summary>
    public bool IsRelocated(ushort index)
    {
        HashSet<long> numbers = [.. SymbolNumbers(index)];
        foreach (Section section in _sections.Where(section => section.Type == SectionRela))
        {
            for (long position = 0; position + 24 <= section.Size; position += 24)
            {
                // r_info holds the symbol in its upper half (elf64_rela).
                if (numbers.Contains(U32(section.At(position + 12, 4))))
                {
                    return true;
                }
            }
        }

        return false;
    }

    private IEnumerable<long> SymbolNumbers(ushort index)
    {
        Section? indices = _sections.FirstOrDefault(section => section.Type == SectionVersionIndices);
        for (long number = 0; indices is not null && number * 2 + 2 <= indices.Size; number++)
        {
            // The top bit marks a hidden symbol.
            if ((U16(indices.At(number * 2, 2)) & 0x7fff) == index)
            {
                yield return number;
            }
        }
    }

    private void ReadSections()
    {
        if (_bytes.Length < 64 || !_bytes.AsSpan(0, 4).SequenceEqual("\u007fELF"u8) || _bytes[4] != 2 || _bytes[5] != 1)
        {
            throw new InvalidDataException("Not a 64-bit little-endian ELF file.");
        }

        long table = Long(U64(0x28));
        int entrySize = U16(0x3a);
        int count = U16(0x3c);
        if (entrySize < 64 && count > 0)
        {
            throw new InvalidDataException($"Section headers of {entrySize} bytes.");
        }

        for (int i = 0; i < count; i++)
        {
            long at = table + ((long)i * entrySize);
            Section section = new(Long(U64(at + 0x18)), Long(U64(at + 0x20)), U32(at + 4), U32(at + 0x28));

            // Sections without bytes in the file (type 8, .bss) may point past its end.
            if (section.Type != 8 && (section.Offset > _bytes.Length || section.Size > _bytes.Length - section.Offset))
            {
                throw new InvalidDataException($"Section {i} reaches past the end of the file.");
            }

            _sections.Add(section);
        }
    }

    private HashSet<string> ReadDefinitions()
    {
        HashSet<string> names = new(StringComparer.Ordinal);
        foreach (Section section in _sections.Where(section => section.Type == SectionVersionDefinitions))
        {
            foreach (long entry in Chain(section, 0, 20, 16))
            {
                long name = entry + U32(section.At(entry + 12, 4));
                names.Add(Text(Linked(section), U32(section.At(name, 8))));
            }
        }

        return names;
    }

    private List<ElfVersionNeed> ReadNeeds()
    {
        List<ElfVersionNeed> needs = [];
        foreach (Section section in _sections.Where(section => section.Type == SectionVersionNeeds))
        {
            Section names = Linked(section);
            foreach (long library in Chain(section, 0, 16, 12))
            {
                string file = Text(names, U32(section.At(library + 4, 4)));
                foreach (long need in Chain(section, library + U32(section.At(library + 8, 4)), 16, 12))
                {
                    long flags = section.At(need + 4, 2);
                    needs.Add(new ElfVersionNeed(file, Text(names, U32(section.At(need + 8, 4))), U16(section.At(need + 6, 2)), U16(flags), (int)flags));
                }
            }
        }

        return needs;
    }

    // A linked list whose elements hold the distance to the next; the list only runs forward, so it ends.
    private IEnumerable<long> Chain(Section section, long first, int size, int nextAt)
    {
        long position = first;
        while (true)
        {
            section.At(position, size);
            yield return position;
            uint next = U32(section.At(position + nextAt, 4));
            if (next == 0)
            {
                yield break;
            }

            position += next;
        }
    }

    private Section SymbolTable() => _sections.FirstOrDefault(section => section.Type == SectionDynamicSymbols)
        ?? throw new InvalidDataException("No dynamic symbol table.");

    private Section Linked(Section section) => section.Link < _sections.Count
        ? _sections[(int)section.Link]
        : throw new InvalidDataException($"A section refers to section {section.Link} of {_sections.Count}.");

    private string Text(Section section, uint offset)
    {
        section.At(offset, 1);
        ReadOnlySpan<byte> rest = _bytes.AsSpan((int)(section.Offset + offset), (int)(section.Size - offset));
        int end = rest.IndexOf((byte)0);
        return end >= 0 ? Encoding.ASCII.GetString(rest[..end]) : throw new InvalidDataException("A name without an end.");
    }

    private ushort U16(long at) => BinaryPrimitives.ReadUInt16LittleEndian(Bytes(at, 2));

    private uint U32(long at) => BinaryPrimitives.ReadUInt32LittleEndian(Bytes(at, 4));

    private ulong U64(long at) => BinaryPrimitives.ReadUInt64LittleEndian(Bytes(at, 8));

    private ReadOnlySpan<byte> Bytes(long at, int count) => at >= 0 && at <= _bytes.Length - count
        ? _bytes.AsSpan((int)at, count)
        : throw new InvalidDataException($"The file ends before byte {at + count}.");

    private static long Long(ulong value) => value <= int.MaxValue
        ? (long)value
        : throw new InvalidDataException($"An offset or size of {value} bytes.");

    private sealed record Section(long Offset, long Size, uint Type, uint Link)
    {
        /// <summary>Position in the file of a range of the section that must be inside it.</summary>
        public long At(long position, int count) => position >= 0 && position <= Size - count
            ? Offset + position
            : throw new InvalidDataException("An entry reaches past the end of its section.");
    }
}

/// <summary>One symbol version that a shared library asks of another: an entry of <c>.gnu.version_r</c>.</summary>
/// <param name="Library">Library that has to provide it, for example <c>libstdc++.so.6</c>.</param>
/// <param name="Version">Name of the version, for example <c>GLIBCXX_3.4.32</c>.</param>
/// <param name="Index">Number by which <c>.gnu.version</c> refers to it.</param>
/// <param name="Flags">Its flags; 2 (<c>VER_FLG_WEAK</c>) lets the library load without it.</param>
/// <param name="FlagsOffset">Position of the flags in the file.</param>
internal sealed record ElfVersionNeed(string Library, string Version, ushort Index, ushort Flags, int FlagsOffset);
