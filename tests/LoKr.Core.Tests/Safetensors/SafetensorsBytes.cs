using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace LoKr.Core.Tests.Safetensors;

/// <summary>Safetensors files made by hand, well-formed or not.</summary>
internal static class SafetensorsBytes
{
    public static byte[] Make(string header, int dataBytes) => Make(Encoding.UTF8.GetBytes(header), new byte[dataBytes]);

    public static byte[] Make(string header, byte[] data) => Make(Encoding.UTF8.GetBytes(header), data);

    public static byte[] Make(byte[] header, byte[] data)
    {
        byte[] file = new byte[8 + header.Length + data.Length];
        BinaryPrimitives.WriteUInt64LittleEndian(file, (ulong)header.Length);
        header.CopyTo(file, 8);
        data.CopyTo(file, 8 + header.Length);
        return file;
    }

    /// <summary>Writes a well-formed file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="tensors">Tensors in the order of their bytes.</param>
    /// <param name="metadata">The member <c>__metadata__</c> of the header, or null.</param>
    public static void Write(string path, (string Name, string DType, long[] Shape, byte[] Data)[] tensors, string? metadata = null)
    {
        long offset = 0;
        List<string> members = metadata is null ? [] : [$"\"__metadata__\":{metadata}"];
        foreach ((string name, string type, long[] shape, byte[] data) in tensors)
        {
            members.Add($$"""
                "{{name}}":{"dtype":"{{type}}","shape":[{{string.Join(',', shape)}}],"data_offsets":[{{offset}},{{offset + data.Length}}]}
                """);
            offset += data.Length;
        }

        File.WriteAllBytes(path, Make($"{{{string.Join(',', members)}}}", [.. tensors.SelectMany(static tensor => tensor.Data)]));
    }

    /// <summary>The bytes of float32 numbers.</summary>
    public static byte[] Of(params float[] values) => MemoryMarshal.AsBytes<float>(values).ToArray();

    /// <summary>A weight of 4 bits as transformers writes those of bitsandbytes, with random codes, and its values.</summary>
    /// <param name="name">Name of the weight.</param>
    /// <param name="type">nf4 or fp4.</param>
    /// <param name="shape">Shape of the values.</param>
    /// <param name="isNested">Whether the largest values are quantized too.</param>
    public static (float[] Values, (string Name, string DType, long[] Shape, byte[] Data)[] Tensors) FourBits(string name, string type, long[] shape, bool isNested)
    {
        const int block = 64;
        const int outerBlock = 2;
        const float offset = 0.25f;
        Random random = new(3);
        int count = (int)shape.Aggregate(1L, static (product, size) => product * size);
        int blocks = (count + block - 1) / block;
        float[] map = [.. Enumerable.Range(0, 16).Select(_ => random.NextSingle() - 0.5f)];
        float[] nestedMap = [.. Enumerable.Range(0, 256).Select(_ => random.NextSingle() - 0.5f)];
        int[] codes = [.. Enumerable.Range(0, count).Select(_ => random.Next(16))];
        byte[] largestCodes = [.. Enumerable.Range(0, blocks).Select(_ => (byte)random.Next(256))];
        float[] outer = [.. Enumerable.Range(0, (blocks + outerBlock - 1) / outerBlock).Select(_ => random.NextSingle())];
        float[] largest = [.. Enumerable.Range(0, blocks).Select(i => isNested ? (nestedMap[largestCodes[i]] * outer[i / outerBlock]) + offset : random.NextSingle())];
        byte[] packed = [.. codes.Chunk(2).Select(static pair => (byte)((pair[0] << 4) | pair.ElementAtOrDefault(1)))];
        string nested = isNested ? $$""", "nested_blocksize": {{outerBlock}}, "nested_dtype": "float32", "nested_offset": {{offset.ToString(CultureInfo.InvariantCulture)}}""" : "";
        byte[] state = Encoding.UTF8.GetBytes($$"""{"quant_type": "{{type}}", "blocksize": {{block}}, "dtype": "bfloat16", "shape": [{{string.Join(", ", shape)}}]{{nested}}}""");
        List<(string, string, long[], byte[])> tensors =
        [
            (name, "U8", [packed.Length, 1], packed),
            (name + ".quant_map", "F32", [16], Of(map)),
            (name + ".quant_state.bitsandbytes__" + type, "U8", [state.Length], state),
            isNested ? (name + ".absmax", "U8", [blocks], largestCodes) : (name + ".absmax", "F32", [blocks], Of(largest)),
        ];
        if (isNested)
        {
            tensors.Add((name + ".nested_absmax", "F32", [outer.Length], Of(outer)));
            tensors.Add((name + ".nested_quant_map", "F32", [256], Of(nestedMap)));
        }

        return ([.. codes.Select((code, i) => map[code] * largest[i / block])], [.. tensors]);
    }
}
