using LoKr.Core.IO;

namespace LoKr.Core.Gguf;

/// <summary>One tensor of a GGUF file. Flat and serializable.</summary>
public sealed record LoKrTensorInfo
{
    /// <summary>Its name in the file.</summary>
    public required string Name { get; init; }

    /// <summary>Names of the modules of transformers that it holds; empty where there is none, or the architecture is not known.</summary>
    public required IReadOnlyList<string> Modules { get; init => field = ValueList.Of(value); }

    /// <summary>Element type, for example Q4_K.</summary>
    public required string Type { get; init; }

    /// <summary>Dimensions, rows first as in torch.</summary>
    public required IReadOnlyList<long> Shape { get; init => field = ValueList.Of(value); }

    /// <summary>Number of values.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Number of bytes.</summary>
    public required long ByteCount { get; init; }

    /// <summary>Whether an adapter can be merged into it: its values can be read and written.</summary>
    public required bool IsSupported { get; init; }

    /// <summary>Full path of the file.</summary>
    public required string Path { get; init; }

    /// <summary>The tensors of a file in their order, of all parts where it is one of several.</summary>
    /// <param name="path">A model or an adapter as GGUF.</param>
    /// <exception cref="Errors.LoKrException">Those of <see cref="GgufReader.Open"/>; <c>LoKr.CheckpointShardMissing</c>.</exception>
    public static IReadOnlyList<LoKrTensorInfo> List(string path)
    {
        IReadOnlyList<GgufReader> parts = GgufModel.OpenParts(path);
        try
        {
            ILookup<(GgufReader, string), string> modules = GgufModel.ModulesOf(parts);
            return [.. parts.SelectMany(part => part.Tensors.Select(tensor => Of(part, tensor, modules[(part, tensor.Name)])))];
        }
        finally
        {
            foreach (GgufReader part in parts)
            {
                part.Dispose();
            }
        }
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    private static LoKrTensorInfo Of(GgufReader part, GgufTensor tensor, IEnumerable<string> modules)
    {
        BlockSize size = GgmlTypes.Size(tensor.Type);
        return new()
        {
            Name = tensor.Name,
            Modules = [.. modules],
            Type = tensor.Type.ToString(),
            Shape = tensor.Shape,
            ParameterCount = tensor.ByteCount / size.Bytes * size.Values,
            ByteCount = tensor.ByteCount,
            IsSupported = tensor.Shape.Count == 2 && BlockFormat.Of(tensor.Type)?.Quantize is not null,
            Path = part.FilePath,
        };
    }
}
