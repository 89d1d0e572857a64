using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>
/// Finds the weights, and the rows of them, that an adapter file changes in a model on disk. Every program's names are those of the tables; a weight
/// that the model fuses with others, or divides, gets the rows that the name means.
/// </summary>
/// <param name="reading">The modules of the file.</param>
/// <param name="options">Overrides of the caller.</param>
/// <param name="names">Names of tensors in the merge by those in the file, where they differ.</param>
internal sealed class AdapterPlacement(AdapterReading reading, AdapterReadOptions options, IReadOnlyDictionary<string, string> names) : IAdapterPlacement
{
    private readonly List<(string Tensor, string Kind, RowPlace Place, string Module)> _taken = [];
    private readonly List<AdapterFileModule> _unknown = [];
    private readonly List<string> _warnings = [];

    private AdapterFile File => reading.File;

    /// <inheritdoc/>
    public bool IsZero
    {
        get
        {
            if (File.Foreign.Count > 0 || File.SavedTensors.Count > 0 || File.Modules.Any(static module => module.IsNorm))
            {
                return false;
            }

            TorchRuntime.EnsureLoaded();
            using DisposeScope scope = NewDisposeScope();
            return reading.Modules.All(module => ZeroFactors.IsProductZero(module.Module.Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha)
                .Select(pair => (pair.Key, new Func<Tensor>(() => File.Tensors.Read(pair.Value.Name))))));
        }
    }

    /// <inheritdoc/>
    public IReadOnlyList<string> Place(MergeBase model, CheckpointMergeAdapter adapter)
    {
        ModuleNameIndex index = BaseModelNames.Of(model);
        if (Configured(model, adapter, index) is MergePart configured)
        {
            return AdapterMatcher.Match(configured.Traits, adapter, configured.Plan);
        }

        Target target = new(model, adapter, new(File, index));
        foreach (ModuleReading module in reading.Modules.Where(module => options.Wants(module.Module.Component)))
        {
            Place(target, module);
        }

        foreach (AdapterFileModule norm in File.Modules.Where(module => module.IsNorm && options.Wants(module.Component)))
        {
            PlaceNorm(target, norm);
        }

        // Kinds that cannot be merged are left out with a warning where the caller says so, and an error before otherwise.
        OtherModule[] others = [.. OtherModule.Of(File, options).Where(other => options.Wants(other.Module.Component))];
        _warnings.AddRange(OtherModule.Findings(others, skips: true).Select(static finding => finding.Message));
        foreach (OtherModule other in others.Where(static other => other.Kind.Unsupported is null))
        {
            PlaceOther(target, other);
        }

        foreach ((string name, string key) in File.SavedTensors)
        {
            PlaceSaved(target, name, key);
        }

        return _unknown.Count > 0 ? throw target.Finder.Unknown(_unknown) : _warnings;
    }

    /// <summary>
    /// The component that an adapter of PEFT belongs to by the names of its configuration; null for other files, and where the model has other
    /// names, which the tables know.
    /// </summary>
    private MergePart? Configured(MergeBase model, CheckpointMergeAdapter adapter, ModuleNameIndex index)
    {
        if (adapter.Config is null || (File.Foreign.Count > 0 && adapter.Others.Count == 0) || options is not { Alpha: null, Scaling: null, Component: null })
        {
            return null;
        }

        if (model.Parts is [MergePart only])
        {
            return index.Model is null || AdapterMatcher.Count(only.Traits, adapter).All ? only : null;
        }

        // No program adapts an autoencoder or a safety checker.
        MergePart[] fitting = [.. model.Parts.Where(static part => AdapterComponents.ByFolder.ContainsKey(part.Folder)).Where(part => AdapterMatcher.Count(part.Traits, adapter) is { All: true, Found: > 0 })];
        return fitting.Length < 2 ? fitting.FirstOrDefault() : throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
            $"The adapter '{adapter.Name}' fits several components: {string.Join(", ", fitting.Select(static part => part.Folder))}.", "Name the folder of one of them as the base model.") { Target = adapter.Name };
    }

    private void Place(Target target, ModuleReading reading)
    {
        (AdapterFileModule module, FactorGeometry geometry, ModuleScale scale) = reading;
        if (Find(target, module) is not KnownModule { WeightShape: { } stored } known)
        {
            return;
        }

        IReadOnlyList<long> weight = geometry.Fit(stored) ?? throw geometry.Mismatch(File, module, stored);
        long[] kernel = [.. weight.Skip(2)];
        bool isTransposed = IsTransposed(target, known, weight[0], weight[1]);
        if (!isTransposed && !weight.SequenceEqual(stored))
        {
            throw geometry.Mismatch(File, module, stored);
        }

        Add(target, known, module, "LoKr", new FileContribution(target.Adapter, scale.Factor, Keys(module), geometry, kernel)
        {
            IsReversed = reading.IsReversed(File),
            Axis = reading.DoraAxis,
            IsTransposed = isTransposed,
        });
    }

    private void PlaceNorm(Target target, AdapterFileModule norm)
    {
        if (Find(target, norm) is not KnownModule known)
        {
            return;
        }

        if (norm.Tensors.TryGetValue(AdapterSuffixes.NormWeight, out SafetensorsEntry? weight))
        {
            Add(target, known, norm, "norm", Stored(target, weight, known.WeightShape!));
        }

        if (norm.Tensors.TryGetValue(AdapterSuffixes.NormBias, out SafetensorsEntry? bias))
        {
            Add(target, Bias(target, known, norm), norm, "norm", Stored(target, bias, known.WeightShape!));
        }
    }

    private void PlaceOther(Target target, OtherModule other)
    {
        if (Find(target, other.Module) is not KnownModule { WeightShape: { } stored } known)
        {
            return;
        }

        foreach (string suffix in other.Module.Tensors.Keys)
        {
            SafetensorsEntry entry = other.Module.Tensors[suffix];
            switch (suffix)
            {
                case OtherKind.Difference:
                    Add(target, known, other.Module, suffix, Stored(target, entry, stored));
                    break;
                case OtherKind.BiasDifference:
                    Add(target, Bias(target, known, other.Module), other.Module, suffix, Stored(target, entry, stored));
                    break;
                case OtherKind.WholeWeight:
                    Replace(target, known, other.Module.Name, Key(entry));
                    break;
            }
        }

        if (other.Kind.HasProduct)
        {
            bool isTransposed = known.IsTransposed || (known.Places is [RowPlace place] && target.Part(known).Traits is CheckpointTraits traits && OtherChange.IsTransposed(other, traits.Entries[place.Tensor], traits));
            Add(target, known, other.Module, other.Kind.Name, OtherChange.Of(other, target.Adapter, stored, isTransposed));
        }
    }

    // A module that was trained whole, or a parameter of one.
    private void PlaceSaved(Target target, string name, string key)
    {
        AdapterFileModule module = new(AdapterComponent.Model, ModuleTree.Parent(name), new Dictionary<string, SafetensorsEntry> { [name[(name.LastIndexOf('.') + 1)..]] = File.Entries[key] }, null);
        if (Find(target, module) is KnownModule known)
        {
            bool isBias = name.EndsWith(".bias", StringComparison.Ordinal);
            Replace(target, isBias ? Bias(target, known, module) : known, module.Name, names.GetValueOrDefault(key, key));
        }
    }

    private static void Replace(Target target, KnownModule known, string module, string key)
    {
        MergePart part = target.Part(known);
        SafetensorsEntry given = target.Adapter.Tensors.Entries[key];
        if (known.Places is not [RowPlace { TensorRow: 0, Row: 0 } place] || !part.Traits.Entries[place.Tensor].Shape.SequenceEqual(given.Shape))
        {
            throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
                $"'{key}' of adapter '{target.Adapter.Name}' is [{string.Join(", ", given.Shape)}] and replaces a weight that the base model stores in another form: {string.Join(", ", known.Places.Select(static stored => stored.Tensor))}.",
                "Merge it into a model whose weights are divided as those of the adapter.") { Target = key };
        }

        part.Plan.Replace(part.Traits.Entries[place.Tensor], new(target.Adapter, key), module);
    }

    private static bool IsTransposed(Target target, KnownModule known, long rows, long columns) => known.IsTransposed
        || (known.Places is [RowPlace place] && target.Part(known).Traits is CheckpointTraits traits && traits.Transposed.Contains(traits.Entries[place.Tensor], rows, columns));

    private KnownModule? Find(Target target, AdapterFileModule module)
    {
        if (target.Finder.Find(module) is KnownModule known)
        {
            return known;
        }

        _unknown.Add(module);
        return null;
    }

    private StoredContribution Stored(Target target, SafetensorsEntry entry, IReadOnlyList<long> weight)
    {
        bool isBias = entry.Shape.Count == 1 || weight.Count == 1;
        long rows = entry.Shape.Count > 0 ? entry.Shape[0] : 1;
        return rows == weight[0] && (isBias || entry.Shape.Product() == weight.Product()) ? new(new AdapterTensor(target.Adapter, Key(entry)))
            : throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
                $"'{entry.Name}' in '{File.Path}' is [{string.Join(", ", entry.Shape)}], but the weight of the base model is [{string.Join(", ", weight)}].", "The adapter was made for another model.") { Target = entry.Name };
    }

    // The bias has the rows of the weight.
    private KnownModule Bias(Target target, KnownModule known, AdapterFileModule module)
    {
        IReadOnlyDictionary<string, SafetensorsEntry> entries = target.Part(known).Traits.Entries;
        RowPlace[] places = [.. known.Places.Select(static place => place with { Tensor = BiasOf(place.Tensor) })];
        return Array.TrueForAll(places, place => entries.TryGetValue(place.Tensor, out SafetensorsEntry? bias) && bias.Shape.Count == 1)
            ? known with { Places = places, WeightShape = [known.WeightShape![0]] }
            : throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                $"'{module}' in '{File.Path}' changes a bias, and the base model has no '{Array.Find(places, place => !entries.ContainsKey(place.Tensor))?.Tensor}'.", "The adapter was made for another model.") { Target = module.Name };
    }

    private static string BiasOf(string weight)
    {
        const string end = "weight";
        return weight.EndsWith(end, StringComparison.Ordinal) ? weight[..^end.Length] + "bias" : weight + ".bias";
    }

    private void Add(Target target, KnownModule known, AdapterFileModule module, string kind, RowContribution change)
    {
        MergePart part = target.Part(known);
        foreach (RowPlace place in known.Places)
        {
            if (_taken.Find(other => other.Tensor == place.Tensor && other.Kind == kind && other.Place.TensorRow < place.TensorRow + place.Count && place.TensorRow < other.Place.TensorRow + other.Place.Count
                && other.Module != module.Name) is { Module: string former })
            {
                throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                    $"'{module.Name}' and '{former}' in '{File.Path}' are two names of rows of '{place.Tensor}'.", "The file mixes the names of two programs; keep one of the two modules.") { Target = module.Name };
            }

            _taken.Add((place.Tensor, kind, place, module.Name));
        }

        part.Traits.CheckNotTied(known.Name);
        IReadOnlyDictionary<string, SafetensorsEntry> entries = part.Traits.Entries;
        bool isWhole = known.Places is [RowPlace { TensorRow: 0, Row: 0 } only] && (entries[only.Tensor].Shape.Count == 0 || only.Count == entries[only.Tensor].Shape[0]);
        RowContribution placed = isWhole ? change : change with { Places = known.Places };
        foreach (string tensor in known.Places.Select(static place => place.Tensor).Distinct(StringComparer.Ordinal))
        {
            SafetensorsEntry entry = entries[tensor];
            part.Traits.CheckMergeable(entry);
            part.Plan.Add(entry, placed);
        }
    }

    private Dictionary<string, string> Keys(AdapterFileModule module) => module.Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha).ToDictionary(static pair => pair.Key, pair => Key(pair.Value), StringComparer.Ordinal);

    private string Key(SafetensorsEntry entry) => names.GetValueOrDefault(entry.Name, entry.Name);

    /// <summary>A place for an adapter.</summary>
    private sealed record Target(MergeBase Model, CheckpointMergeAdapter Adapter, ModuleFinder Finder)
    {
        public MergePart Part(KnownModule module) => Model.Parts.First(part => part.Folder == module.Folder);
    }
}

/// <summary>The delta of a layer as a file has it.</summary>
/// <param name="Adapter">The adapter.</param>
/// <param name="Scaling">Scale of the product as trained.</param>
/// <param name="Keys">Names of the tensors by suffix.</param>
/// <param name="Geometry">Shapes of the factors.</param>
/// <param name="Kernel">Kernel size of the base weight.</param>
internal sealed record FileContribution(CheckpointMergeAdapter Adapter, double Scaling, IReadOnlyDictionary<string, string> Keys, FactorGeometry Geometry, IReadOnlyList<long> Kernel)
    : MergeContribution(Adapter, Scaling)
{
    /// <summary>Whether the product is w2 ⊗ w1.</summary>
    public bool IsReversed { get; init; }

    /// <inheritdoc/>
    public override WeightDecomposeAxis? DoraAxis => Axis;

    /// <summary>Axis of the magnitudes.</summary>
    public WeightDecomposeAxis? Axis { get; init; }

    /// <inheritdoc/>
    public override long Group => RowBlock.GroupOf(IsTransposed, IsReversed, Geometry.L, Geometry.K, Geometry.Kernel is null ? Geometry.Columns / Kernel.Product() : Geometry.Columns);

    /// <inheritdoc/>
    protected override KroneckerFactors Factors(ScalarType type)
    {
        Dictionary<string, Tensor> tensors = Keys.ToDictionary(static pair => pair.Key, pair => Adapter.Tensors.Read(pair.Value, type), StringComparer.Ordinal);
        if (tensors.TryGetValue(FactorNames.W2, out Tensor? w2))
        {
            tensors[FactorNames.W2] = w2.reshape([Geometry.K, Geometry.Columns, .. Kernel]);
        }

        return new(tensors, Kernel, IsReversed);
    }
}
