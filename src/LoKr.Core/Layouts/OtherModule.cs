using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>
/// The tensors that other kinds of adapters have for one module: LoRA and LoCon, LoHa, differences and whole weights. Merged into a model, they change
/// its weights as ComfyUI and LyCORIS compute it: scale·up·down with scale = alpha / rank, or 1 without an alpha; the product of LoHa's two low-rank
/// matrices element by element; differences as they are.
/// </summary>
internal sealed class OtherModule
{
    /// <summary>A change of the whole weight.</summary>
    public const string Difference = "diff";

    /// <summary>A change of the bias.</summary>
    public const string BiasDifference = "diff_b";

    /// <summary>A weight that replaces the model's.</summary>
    public const string WholeWeight = "set_weight";

    private const string Up = "up";
    private const string Down = "down";
    private const string Core = "core";

    // The tensors of low-rank products by their part in it.
    private static readonly Dictionary<string, string>[] s_products =
    [
        new() { ["lora_up"] = Up, ["lora_down"] = Down, ["lora_mid"] = Core },
        new() { ["lora_B"] = Up, ["lora_A"] = Down },
        new() { ["lora_embedding_B"] = Up, ["lora_embedding_A"] = Down },
    ];

    private static readonly string[] s_hadamard = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"];
    private static readonly string[] s_cores = ["hada_t1", "hada_t2"];

    private readonly Dictionary<string, SafetensorsEntry> _parts = new(StringComparer.Ordinal);
    private readonly SafetensorsEntry? _alpha;
    private readonly SafetensorsEntry? _magnitude;
    private readonly bool _isEmbedding;

    private OtherModule(AdapterFileModule module, SafetensorsEntry? alpha)
    {
        Module = module;
        Dictionary<string, SafetensorsEntry> tensors = module.Tensors.ToDictionary(static pair => pair.Key.Split('.')[0], static pair => pair.Value, StringComparer.Ordinal);
        _alpha = tensors.GetValueOrDefault(AdapterSuffixes.Alpha) ?? alpha;
        _magnitude = tensors.GetValueOrDefault(FactorNames.DoraScale);
        HashSet<string> left = [.. tensors.Keys.Except([AdapterSuffixes.Alpha, FactorNames.DoraScale, Difference, BiasDifference, WholeWeight])];
        foreach (Dictionary<string, string> product in s_products.Where(product => left.Count > 0 && left.All(product.ContainsKey)))
        {
            foreach (string suffix in left)
            {
                _parts[product[suffix]] = tensors[suffix];
            }

            _isEmbedding = product.ContainsKey("lora_embedding_A");
        }

        if (left.Count > 0 && s_hadamard.All(left.Contains) && left.All(suffix => s_hadamard.Contains(suffix) || s_cores.Contains(suffix)))
        {
            foreach (string suffix in left)
            {
                _parts[suffix] = tensors[suffix];
            }
        }

        IsHadamard = _parts.ContainsKey(s_hadamard[0]);
        Kind = IsHadamard ? "LoHa" : "LoRA";
        Unsupported = (left.Count > 0 && _parts.Count != left.Count) || (_parts.Count > 0 && !IsComplete) || (_parts.Count == 0 && _magnitude is not null)
            ? AdapterSuffixes.Foreign.GetValueOrDefault(left.FirstOrDefault() ?? "") ?? "DoRA without factors"
            : null;
    }

    /// <summary>The module with its tensors by the rest of their names.</summary>
    public AdapterFileModule Module { get; }

    /// <summary>Name of the kind of product.</summary>
    public string Kind { get; }

    /// <summary>Name of the kind, where it cannot be merged; null where it can.</summary>
    public string? Unsupported { get; }

    /// <summary>Alpha that the caller gives; null for that of the file.</summary>
    public double? GivenAlpha { get; init; }

    /// <summary>Whether the file or the caller has an alpha for it.</summary>
    public bool HasAlpha => GivenAlpha is not null || _alpha is not null;

    /// <summary>Whether there is a product, beside or in place of differences.</summary>
    public bool HasProduct => _parts.Count > 0;

    /// <summary>Rows of the product.</summary>
    public long Rows => IsHadamard ? Part("hada_w1_a").Shape[HasCore ? 1 : 0] : _isEmbedding ? Part(Down).Shape[1] : Part(Up).Shape[0];

    /// <summary>Columns of the product, kernel included.</summary>
    public long Columns => IsHadamard ? Part("hada_w1_b").Shape[1] * (HasCore ? Part("hada_t1").Shape.Skip(2).Product() : 1)
        : _isEmbedding ? Part(Up).Shape[0]
        : HasCore ? Part(Down).Shape[1] * Part(Core).Shape.Skip(2).Product() : Part(Down).Shape.Skip(1).Product();

    private bool IsHadamard { get; }

    private bool HasCore => _parts.ContainsKey(IsHadamard ? s_cores[0] : Core);

    private bool IsComplete => IsHadamard
        ? s_cores.Count(_parts.ContainsKey) != 1 && s_hadamard.All(suffix => Part(suffix).Shape.Count == 2)
        : _parts.ContainsKey(Up) && _parts.ContainsKey(Down) && Part(Up).Shape.Count >= 2 && Part(Down).Shape.Count >= 2;

    private long Rank => IsHadamard ? Part("hada_w1_b").Shape[0] : Part(Down).Shape[0];

    /// <summary>The modules of a file.</summary>
    /// <param name="file">The file.</param>
    /// <param name="givenAlpha">Alpha of all of them; null for those of the file.</param>
    public static IEnumerable<OtherModule> Of(AdapterFile file, double? givenAlpha = null) => file.Foreign.GroupBy(static tensor => (tensor.Component, tensor.Module)).Select(group => new OtherModule(
        new(group.Key.Component, group.Key.Module, group.ToDictionary(static tensor => tensor.Suffix, static tensor => tensor.Entry, StringComparer.Ordinal), null),
        file.Modules.FirstOrDefault(module => module.Component == group.Key.Component && module.Name == group.Key.Module)?.Tensors.GetValueOrDefault(AdapterSuffixes.Alpha)) { GivenAlpha = givenAlpha });

    /// <summary>The shape of a base weight as out×in×kernel; null where the product does not fit it.</summary>
    /// <param name="weight">The shape as it is stored.</param>
    public long[]? Fit(IReadOnlyList<long> weight) => weight.Count < 2 ? null
        : weight[0] == Rows && weight.Skip(1).Product() == Columns ? [.. weight]
        : weight.Count == 2 && weight[1] == Rows && weight[0] == Columns ? [weight[1], weight[0]]
        : null;

    /// <summary>The product as a change of a weight.</summary>
    /// <param name="adapter">The adapter.</param>
    /// <param name="source">Tensors of the file.</param>
    /// <param name="kernel">Kernel of the weight.</param>
    /// <param name="isTransposed">Whether the weight is stored in×out.</param>
    public RowContribution Contribution(CheckpointMergeAdapter adapter, ITensorSource source, long[] kernel, bool isTransposed)
    {
        Product product = new(this, source, kernel);
        return IsHadamard && _magnitude is null && !isTransposed
            ? new HadamardContribution(adapter, product)
            : new ProductContribution(adapter, product) { IsTransposed = isTransposed };
    }

    private SafetensorsEntry Part(string name) => _parts[name];

    /// <summary>The tensors of a product.</summary>
    private sealed class Product(OtherModule module, ITensorSource source, long[] kernel)
    {
        public long Rows => module.Rows;

        public long Columns => module.Columns;

        public double Scale
        {
            get
            {
                using DisposeScope scope = NewDisposeScope();
                double? alpha = module.GivenAlpha ?? (module._alpha is SafetensorsEntry stored ? source.Read(stored.Name, float64).item<double>() : null);
                return alpha / module.Rank ?? 1;
            }
        }

        public WeightDecomposeAxis? DoraAxis => module._magnitude is not SafetensorsEntry magnitude ? null
            : magnitude.Shape.Product() == module.Rows && !(magnitude.Shape.Count > 1 && magnitude.Shape[0] == 1) ? WeightDecomposeAxis.Output : WeightDecomposeAxis.Input;

        /// <summary>The product as 1 ⊗ w2.</summary>
        public KroneckerFactors Factors(ScalarType type)
        {
            Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal) { [FactorNames.W1] = ones(1, 1, dtype: type) };
            if (module._magnitude is SafetensorsEntry magnitude)
            {
                tensors.Add(FactorNames.DoraScale, source.Read(magnitude.Name, type));
            }

            if (module.IsHadamard)
            {
                ((Tensor a1, Tensor b1), (Tensor a2, Tensor b2)) = (Pair(1, type), Pair(2, type));
                tensors.Add(FactorNames.W2, (a1.mm(b1) * a2.mm(b2)).reshape([module.Rows, -1, .. kernel]));
            }
            else if (module.HasCore)
            {
                tensors.Add(FactorNames.T2, Read(Core, type));
                tensors.Add(FactorNames.W2A, Matrix(Up, type).t());
                tensors.Add(FactorNames.W2B, Matrix(Down, type));
            }
            else
            {
                (Tensor up, Tensor down) = (Matrix(Up, type), Matrix(Down, type));
                (tensors[FactorNames.W2A], tensors[FactorNames.W2B]) = module._isEmbedding ? (down.t(), up.t()) : (up, down);
            }

            return new(tensors, kernel);
        }

        /// <summary>One of LoHa's two low-rank matrices: rows×rank and rank×columns. A core becomes part of the columns.</summary>
        public (Tensor Left, Tensor Right) Pair(int number, ScalarType type)
        {
            (Tensor left, Tensor right) = (Read($"hada_w{number}_a", type), Read($"hada_w{number}_b", type));
            if (!module.HasCore)
            {
                return (left, right);
            }

            Tensor core = Read($"hada_t{number}", type);
            return (left.t(), einsum("ijx,jq->iqx", core.reshape(core.shape[0], core.shape[1], -1), right).reshape(core.shape[0], -1));
        }

        private Tensor Read(string part, ScalarType type) => source.Read(module.Part(part).Name, type);

        private Tensor Matrix(string part, ScalarType type)
        {
            Tensor tensor = Read(part, type);
            return tensor.reshape(tensor.shape[0], -1);
        }
    }

    /// <summary>A low-rank product as a layer's delta.</summary>
    private sealed record ProductContribution(CheckpointMergeAdapter Adapter, Product Product) : MergeContribution(Adapter, Product.Scale)
    {
        public override WeightDecomposeAxis? DoraAxis => Product.DoraAxis;

        public override long Group => IsTransposed ? Product.Columns : Product.Rows;

        protected override KroneckerFactors Factors(ScalarType type) => Product.Factors(type);
    }

    /// <summary>LoHa, some rows at a time.</summary>
    private sealed record HadamardContribution(CheckpointMergeAdapter Adapter, Product Product) : DenseContribution(Adapter)
    {
        public override IDeltaRows Open(ScalarType type) => new DeltaRows(Product, type, Adapter.Weight);

        private sealed class DeltaRows : IDeltaRows
        {
            private readonly Tensor[] _parts;
            private readonly double _scale;

            public DeltaRows(Product product, ScalarType type, double weight)
            {
                using DisposeScope scope = NewDisposeScope();
                ((Tensor a1, Tensor b1), (Tensor a2, Tensor b2)) = (product.Pair(1, type), product.Pair(2, type));
                _parts = [.. new[] { a1, b1, a2, b2 }.Select(static part => part.contiguous().DetachFromDisposeScope())];
                _scale = product.Scale * weight;
            }

            public Tensor Read(long start, long count) => _parts[0].narrow(0, start, count).mm(_parts[1]) * _parts[2].narrow(0, start, count).mm(_parts[3]) * _scale;

            public void Dispose() => Array.ForEach(_parts, static part => part.Dispose());
        }
    }
}
