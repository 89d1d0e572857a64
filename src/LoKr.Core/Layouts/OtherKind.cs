using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts;

/// <summary>
/// Another kind of adapter than LoKr on one module, by the names and shapes of its tensors: the parts of a product, magnitudes, differences. A file
/// whose header was read and tensors in memory are told apart by the same rules.
/// </summary>
internal sealed class OtherKind
{
    /// <summary>A change of the whole weight.</summary>
    public const string Difference = "diff";

    /// <summary>A change of the bias.</summary>
    public const string BiasDifference = "diff_b";

    /// <summary>A weight that replaces the model's.</summary>
    public const string WholeWeight = "set_weight";

    /// <summary>The matrix of LoRA with the rows of the weight.</summary>
    public const string Up = "up";

    /// <summary>The matrix of LoRA with the columns of the weight.</summary>
    public const string Down = "down";

    /// <summary>The core between the two matrices of LoRA on a convolution.</summary>
    public const string Core = "core";

    /// <summary>The matrices of LoHa.</summary>
    public static readonly IReadOnlyList<string> Hadamard = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"];

    /// <summary>The cores of LoHa on a convolution.</summary>
    public static readonly IReadOnlyList<string> HadamardCores = ["hada_t1", "hada_t2"];

    // The tensors of low-rank products by their part in it.
    private static readonly Dictionary<string, string>[] s_products =
    [
        new() { ["lora_up"] = Up, ["lora_down"] = Down, ["lora_mid"] = Core },
        new() { ["lora_B"] = Up, ["lora_A"] = Down },
        new() { ["lora_embedding_B"] = Up, ["lora_embedding_A"] = Down },
    ];

    private static readonly string[] s_companions = [AdapterSuffixes.Alpha, FactorNames.DoraScale, AdapterSuffixes.Magnitude, Difference, BiasDifference, WholeWeight];

    private readonly HashSet<string> _suffixes;
    private readonly Dictionary<string, string> _parts = new(StringComparer.Ordinal);
    private readonly Dictionary<string, IReadOnlyList<long>> _shapes = new(StringComparer.Ordinal);

    /// <summary>Sorts the tensors of a module.</summary>
    /// <param name="tensors">Shapes by the rest of the names after the module.</param>
    public OtherKind(IEnumerable<KeyValuePair<string, IReadOnlyList<long>>> tensors)
    {
        Dictionary<string, (string Name, IReadOnlyList<long> Shape)> all = tensors.ToDictionary(static pair => AdapterSuffixes.Part(pair.Key), static pair => (pair.Key, pair.Value), StringComparer.Ordinal);
        _suffixes = [.. all.Keys];
        HashSet<string> left = [.. all.Keys.Except(s_companions)];
        foreach (Dictionary<string, string> product in s_products.Where(product => left.Count > 0 && left.All(product.ContainsKey)))
        {
            Take(left.ToDictionary(suffix => product[suffix], suffix => all[suffix], StringComparer.Ordinal));
            IsEmbedding = product.ContainsKey("lora_embedding_A");
        }

        if (left.Count > 0 && Hadamard.All(left.Contains) && left.All(static suffix => Hadamard.Contains(suffix) || HadamardCores.Contains(suffix)))
        {
            Take(left.ToDictionary(static suffix => suffix, suffix => all[suffix], StringComparer.Ordinal));
        }

        IsHadamard = _parts.ContainsKey(Hadamard[0]);
        HasCore = _parts.ContainsKey(IsHadamard ? HadamardCores[0] : Core);
        Unsupported = (left.Count > 0 && _parts.Count != left.Count) || (_parts.Count > 0 && !IsComplete) || (_parts.Count == 0 && HasMagnitude)
            ? left.Any(static part => part.Contains('.', StringComparison.Ordinal)) ? "LoRA with biases" : AdapterSuffixes.Foreign.GetValueOrDefault(left.FirstOrDefault() ?? "") ?? "DoRA without factors"
            : null;
    }

    /// <summary>The tensors of the product: the rest of the name by the part that it plays.</summary>
    public IReadOnlyDictionary<string, string> Parts => _parts;

    /// <summary>Name of the kind, where it cannot be applied; null where it can.</summary>
    public string? Unsupported { get; }

    /// <summary>Name of the kind of product.</summary>
    public string Name => IsHadamard ? "LoHa" : "LoRA";

    /// <summary>Names of the kinds of its tensors.</summary>
    public IEnumerable<string> All => _suffixes.Select(static suffix => AdapterSuffixes.Foreign.GetValueOrDefault(suffix)).OfType<string>().Distinct()
        .Select(kind => Unsupported == kind && _suffixes.Any(suffix => Hadamard.Contains(suffix) || s_products.Any(product => product.ContainsKey(suffix))) ? $"{kind} without one of its matrices" : kind);

    /// <summary>Whether there is a product, beside or in place of differences.</summary>
    public bool HasProduct => _parts.Count > 0 && Unsupported is null;

    /// <summary>Whether there is nothing but a product.</summary>
    public bool IsProduct => HasProduct && !_suffixes.Overlaps([Difference, BiasDifference, WholeWeight]);

    /// <summary>Whether it is LoRA and nothing else.</summary>
    public bool IsLora => IsProduct && !IsHadamard;

    /// <summary>Whether the product is that of LoHa, element by element.</summary>
    public bool IsHadamard { get; }

    /// <summary>Whether it changes a table of embeddings, under PEFT's names for that.</summary>
    public bool IsEmbedding { get; }

    /// <summary>Whether the product has a core.</summary>
    public bool HasCore { get; }

    /// <summary>Whether it is LoRA on a convolution with a kernel.</summary>
    public bool HasKernel => IsLora && (HasCore || _shapes[Down].Skip(2).Product() > 1);

    /// <summary>Whether it has DoRA's magnitudes.</summary>
    public bool HasMagnitude => _suffixes.Overlaps([FactorNames.DoraScale, AdapterSuffixes.Magnitude]);

    /// <summary>Whether it has them under PEFT's name.</summary>
    public bool HasPeftMagnitude => _suffixes.Contains(AdapterSuffixes.Magnitude);

    /// <summary>Axis of magnitudes of the names that programs beside PEFT read: one number a row, or a column.</summary>
    /// <param name="magnitude">Their shape.</param>
    /// <param name="rows">Rows of the product.</param>
    public static WeightDecomposeAxis AxisOf(IReadOnlyList<long> magnitude, long rows) =>
        magnitude.Product() == rows && !(magnitude.Count > 1 && magnitude[0] == 1) ? WeightDecomposeAxis.Output : WeightDecomposeAxis.Input;

    private bool IsComplete => IsHadamard
        ? HadamardCores.Count(_parts.ContainsKey) != 1 && Hadamard.All(suffix => _shapes[suffix].Count == 2)
        : _parts.ContainsKey(Up) && _parts.ContainsKey(Down) && _shapes[Up].Count >= 2 && _shapes[Down].Count >= 2;

    private void Take(Dictionary<string, (string Name, IReadOnlyList<long> Shape)> parts)
    {
        foreach ((string part, (string name, IReadOnlyList<long> shape)) in parts)
        {
            (_parts[part], _shapes[part]) = (name, shape);
        }
    }
}
