using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>
/// The tensors that other kinds of adapters have for one module: LoRA and LoCon, LoHa, differences and whole weights. Merged into a model, they change
/// its weights as ComfyUI, LyCORIS and PEFT compute it: scale·up·down with scale = alpha / rank, that of PEFT's configuration, or 1 without either; the
/// product of LoHa's two low-rank matrices element by element; differences as they are.
/// </summary>
internal sealed class OtherModule : IMergeModule
{
    private readonly AdapterFile _file;
    private readonly AdapterReadOptions _options;
    private readonly ModuleRanks? _ranks;
    private readonly Dictionary<string, SafetensorsEntry> _parts;
    private readonly SafetensorsEntry? _magnitude;

    private OtherModule(AdapterFile file, AdapterFileModule module, LowRankConfig? config, ModuleRanks? ranks, AdapterReadOptions options)
    {
        (_file, Module, Config, _ranks, _options) = (file, module, config, ranks, options);
        Kind = new(module.Tensors.Select(static pair => KeyValuePair.Create(pair.Key, pair.Value.Shape)));
        _parts = Kind.Parts.ToDictionary(static pair => pair.Key, pair => module.Tensors[pair.Value], StringComparer.Ordinal);
        _magnitude = Find(FactorNames.DoraScale) ?? Find(AdapterSuffixes.Magnitude);
    }

    /// <summary>The module with its tensors by the rest of their names.</summary>
    public AdapterFileModule Module { get; }

    /// <summary>The configuration of PEFT; null for a file of another program.</summary>
    public LowRankConfig? Config { get; }

    /// <summary>Kind of its tensors.</summary>
    public OtherKind Kind { get; }

    /// <inheritdoc/>
    public string Name => Module.Name;

    /// <inheritdoc/>
    public IEnumerable<string> Keys => Module.Tensors.Keys.Select(suffix => ModuleTree.Join(Name, suffix));

    /// <inheritdoc/>
    public IEnumerable<string> Suffixes => Module.Tensors.Where(pair => _parts.ContainsValue(pair.Value)).Select(static pair => pair.Key);

    /// <inheritdoc/>
    public bool IsStoredTransposed => Config?.FanInFanOut == true;

    /// <inheritdoc/>
    public long Rows => Kind.IsHadamard ? Part("hada_w1_a").Shape[Kind.HasCore ? 1 : 0] : Kind.IsEmbedding ? Part(OtherKind.Down).Shape[1] : Part(OtherKind.Up).Shape[0];

    /// <inheritdoc/>
    public long Columns => Kind.IsHadamard ? Part("hada_w1_b").Shape[1] * (Kind.HasCore ? Part("hada_t1").Shape.Skip(2).Product() : 1)
        : Kind.IsEmbedding ? Part(OtherKind.Up).Shape[0]
        : Kind.HasCore ? Part(OtherKind.Down).Shape[1] * Part(OtherKind.Core).Shape.Skip(2).Product() : Part(OtherKind.Down).Shape.Skip(1).Product();

    /// <summary>Inner size of the product.</summary>
    public long Rank => Kind.IsHadamard ? Part("hada_w1_b").Shape[0] : Part(OtherKind.Down).Shape[0];

    /// <summary>Alpha: the caller's, that of the file, or that of the configuration; null where there is none.</summary>
    public double? Alpha => _options.Alpha ?? Module.Alpha ?? _ranks?.Alpha(Name);

    /// <summary>Scale of the product; null where nothing says it.</summary>
    public double? Scale => _options.Scaling == ScalingConvention.None ? 1
        : _options.Alpha is null && Module.Alpha is null && _ranks is not null ? LoKrScaling.Compute(_ranks.Config, (int)Rank, _ranks.Alpha(Name), bothFull: false)
        : Alpha is double alpha ? alpha / Rank

        // PEFT keeps alpha in adapter_config.json; the other programs take 1 as the scale where there is none.
        : AdapterLayouts.IsPeft(_file.Layout) ? null : 1;

    /// <summary>The modules of a file.</summary>
    /// <param name="file">The file.</param>
    /// <param name="options">Overrides of the caller.</param>
    public static IReadOnlyList<OtherModule> Of(AdapterFile file, AdapterReadOptions options)
    {
        // Patterns are translated once for all modules.
        Dictionary<LowRankConfig, ModuleRanks> ranks = file.LowRank.Values.Distinct().ToDictionary(static config => config, static config => new ModuleRanks(config.Shared));
        return [.. file.Others.Select(module =>
        {
            LowRankConfig? config = file.LowRankOf(module.Component);
            return new OtherModule(file, module, config, config is null ? null : ranks[config], options);
        })];
    }

    /// <summary>Faults of the modules of a file, whatever they are merged into.</summary>
    /// <param name="modules">The modules.</param>
    /// <param name="skips">Whether kinds that cannot be merged are left out.</param>
    public static IEnumerable<LoKrAdapterFinding> Findings(IReadOnlyList<OtherModule> modules, bool skips)
    {
        OtherModule[] unsupported = [.. modules.Where(static module => module.Kind.Unsupported is not null)];
        if (unsupported.Length > 0)
        {
            string kinds = string.Join(", ", unsupported.GroupBy(static module => module.Kind.Unsupported).Select(static group => $"{group.Count()} modules of {group.Key}"));
            yield return skips
                ? new(LoKrFindingSeverity.Warning, ErrorIds.AdapterTypeNotSupported, $"The file has {kinds}, such as '{unsupported[0].Name}', which cannot be merged; they are left out.", unsupported[0].Name)
                : new(LoKrFindingSeverity.Error, ErrorIds.AdapterTypeNotSupported, $"The file has {kinds}, such as '{unsupported[0].Name}', which cannot be merged. Leave them out, or name a file without them.", unsupported[0].Name);
        }

        foreach (OtherModule module in modules.Except(unsupported))
        {
            if (module.Problem() is LoKrAdapterFinding problem)
            {
                yield return problem;
            }
        }
    }

    /// <inheritdoc/>
    public bool Fits(IReadOnlyList<long> weight) => weight.Count >= 2 && weight[0] == Rows && weight.Skip(1).Product() == Columns;

    /// <inheritdoc/>
    public RowContribution Contribution(CheckpointMergeAdapter adapter, long[] kernel, bool isTransposed)
    {
        Product product = new(this, _file.Tensors, kernel);
        return Kind.IsHadamard && _magnitude is null && !isTransposed
            ? new HadamardContribution(adapter, product)
            : new ProductContribution(adapter, product) { IsTransposed = isTransposed };
    }

    /// <summary>
    /// The tensors for a file of another program, by the rest of their names: without the name of an adapter in memory, the scale of a configuration as
    /// alpha, PEFT's magnitudes in the shape and under the name that other programs have for them.
    /// </summary>
    public IReadOnlyDictionary<string, Tensor> Read()
    {
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal);
        foreach ((string rest, SafetensorsEntry entry) in Module.Tensors)
        {
            const string weight = ".weight";
            string part = AdapterSuffixes.Part(rest);
            if (part == AdapterSuffixes.Magnitude && Kind.HasProduct)
            {
                tensors.Add(FactorNames.DoraScale, _file.Tensors.Read(entry.Name).reshape(Magnitudes()));
            }
            else
            {
                tensors.Add(part != rest && rest.EndsWith(weight, StringComparison.Ordinal) ? part + weight : rest, _file.Tensors.Read(entry.Name));
            }
        }

        bool isOverridden = _options.Alpha is not null || _options.Scaling == ScalingConvention.None;
        if (Kind.HasProduct && (isOverridden || (Module.Alpha is null && _ranks is not null)) && Scale is double scale)
        {
            tensors[AdapterSuffixes.Alpha] = tensor((float)(scale * Rank));
        }

        return tensors;
    }

    // One number for each row, or for each column of a table of embeddings, which PEFT decomposes the other way round.
    private long[] Magnitudes()
    {
        IEnumerable<long> ones = Kind.IsHadamard || Kind.IsEmbedding ? [] : Part(OtherKind.Down).Shape.Skip(2).Select(static _ => 1L);
        return Kind.IsEmbedding ? [1, Columns] : [Rows, 1, .. ones];
    }

    private SafetensorsEntry Part(string name) => _parts[name];

    private SafetensorsEntry? Find(string suffix) => Module.Tensors.FirstOrDefault(pair => AdapterSuffixes.Part(pair.Key) == suffix).Value;

    private LoKrAdapterFinding? Problem()
    {
        LoKrAdapterFinding Error(string id, string message) => new(LoKrFindingSeverity.Error, id, $"The {Kind.Name} of '{Module}' cannot be used: {message}", Module.Name);
        if (Module.Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha).Select(static pair => pair.Value).FirstOrDefault(static entry => !FactorGeometry.IsFactorType(entry.DType)) is SafetensorsEntry integers)
        {
            return Error(ErrorIds.TensorDTypeMismatch, $"'{integers.Name}' holds {SafetensorsDTypes.Name(integers.DType)}, which cannot be a factor. Quantized adapters are not supported.");
        }

        if (Module.Tensors.Values.FirstOrDefault(static entry => entry.Shape.Contains(0)) is SafetensorsEntry empty)
        {
            return Error(ErrorIds.AdapterShapeMismatch, $"'{empty.Name}' is empty: {Shape(empty)}. Get the file again, or ask its author.");
        }

        if (Misfit() is (SafetensorsEntry first, SafetensorsEntry second))
        {
            return Error(ErrorIds.AdapterShapeMismatch, $"'{first.Name}' {Shape(first)} does not fit '{second.Name}' {Shape(second)}. Get the file again, or ask its author.");
        }

        if (Module.Tensors.GetValueOrDefault(AdapterSuffixes.Alpha) is SafetensorsEntry stored && Module.Alpha is null)
        {
            return stored.Shape.Any(static size => size != 1)
                ? Error(ErrorIds.AdapterShapeMismatch, $"'{stored.Name}' is {Shape(stored)}, but it must be a single number. Get the file again, or ask its author.")
                : Error(ErrorIds.TensorDTypeUnsupported, $"'{stored.Name}' holds {SafetensorsDTypes.Name(stored.DType)}, which cannot be read as a number. Store alpha as a float or an integer.");
        }

        if (!Kind.HasProduct || _options.Scaling == ScalingConvention.None)
        {
            return null;
        }

        if (Config is not null && Config.Kind != Kind.Name)
        {
            return Error(ErrorIds.AdapterKeysMismatch, $"adapter_config.json describes {Config.Kind}. Check that it belongs to the file.");
        }

        if (_ranks is not null && _ranks.Rank(Name) != Rank)
        {
            return Error(ErrorIds.AdapterShapeMismatch, $"it has rank {_ranks.Rank(Name)} in the configuration, but its matrices have rank {Rank}. Check that adapter_config.json belongs to the file.");
        }

        return Scale is not double scale ? Error(ErrorIds.AdapterScaleUnknown, "its scale is not known: the file has PEFT's names, and neither alphas nor adapter_config.json beside it. Put it beside the file, or give alpha.")
            : !double.IsFinite(scale) || (Module.Alpha == 0 && _options.Alpha is null) ? Error(ErrorIds.AlphaInvalid, FormattableString.Invariant($"its alpha is {Alpha}. Give alpha, or the scaling convention None."))
            : null;
    }

    /// <summary>Two tensors of the product whose shapes exclude each other, or magnitudes that fit no side of it; null where all fit.</summary>
    private (SafetensorsEntry, SafetensorsEntry)? Misfit()
    {
        if (!Kind.HasProduct)
        {
            return null;
        }

        static bool IsOne(IEnumerable<long> sizes) => sizes.All(static size => size == 1);
        if (Kind.IsHadamard)
        {
            (SafetensorsEntry a1, SafetensorsEntry b1, SafetensorsEntry a2, SafetensorsEntry b2) = (Part("hada_w1_a"), Part("hada_w1_b"), Part("hada_w2_a"), Part("hada_w2_b"));
            int inner = Kind.HasCore ? 0 : 1;
            foreach ((SafetensorsEntry a, SafetensorsEntry b, string core) in ((SafetensorsEntry, SafetensorsEntry, string)[])[(a1, b1, OtherKind.HadamardCores[0]), (a2, b2, OtherKind.HadamardCores[1])])
            {
                if (!Kind.HasCore && a.Shape[inner] != b.Shape[0])
                {
                    return (a, b);
                }

                if (Kind.HasCore && (Part(core).Shape.Count < 2 || Part(core).Shape[0] != a.Shape[0] || Part(core).Shape[1] != b.Shape[0]))
                {
                    return (Part(core), a);
                }
            }

            if (a1.Shape[1 - inner] != a2.Shape[1 - inner])
            {
                return (a1, a2);
            }

            if (b1.Shape[1] != b2.Shape[1] || (Kind.HasCore && !Part(OtherKind.HadamardCores[0]).Shape.Skip(2).SequenceEqual(Part(OtherKind.HadamardCores[1]).Shape.Skip(2))))
            {
                return (b1, b2);
            }
        }
        else
        {
            (SafetensorsEntry up, SafetensorsEntry down) = (Part(OtherKind.Up), Part(OtherKind.Down));
            if (Kind.HasCore)
            {
                SafetensorsEntry core = Part(OtherKind.Core);
                if (core.Shape.Count < 2 || core.Shape[0] != up.Shape[1] || core.Shape[1] != down.Shape[0] || !IsOne(down.Shape.Skip(2)))
                {
                    return (core, down);
                }
            }
            else if (up.Shape[1] != down.Shape[0])
            {
                return (up, down);
            }

            if (!IsOne(up.Shape.Skip(2)) || (Kind.IsEmbedding && down.Shape.Count + up.Shape.Count != 4))
            {
                return (up, down);
            }
        }

        long count = _magnitude?.Shape.Product() ?? 1;
        return _magnitude is null || count == Rows || (Columns % count == 0 && !Kind.HasPeftMagnitude) || (Kind.IsEmbedding && count == Columns) ? null : (_magnitude, Part(Kind.IsHadamard ? OtherKind.Hadamard[0] : OtherKind.Up));
    }

    private static string Shape(SafetensorsEntry entry) => $"[{string.Join(", ", entry.Shape)}]";

    /// <summary>The tensors of a product.</summary>
    private sealed class Product(OtherModule module, ITensorSource source, long[] kernel)
    {
        public long Rows => module.Rows;

        public long Columns => module.Columns;

        public double Scale => module.Scale ?? 1;

        public WeightDecomposeAxis? DoraAxis => module._magnitude is not SafetensorsEntry magnitude ? null
            : module.Kind.HasPeftMagnitude ? module.Kind.IsEmbedding ? WeightDecomposeAxis.Input : WeightDecomposeAxis.Output
            : OtherKind.AxisOf(magnitude.Shape, module.Rows);

        /// <summary>The product as 1 ⊗ w2.</summary>
        public KroneckerFactors Factors(ScalarType type)
        {
            Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal) { [FactorNames.W1] = ones(1, 1, dtype: type) };
            if (module._magnitude is SafetensorsEntry magnitude)
            {
                tensors.Add(FactorNames.DoraScale, source.Read(magnitude.Name, type));
            }

            if (module.Kind.IsHadamard)
            {
                ((Tensor a1, Tensor b1), (Tensor a2, Tensor b2)) = (Pair(1, type), Pair(2, type));
                tensors.Add(FactorNames.W2, (a1.mm(b1) * a2.mm(b2)).reshape([module.Rows, -1, .. kernel]));
            }
            else if (module.Kind.HasCore)
            {
                tensors.Add(FactorNames.T2, Read(OtherKind.Core, type));
                tensors.Add(FactorNames.W2A, Matrix(OtherKind.Up, type).t());
                tensors.Add(FactorNames.W2B, Matrix(OtherKind.Down, type));
            }
            else
            {
                (Tensor up, Tensor down) = (Matrix(OtherKind.Up, type), Matrix(OtherKind.Down, type));
                (tensors[FactorNames.W2A], tensors[FactorNames.W2B]) = module.Kind.IsEmbedding ? (down.t(), up.t()) : (up, down);
            }

            return new(tensors, kernel);
        }

        /// <summary>One of LoHa's two low-rank matrices: rows×rank and rank×columns. A core becomes part of the columns.</summary>
        public (Tensor Left, Tensor Right) Pair(int number, ScalarType type)
        {
            (Tensor left, Tensor right) = (Read($"hada_w{number}_a", type), Read($"hada_w{number}_b", type));
            if (!module.Kind.HasCore)
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
