namespace LoKr.Core.Data;

/// <summary>
/// Checks the footer of a Parquet file: Thrift's compact protocol, with the types that the format gives its fields. The library reads a field as the
/// type that it should have, and reads on for ever behind the end of a footer where that leads there.
/// </summary>
/// <remarks>Format: <c>parquet.thrift</c> of Apache Parquet; Thrift's compact protocol.</remarks>
internal static class ParquetFooter
{
    private const int Boolean = 1;
    private const int Byte = 3;
    private const int Int16 = 4;
    private const int Int32 = 5;
    private const int Int64 = 6;
    private const int Double = 7;
    private const int Binary = 8;
    private const int List = 9;
    private const int Set = 10;
    private const int Map = 11;
    private const int Structure = 12;

    private static readonly Fields s_file = FileMetaData();

    /// <summary>Throws for a footer that does not end within its bytes, or has a field of another type.</summary>
    /// <param name="footer">All bytes between the data and the length.</param>
    /// <exception cref="InvalidDataException">It is not one.</exception>
    public static void Check(ReadOnlySpan<byte> footer)
    {
        Walk walk = new(footer);
        walk.CheckStructure(s_file, depth: 0);
    }

    private static Fields FileMetaData()
    {
        Fields empty = [];
        Fields pair = new() { [1] = Binary, [2] = Binary };
        Fields unit = new() { [1] = new(empty), [2] = new(empty), [3] = new(empty) };
        Fields time = new() { [1] = Boolean, [2] = new(unit) };
        Fields logical = new()
        {
            [1] = new(empty), [2] = new(empty), [3] = new(empty), [4] = new(empty), [5] = new(new Fields { [1] = Int32, [2] = Int32 }), [6] = new(empty), [7] = new(time),
            [8] = new(time), [10] = new(new Fields { [1] = Byte, [2] = Boolean }), [11] = new(empty), [12] = new(empty), [13] = new(empty), [14] = new(empty), [15] = new(empty),
        };
        Fields element = new()
        {
            [1] = Int32, [2] = Int32, [3] = Int32, [4] = Binary, [5] = Int32, [6] = Int32, [7] = Int32, [8] = Int32, [9] = Int32, [10] = new(logical),
        };
        Fields statistics = new() { [1] = Binary, [2] = Binary, [3] = Int64, [4] = Int64, [5] = Binary, [6] = Binary, [7] = Boolean, [8] = Boolean };
        Fields pages = new() { [1] = Int32, [2] = Int32, [3] = Int32 };
        Fields sizes = new() { [1] = Int64, [2] = new(Int64), [3] = new(Int64) };
        Fields column = new()
        {
            [1] = Int32, [2] = new(Int32), [3] = new(Binary), [4] = Int32, [5] = Int64, [6] = Int64, [7] = Int64, [8] = new(Structure, pair), [9] = Int64, [10] = Int64,
            [11] = Int64, [12] = new(statistics), [13] = new(Structure, pages), [14] = Int64, [15] = Int32, [16] = new(sizes),
        };
        Fields chunk = new() { [1] = Binary, [2] = Int64, [3] = new(column), [4] = Int64, [5] = Int32, [6] = Int64, [7] = Int32, [9] = Binary };
        Fields order = new() { [1] = Int32, [2] = Boolean, [3] = Boolean };
        Fields group = new() { [1] = new(Structure, chunk), [2] = Int64, [3] = Int64, [4] = new(Structure, order), [5] = Int64, [6] = Int64, [7] = Int16 };
        return new()
        {
            [1] = Int32, [2] = new(Structure, element), [3] = Int64, [4] = new(Structure, group), [5] = new(Structure, pair), [6] = Binary,
            [7] = new(Structure, new Fields { [1] = new(empty) }), [9] = Binary,
        };
    }

    /// <summary>The fields of a structure by their numbers; others are passed over.</summary>
    private sealed class Fields : Dictionary<int, Wire>;

    /// <summary>How a field is written.</summary>
    /// <param name="Type">Its type.</param>
    /// <param name="Element">For a list, the type of its elements.</param>
    /// <param name="Of">The fields of the structure, or of each structure of a list.</param>
    private sealed record Wire(int Type, int Element, Fields? Of)
    {
        /// <summary>A structure.</summary>
        public Wire(Fields of)
            : this(Structure, 0, of)
        {
        }

        /// <summary>A list.</summary>
        public Wire(int element, Fields? of = null)
            : this(List, element, of)
        {
        }

        public static implicit operator Wire(int type) => new(type, 0, null);
    }

    private ref struct Walk(ReadOnlySpan<byte> rest)
    {
        private const int DeepestStructure = 32;

        private ReadOnlySpan<byte> _rest = rest;

        public void CheckStructure(Fields? fields, int depth)
        {
            if (depth > DeepestStructure)
            {
                throw new InvalidDataException("its footer is nested too deep");
            }

            int number = 0;
            while (ReadByte() is byte header and not 0)
            {
                // The difference to the number of the field before, or 0, and the number follows (zigzag).
                ulong written = header >> 4 == 0 ? ReadVariable() : 0;
                number = header >> 4 == 0 ? (int)(written >> 1) ^ -(int)(written & 1) : number + (header >> 4);
                Wire? wire = fields?.GetValueOrDefault(number);
                int type = (header & 15) == Boolean + 1 ? Boolean : header & 15;
                if (wire is not null && wire.Type != type)
                {
                    throw new InvalidDataException("its footer has a value of another type");
                }

                Check(type, wire, isField: true, depth);
            }
        }

        private void Check(int type, Wire? wire, bool isField, int depth)
        {
            switch (type)
            {
                case Boolean or Boolean + 1:
                    Take(isField ? 0 : 1UL);
                    break;
                case Byte:
                    Take(1);
                    break;
                case Int16 or Int32 or Int64:
                    _ = ReadVariable();
                    break;
                case Double:
                    Take(8);
                    break;
                case Binary:
                    Take(ReadVariable());
                    break;
                case List or Set:
                    byte list = ReadByte();
                    if (wire is not null && wire.Element != (list & 15) && list >> 4 != 0)
                    {
                        throw new InvalidDataException("its footer has a list of another type");
                    }

                    CheckAll(list >> 4 == 15 ? ReadVariable() : (ulong)list >> 4, list & 15, null, wire, depth);
                    break;
                case Map:
                    ulong count = ReadVariable();
                    byte types = count == 0 ? (byte)0 : ReadByte();
                    CheckAll(count, types >> 4, types & 15, null, depth);
                    break;
                case Structure:
                    CheckStructure(wire?.Of, depth + 1);
                    break;
                default:
                    throw new InvalidDataException("its footer has a value of an unknown type");
            }
        }

        private void CheckAll(ulong count, int type, int? valueType, Wire? wire, int depth)
        {
            // Every element has at least one byte, so a count that is too large runs into the end.
            for (ulong i = 0; i < count; i++)
            {
                Check(type, wire is null ? null : new Wire(type, 0, wire.Of), isField: false, depth + 1);
                if (valueType is int second)
                {
                    Check(second, null, isField: false, depth + 1);
                }
            }
        }

        private ulong ReadVariable()
        {
            ulong value = 0;
            for (int shift = 0; shift < 64; shift += 7)
            {
                byte part = ReadByte();
                value |= (ulong)(part & 127) << shift;
                if (part < 128)
                {
                    return value;
                }
            }

            throw new InvalidDataException("its footer has a number without end");
        }

        private byte ReadByte()
        {
            byte value = _rest.IsEmpty ? throw new InvalidDataException("its footer ends too early") : _rest[0];
            _rest = _rest[1..];
            return value;
        }

        private void Take(ulong count) => _rest = count <= (ulong)_rest.Length ? _rest[(int)count..] : throw new InvalidDataException("its footer ends too early");
    }
}
