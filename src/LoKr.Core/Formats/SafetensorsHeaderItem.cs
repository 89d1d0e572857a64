namespace LoKr.Core.Formats;

/// <summary>What a header says of one tensor, apart from its place.</summary>
/// <param name="Name">Key of the tensor.</param>
/// <param name="DType">Element type.</param>
/// <param name="Shape">Dimensions; empty for a scalar.</param>
internal sealed record SafetensorsHeaderItem(string Name, SafetensorsDType DType, IReadOnlyList<long> Shape)
{
    /// <summary>Bytes of the tensor.</summary>
    public long ByteCount => Shape.Aggregate((long)SafetensorsDTypes.Size(DType), static (product, dimension) => checked(product * dimension));
}
