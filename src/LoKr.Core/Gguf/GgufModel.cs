using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.RegularExpressions;
using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Gguf;

/// <summary>
/// A language model as GGUF, in one file or in parts, as the tensors that transformers has: under its names, with its order of rows, query,
/// key and value apart, dequantized to float32. Tensors that transformers does not have are left out.
/// </summary>
public sealed partial class GgufModel : ITensorSource
{
    private const string CountKey = "split.count";
    private const string NumberKey = "split.no";
    private const string WeightSuffix = ".weight";

    private readonly Dictionary<string, GgufPlace> _places = new(StringComparer.Ordinal);

    private GgufModel(IReadOnlyList<GgufReader> parts)
    {
        Parts = parts;
        GgufReader first = parts[0];
        string name = first.FindText("general.architecture")
            ?? throw GgufHeader.Error(first.FilePath, ErrorIds.GgufHeaderInvalid, "it has no general.architecture.");
        if (first.FindText("general.type") is string type && type != "model")
        {
            throw GgufHeader.Error(first.FilePath, ErrorIds.GgufHeaderInvalid, $"it holds {(type == "adapter" ? "an adapter" : $"'{type}'")}, not a model.");
        }

        Architecture = GgufArchitecture.Of(name);
        HashSet<string> names = new(StringComparer.Ordinal);
        foreach (GgufReader part in parts)
        {
            foreach (GgufTensor tensor in part.Tensors)
            {
                if (!names.Add(tensor.Name))
                {
                    throw GgufHeader.Error(part.FilePath, ErrorIds.GgufHeaderInvalid, $"tensor '{tensor.Name}' is in two parts.");
                }

                Place(part, tensor);
            }
        }

        TiesEmbeddings = !names.Contains("output.weight");
        Entries = _places.ToDictionary(static pair => pair.Key, static pair => Describe(pair.Key, pair.Value), StringComparer.Ordinal).AsReadOnly();
    }

    /// <summary>The files, in order.</summary>
    public IReadOnlyList<GgufReader> Parts { get; }

    /// <summary>Whether the output uses the input embeddings.</summary>
    public bool TiesEmbeddings { get; }

    /// <summary>Number of layers; null where the file does not say.</summary>
    public long? LayerCount => Number("block_count");

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries { get; }

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> Metadata { get; } = new Dictionary<string, string>().AsReadOnly();

    /// <summary>Rules of the architecture.</summary>
    internal GgufArchitecture Architecture { get; }

    /// <summary>Where each tensor of transformers is.</summary>
    internal IReadOnlyDictionary<string, GgufPlace> Places => _places;

    /// <summary>Opens a file, and the other parts of a model that is split.</summary>
    /// <param name="path">The file, or one of the parts.</param>
    /// <exception cref="LoKrException">
    /// Those of <see cref="GgufReader.Open"/>; <c>LoKr.CheckpointShardMissing</c> without a part; <c>LoKr.ModelTypeUnknown</c> for an architecture
    /// whose names are not known.
    /// </exception>
    public static GgufModel Open(string path)
    {
        IReadOnlyList<GgufReader> parts = OpenParts(path);
        try
        {
            return new(parts);
        }
        catch
        {
            Close(parts);
            throw;
        }
    }

    /// <summary>Opens the files of a model or an adapter of any architecture.</summary>
    /// <param name="path">The file, or one of the parts.</param>
    internal static IReadOnlyList<GgufReader> OpenParts(string path)
    {
        List<GgufReader> parts = [];
        try
        {
            foreach (string file in PartPaths(path))
            {
                parts.Add(GgufReader.Open(file));
            }

            CheckParts(parts);
            return parts;
        }
        catch
        {
            Close(parts);
            throw;
        }
    }

    /// <summary>The modules of transformers that each tensor of open files holds; none where the architecture is not known or the file is not a model.</summary>
    internal static ILookup<(GgufReader Part, string Tensor), string> ModulesOf(IReadOnlyList<GgufReader> parts)
    {
        bool isKnown = parts[0].FindText("general.architecture") is string name && GgufArchitecture.IsKnown(name) && parts[0].FindText("general.type") is null or "model";
        return (isKnown ? new GgufModel(parts)._places : []).Where(static place => place.Key.EndsWith(WeightSuffix, StringComparison.Ordinal))
            .ToLookup(static place => (place.Value.Part, place.Value.Tensor.Name), static place => place.Key[..^WeightSuffix.Length]);
    }

    /// <inheritdoc/>
    public torch.Tensor Read(string name, torch.ScalarType? dtype = null, torch.Device? device = null)
    {
        GgufPlace place = Find(name);
        TorchRuntime.EnsureLoaded();
        torch.Tensor values = torch.empty([.. Entries[name].Shape], torch.ScalarType.Float32);
        try
        {
            using torch.Tensor flat = values.view(-1);
            place.Read(0, MemoryMarshal.Cast<byte, float>(flat.bytes));
        }
        catch
        {
            values.Dispose();
            throw;
        }

        if (dtype is null or torch.ScalarType.Float32 && device is null)
        {
            return values;
        }

        using (values)
        {
            return values.to(dtype ?? torch.ScalarType.Float32, device ?? torch.CPU);
        }
    }

    /// <inheritdoc/>
    public void ReadInto(string name, torch.Tensor destination)
    {
        ArgumentNullException.ThrowIfNull(destination);
        using IDisposable noGrad = torch.no_grad();
        using torch.Tensor values = Read(name);
        destination.copy_(values);
    }

    /// <inheritdoc/>
    public void ReadRange(string name, long start, torch.Tensor destination)
    {
        ArgumentNullException.ThrowIfNull(destination);
        GgufPlace place = Find(name);
        using IDisposable noGrad = torch.no_grad();
        using DisposeScope scope = torch.NewDisposeScope();
        long count = destination.numel();
        long length = place.Tensor.RowLength;
        long unit = Math.Max(1, place.HeadRows);
        long first = start / length / unit * unit;
        long last = Math.Min(place.RowCount, (((start + count + length - 1) / length) + unit - 1) / unit * unit);
        torch.Tensor rows = torch.empty((last - first) * length, torch.ScalarType.Float32);
        place.Read(first, MemoryMarshal.Cast<byte, float>(rows.bytes));
        destination.copy_(rows.narrow(0, start - (first * length), count).reshape(destination.shape));
    }

    /// <inheritdoc/>
    public void Dispose() => Close(Parts);

    [GeneratedRegex(@"^(?<start>.*)-(?<number>\d{5})-of-(?<count>\d{5})\.gguf$", RegexOptions.CultureInvariant | RegexOptions.Singleline)]
    private static partial Regex PartName();

    private static void Close(IReadOnlyList<GgufReader> parts)
    {
        foreach (GgufReader part in parts)
        {
            part.Dispose();
        }
    }

    private static string[] PartPaths(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string full = Path.GetFullPath(path);
        Match match = PartName().Match(Path.GetFileName(full));
        int count = match.Success ? int.Parse(match.Groups["count"].ValueSpan, CultureInfo.InvariantCulture) : 1;
        if (count <= 1)
        {
            return [full];
        }

        string[] paths = [.. Enumerable.Range(1, count).Select(number => Path.Combine(Path.GetDirectoryName(full)!, FormattableString.Invariant($"{match.Groups["start"].Value}-{number:D5}-of-{count:D5}.gguf")))];
        return Array.Find(paths, static part => !File.Exists(part)) is string missing ? throw Missing(missing, $"'{missing}', one of {count} parts of the model, does not exist.") : paths;
    }

    private static void CheckParts(List<GgufReader> parts)
    {
        for (int i = 0; i < parts.Count; i++)
        {
            long count = parts[i].FindInteger(CountKey) ?? 1;
            if (Math.Max(count, 1) != parts.Count || (parts.Count > 1 && parts[i].FindInteger(NumberKey) != i))
            {
                throw Missing(parts[i].FilePath, $"'{parts[i].FilePath}' says that it is part {(parts[i].FindInteger(NumberKey) ?? 0) + 1} of {count}, and not part {i + 1} of {parts.Count} as its name says.");
            }
        }
    }

    private static LoKrException Missing(string path, string message) => new(ErrorIds.CheckpointShardMissing, LoKrErrorKind.NotFound, message,
        "Put all parts into one folder, with the names that llama.cpp gave them.") { Target = path };

    private GgufPlace Find(string name) => _places.TryGetValue(name, out GgufPlace? place) ? place : throw TensorErrors.NotFound(name, Parts[0].FilePath, _places.Keys);

    private void Place(GgufReader part, GgufTensor tensor)
    {
        int dot = tensor.Name.LastIndexOf('.');
        if (dot <= 0)
        {
            return;
        }

        (string owner, string suffix) = (tensor.Name[..dot], tensor.Name[dot..]);
        if (Architecture.ModuleOf(owner) is string module)
        {
            Add(module, owner, suffix, new(part, tensor, 0, tensor.RowCount));
        }
        else if (owner.EndsWith("." + GgufArchitecture.FusedAttention, StringComparison.Ordinal) && suffix == WeightSuffix)
        {
            PlaceFused(part, tensor, owner[..^GgufArchitecture.FusedAttention.Length]);
        }
    }

    private void Add(string module, string owner, string suffix, GgufPlace place)
    {
        if (Architecture.IsPermuted(owner))
        {
            // The elements of a bias are reordered too; no adapter changes one.
            if (suffix != WeightSuffix)
            {
                return;
            }

            long heads = HeadCount(owner.EndsWith("_k", StringComparison.Ordinal), Layer(owner), place.Part);
            if (place.RowCount % (2 * heads) != 0)
            {
                throw Unexpected(place.Part, $"'{place.Tensor.Name}' has {place.RowCount} rows for {heads} heads.");
            }

            place = place with { HeadRows = place.RowCount / heads };
        }

        bool isNorm = owner.EndsWith("_norm", StringComparison.Ordinal);
        _places.Add(module + suffix, place with { IsPlusOne = isNorm && Architecture.NormsPlusOne && suffix == WeightSuffix });
    }

    private void PlaceFused(GgufReader part, GgufTensor tensor, string layer)
    {
        int number = Layer(layer);
        (long heads, long keyHeads) = (HeadCount(isKey: false, number, part), HeadCount(isKey: true, number, part));
        long size = Number("embedding_length") is long width ? width / heads : 0;
        (long query, long key, long value) = (heads * (Number("attention.key_length") ?? size), keyHeads * (Number("attention.key_length") ?? size), keyHeads * (Number("attention.value_length") ?? size));
        if (query + key + value != tensor.RowCount || query <= 0 || key <= 0 || value <= 0)
        {
            throw Unexpected(part, $"'{tensor.Name}' has {tensor.RowCount} rows, and the heads have {query} of queries, {key} of keys and {value} of values.");
        }

        foreach ((string name, long start, long count) in (ReadOnlySpan<(string, long, long)>)[("attn_q", 0, query), ("attn_k", query, key), ("attn_v", query + key, value)])
        {
            Add(Architecture.ModuleOf(layer + name)!, layer + name, WeightSuffix, new(part, tensor, start, count));
        }
    }

    private static int Layer(string owner) => owner.Split('.') is [_, string number, ..] && int.TryParse(number, CultureInfo.InvariantCulture, out int layer) ? layer : 0;

    // One number for all layers, or one for each.
    private long HeadCount(bool isKey, int layer, GgufReader part)
    {
        string key = $"{Architecture.Name}.attention.head_count{(isKey ? "_kv" : "")}";
        GgufValue? value = Parts[0].Metadata.GetValueOrDefault(key);
        long? count = value is null && isKey ? HeadCount(isKey: false, layer, part)
            : value?.Integers is { } counts ? (layer < counts.Count ? counts[layer] : null)
            : Parts[0].FindInteger(key);
        return count is > 0 and < 1 << 20 ? count.Value : throw Unexpected(part, $"{key} is '{value}'.");
    }

    private long? Number(string key) => Parts[0].FindInteger($"{Architecture.Name}.{key}") is long number and > 0 and < 1 << 24 ? number : null;

    private static LoKrException Unexpected(GgufReader part, string what) => GgufHeader.Error(part.FilePath, ErrorIds.GgufHeaderInvalid, what);

    private static SafetensorsEntry Describe(string name, GgufPlace place)
    {
        long[] shape = place.Tensor.Shape.Count == 1 ? [.. place.Tensor.Shape] : [place.RowCount, .. place.Tensor.Shape.Skip(1)];
        return new(name, SafetensorsDType.F32, shape.AsReadOnly(), 0, checked(shape.Product() * sizeof(float)));
    }
}

/// <summary>Where a tensor of transformers is: rows of a tensor of a file.</summary>
/// <param name="Part">The file.</param>
/// <param name="Tensor">The tensor of the file.</param>
/// <param name="FirstRow">Its first row there.</param>
/// <param name="RowCount">Number of rows.</param>
internal sealed record GgufPlace(GgufReader Part, GgufTensor Tensor, long FirstRow, long RowCount)
{
    /// <summary>Rows of a head whose halves alternate in the file; 0 where the order of rows is that of transformers.</summary>
    public long HeadRows { get; init; }

    /// <summary>Whether the file has every value one larger.</summary>
    public bool IsPlusOne { get; init; }

    /// <summary>The row of the file, counted from <see cref="FirstRow"/>, that holds a row of transformers.</summary>
    public long FileRow(long row)
    {
        if (HeadRows == 0)
        {
            return row;
        }

        (long head, long within) = Math.DivRem(row, HeadRows);
        (long half, long place) = Math.DivRem(within, HeadRows / 2);
        return (head * HeadRows) + (place * 2) + half;
    }

    /// <summary>Reads rows as transformers has them.</summary>
    /// <param name="first">First row; where halves alternate, of a whole head.</param>
    /// <param name="values">Whole rows; where halves alternate, whole heads.</param>
    /// <exception cref="LoKrException"><c>LoKr.GgufTypeUnsupported</c>, <c>LoKr.GgufTruncated</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public void Read(long first, Span<float> values)
    {
        BlockFormat format = BlockFormat.Of(Tensor.Type) ?? throw BlockFormat.Unreadable(Tensor, Part.FilePath);
        (int length, int bytes) = (checked((int)Tensor.RowLength), checked((int)Tensor.RowBytes));
        byte[] row = new byte[bytes];
        for (int i = 0; i < values.Length / length; i++)
        {
            Part.ReadBytes(Tensor.Offset + ((FirstRow + FileRow(first + i)) * bytes), row);
            Span<float> target = values.Slice(i * length, length);
            format.Dequantize(row, target);
            if (IsPlusOne)
            {
                foreach (ref float value in target)
                {
                    value -= 1;
                }
            }
        }
    }
}
