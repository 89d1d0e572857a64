using System.Text.Json;
using LoKr.Core.Errors;

namespace LoKr.Core.Safetensors;

/// <summary>Walks the JSON of a safetensors header token by token, so that a duplicate key is noticed.</summary>
internal sealed class SafetensorsHeaderParser(string path, long dataStart)
{
    /// <summary>No tensor has more dimensions; torch's own kernels stop at 64.</summary>
    private const int MostDimensions = 64;

    private static readonly JsonReaderOptions s_options = new() { MaxDepth = 16 };

    /// <summary>Tensors and metadata; positions are those in the file.</summary>
    public (List<SafetensorsEntry> Entries, IReadOnlyDictionary<string, string> Metadata) Parse(byte[] json)
    {
        Utf8JsonReader reader = new(json, s_options);
        reader.Read();
        List<SafetensorsEntry> entries = [];
        Dictionary<string, string> metadata = [];
        HashSet<string> names = new(StringComparer.Ordinal);
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string name = reader.GetString()!;
            if (!names.Add(name))
            {
                throw Error(ErrorIds.SafetensorsDuplicateKey, $"'{name}' appears twice in the header.");
            }

            reader.Read();
            if (name == SafetensorsHeader.MetadataKey)
            {
                ReadMetadata(ref reader, metadata);
            }
            else
            {
                entries.Add(ReadEntry(ref reader, name));
            }
        }

        // Only white space may follow; anything else throws.
        while (reader.Read())
        {
        }

        return (entries, metadata.AsReadOnly());
    }

    private void ReadMetadata(ref Utf8JsonReader reader, Dictionary<string, string> metadata)
    {
        if (reader.TokenType == JsonTokenType.Null)
        {
            return;
        }

        if (reader.TokenType != JsonTokenType.StartObject)
        {
            throw Error(ErrorIds.SafetensorsMetadataInvalid, "the metadata is not an object.");
        }

        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string key = reader.GetString()!;
            reader.Read();
            if (reader.TokenType != JsonTokenType.String)
            {
                throw Error(ErrorIds.SafetensorsMetadataInvalid, $"metadata '{key}' is not a string.");
            }

            if (!metadata.TryAdd(key, reader.GetString()!))
            {
                throw Error(ErrorIds.SafetensorsDuplicateKey, $"metadata '{key}' appears twice.");
            }
        }
    }

    private SafetensorsEntry ReadEntry(ref Utf8JsonReader reader, string name)
    {
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            throw Error(ErrorIds.SafetensorsHeaderInvalid, $"tensor '{name}' is not described by an object.");
        }

        string? dtype = null;
        List<long>? shape = null;
        List<long>? offsets = null;
        HashSet<string>? others = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string key = reader.ValueTextEquals("dtype"u8) ? "dtype" : reader.ValueTextEquals("shape"u8) ? "shape" : reader.ValueTextEquals("data_offsets"u8) ? "data_offsets" : reader.GetString()!;
            if (key switch { "dtype" => dtype is not null, "shape" => shape is not null, "data_offsets" => offsets is not null, _ => !(others ??= new(StringComparer.Ordinal)).Add(key) })
            {
                throw Error(ErrorIds.SafetensorsDuplicateKey, $"'{key}' of tensor '{name}' appears twice.");
            }

            reader.Read();
            switch (key)
            {
                case "dtype":
                    dtype = reader.TokenType == JsonTokenType.String
                        ? reader.GetString()
                        : throw Error(ErrorIds.SafetensorsDTypeUnknown, $"the dtype of tensor '{name}' is not a string.");
                    break;
                case "shape":
                    shape = ReadNumbers(ref reader, MostDimensions, ErrorIds.SafetensorsShapeInvalid, $"the shape of tensor '{name}'");
                    break;
                case "data_offsets":
                    offsets = ReadNumbers(ref reader, 2, ErrorIds.SafetensorsOffsetsInvalid, $"data_offsets of tensor '{name}'");
                    break;
                default:
                    // The reference implementation ignores unknown keys.
                    reader.Skip();
                    break;
            }
        }

        if (dtype is null || shape is null || offsets is null)
        {
            string missing = dtype is null ? "dtype" : shape is null ? "shape" : "data_offsets";
            throw Error(ErrorIds.SafetensorsHeaderInvalid, $"tensor '{name}' has no {missing}.");
        }

        return Check(name, dtype, shape, offsets);
    }

    private SafetensorsEntry Check(string name, string dtypeName, List<long> shape, List<long> offsets)
    {
        if (!SafetensorsDTypes.TryParse(dtypeName, out SafetensorsDType dtype))
        {
            throw Error(
                ErrorIds.SafetensorsDTypeUnknown,
                $"tensor '{name}' has dtype '{dtypeName}'; known are {string.Join(", ", SafetensorsDTypes.Names)}.");
        }

        if (offsets.Count != 2 || offsets[0] > offsets[1] || offsets[1] > long.MaxValue - dataStart)
        {
            throw Error(ErrorIds.SafetensorsOffsetsInvalid, $"data_offsets [{string.Join(", ", offsets)}] of tensor '{name}' are not two ascending positions.");
        }

        long bytes;
        try
        {
            bytes = shape.Aggregate((long)SafetensorsDTypes.Size(dtype), (product, dimension) => checked(product * dimension));
        }
        catch (OverflowException exception)
        {
            throw SafetensorsHeader.Error(path, ErrorIds.SafetensorsShapeInvalid, $"shape [{string.Join(", ", shape)}] of tensor '{name}' is too large.", exception);
        }

        long stored = offsets[1] - offsets[0];
        return bytes == stored
            ? new SafetensorsEntry(name, dtype, shape.AsReadOnly(), dataStart + offsets[0], stored)
            : throw Error(
                ErrorIds.SafetensorsSizeMismatch,
                $"tensor '{name}' with shape [{string.Join(", ", shape)}] and dtype {dtypeName} needs {bytes} bytes, but has {stored}.");
    }

    private List<long> ReadNumbers(ref Utf8JsonReader reader, int limit, string id, string what)
    {
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            throw Error(id, $"{what} is not a list.");
        }

        List<long> numbers = [];
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt64(out long number) || number < 0)
            {
                throw Error(id, $"{what} holds something other than a whole number from 0 to {long.MaxValue}.");
            }

            if (numbers.Count == limit)
            {
                throw Error(id, $"{what} has more than {limit} numbers.");
            }

            numbers.Add(number);
        }

        return numbers;
    }

    private LoKrException Error(string id, string what) => SafetensorsHeader.Error(path, id, what);
}

/// <summary>One tensor of a header, without its position.</summary>
/// <param name="Name">Key of the tensor.</param>
/// <param name="DType">Element type.</param>
/// <param name="Shape">Dimensions; empty for a scalar.</param>
internal sealed record SafetensorsHeaderItem(string Name, SafetensorsDType DType, IReadOnlyList<long> Shape)
{
    /// <summary>Bytes of the tensor.</summary>
    public long ByteCount => Shape.Aggregate((long)SafetensorsDTypes.Size(DType), static (product, dimension) => checked(product * dimension));
}
