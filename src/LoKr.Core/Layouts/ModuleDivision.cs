using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>How the weights of a model are divided: some programs hold q, k and v as one weight.</summary>
public enum ModuleDivision
{
    /// <summary>As published folders of diffusers and transformers have them: q, k and v of their own.</summary>
    Split,

    /// <summary>As single files have them: q, k and v one below the other.</summary>
    Fused,
}

/// <summary>Form of rows that are not one Kronecker product.</summary>
public enum InexactRows
{
    /// <summary>They are an error.</summary>
    Refuse,

    /// <summary>LoRA of the rank that is exact, for programs that read it beside LoKr.</summary>
    Lora,

    /// <summary>A LoKr of whole matrices, w1 = 1: exact, and as large as the weight.</summary>
    Full,
}

/// <summary>Divides the modules of an adapter as another program, or another form of its model, does.</summary>
internal sealed class DividedContent
{
    private readonly AdapterContent _content;
    private readonly InexactRows _inexact;
    private readonly bool _isRequired;
    private readonly List<AdapterModule> _modules = [];
    private readonly List<AdapterOther> _others = [];
    private readonly List<string> _refused = [];
    private readonly Dictionary<PartsKey, List<(AdapterModule Module, WeightRows Rows)>> _parts = [];

    private DividedContent(AdapterContent content, InexactRows inexact, bool isRequired) => (_content, _inexact, _isRequired) = (content, inexact, isRequired);

    /// <summary>The adapter as a division of its model needs it.</summary>
    /// <param name="content">The adapter.</param>
    /// <param name="division">The division.</param>
    /// <param name="inexact">What rows become that are not one Kronecker product.</param>
    /// <exception cref="LoKrException"><c>LoKr.DivisionInexact</c>, <c>LoKr.ConversionUnsupported</c>.</exception>
    public static AdapterContent As(AdapterContent content, ModuleDivision division, InexactRows inexact) =>
        Divide(content, inexact, program: null, (match, swaps) => match.Place.Weight.Rows.Count > 0 ? division : swaps && match.IsPublished != (division == ModuleDivision.Split) ? division : null);

    /// <summary>
    /// The adapter as a program names its modules: those it has no name for are divided where it has names for the parts, or for the whole. Where nobody chose
    /// what becomes of rows that are not one Kronecker product, and there are some, it stays as it is, and the program has no names for it.
    /// </summary>
    /// <param name="content">The adapter.</param>
    /// <param name="program">The program.</param>
    /// <param name="inexact">What rows become that are not one Kronecker product.</param>
    /// <exception cref="LoKrException"><c>LoKr.ConversionUnsupported</c>.</exception>
    public static AdapterContent For(AdapterContent content, AdapterProgram program, InexactRows inexact) => Divide(content, inexact, program, (match, swaps) =>
    {
        if (match.Spellings(program, swaps).Any())
        {
            return null;
        }

        WeightPlace place = match.Place;
        return place.Rows is not null ? (place with { Rows = null }).IsReadBy(program) ? ModuleDivision.Fused : null
            : Published(place.Weight) is { Length: > 1 } parts ? Array.TrueForAll(parts, rows => (place with { Rows = rows }).IsReadBy(program)) ? ModuleDivision.Split : null
            : swaps && place.Spellings(program).Any() ? match.IsPublished ? ModuleDivision.Fused : ModuleDivision.Split : null;
    });

    /// <summary>The division in which a model has all modules of an adapter; null where it has them in none.</summary>
    /// <param name="content">The adapter.</param>
    /// <param name="has">Whether the model has a module, by its name in published folders or in single files.</param>
    public static ModuleDivision? Of(AdapterContent content, Func<string, bool> has)
    {
        if (PublishedNames.Recognize(content) is not RecognizedModel model)
        {
            return null;
        }

        NameTranslator names = new(model.Candidates[0]);
        IEnumerable<string?> NamesOf(AdapterModule module, ModuleDivision division)
        {
            if (names.Find(module.Component, module.Name, module.IsDotted) is not [NameMatch match, ..])
            {
                return [module.Name];
            }

            WeightPlace place = match.Place;
            bool isSplit = division == ModuleDivision.Split;
            return Swaps(module, match) && match.IsPublished != isSplit ? [isSplit ? place.Published : place.Name(NameSets.File)]
                : isSplit && place.Rows is null && Published(place.Weight) is { Length: > 1 } parts ? parts.Select(rows => (place with { Rows = rows }).Published)
                : !isSplit && place.Rows is not null ? [(place with { Rows = null }).Name(NameSets.File)]
                : [module.Name];
        }

        return Enum.GetValues<ModuleDivision>().Select(static division => (ModuleDivision?)division)
            .FirstOrDefault(division => content.Modules.All(module => NamesOf(module, division!.Value).All(name => name is not null && has(name))));
    }

    private static bool Swaps(AdapterModule module, NameMatch match) => match.Place.Weight.IsSwapped && module.Geometry.Out == 2 * module.Geometry.M * module.Geometry.Columns;

    private static AdapterContent Divide(AdapterContent content, InexactRows inexact, AdapterProgram? program, Func<NameMatch, bool, ModuleDivision?> wanted)
    {
        if (PublishedNames.Recognize(content) is not RecognizedModel model)
        {
            return content;
        }

        using IDisposable noGrad = no_grad();
        DividedContent divided = new(content, inexact, isRequired: program is null);

        // Of the models that come into question, those that the program does not read say nothing.
        NameTranslator names = new((program is AdapterProgram reader ? model.Candidates.FirstOrDefault(family => family.Parts.Any(part => part.IsDenoiser && part.Programs.ContainsKey(reader))) : null) ?? model.Candidates[0]);
        foreach (AdapterModule module in content.Modules)
        {
            NameMatch? match = names.Find(module.Component, module.Name, module.IsDotted) is [NameMatch best, ..] ? best : null;
            bool swaps = match is not null && Swaps(module, match);
            if (match is null || wanted(match, swaps) is not ModuleDivision division)
            {
                divided._modules.Add(module);
            }
            else
            {
                divided.Add(module, match, swaps, division, isLora: false);
            }
        }

        foreach (AdapterOther other in content.Others)
        {
            divided.Add(other, names.Find(other.Component, other.Name, other.IsDotted) is [NameMatch best, ..] ? best : null, wanted);
        }

        return divided.Finish();
    }

    private static WeightRows[] Published(WeightNames weight) => [.. weight.Rows.Where(static rows => !rows.IsBroken && rows.Names.Of(NameSets.Diffusers).Count > 0)];

    /// <summary>LoRA is divided as the product 1 ⊗ (up · down), of which any rows are one product too; other kinds stay where they are, or are refused.</summary>
    private void Add(AdapterOther other, NameMatch? match, Func<NameMatch, bool, ModuleDivision?> wanted)
    {
        AdapterModule? lora = other.Kind is { IsLora: true, IsEmbedding: false, HasKernel: false } ? other.AsFactors() : null;
        bool swaps = match is not null && (lora is null ? match.Place.Weight.IsSwapped : Swaps(lora, match));
        if (match is null || wanted(match, swaps) is not ModuleDivision division
            || !(swaps || (division == ModuleDivision.Split ? match.Place.Rows is null && Published(match.Place.Weight).Length > 1 : match.Place.Rows is not null)))
        {
            _others.Add(other);
        }
        else if (lora is null)
        {
            Refuse(new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"'{other.Name}' has {string.Join(", ", other.Kind.All)}, and only LoKr and LoRA of linear layers are divided as another form of the model is.", "Merge the adapter into its model instead.") { Target = other.Name });
        }
        else if (_content.Modules.Any(module => module.Component == other.Component && module.Name == other.Name))
        {
            Refuse(TwoKinds(other.Name));
        }
        else
        {
            Add(lora, match, swaps, division, isLora: true);
        }
    }

    private void Add(AdapterModule module, NameMatch match, bool swaps, ModuleDivision division, bool isLora)
    {
        WeightPlace place = match.Place;
        if (swaps)
        {
            AdapterModule renamed = module with { Name = (division == ModuleDivision.Split ? place.Published : place.Name(NameSets.File)) ?? module.Name, IsDotted = true };
            if (ModuleRows.Swap(renamed) is AdapterModule swapped)
            {
                Put(swapped, isLora);
            }
            else
            {
                AddInexact(
                    renamed, () => ModuleRows.Rolled(ModuleRows.Dense(module)), () => ModuleRows.Rolled(ModuleRows.Product(module, 0, module.Geometry.Out)),
                    Magnitude(module) is Tensor magnitude ? ModuleRows.Rolled(magnitude) : null);
            }
        }
        else if (division == ModuleDivision.Split && place.Rows is null && Published(place.Weight) is { Length: > 1 } parts)
        {
            Split(module, place, parts, isLora);
        }
        else if (division == ModuleDivision.Fused && place.Rows is WeightRows rows)
        {
            PartsKey key = new(module.Component, place with { Rows = null }, isLora);
            if (!_parts.TryGetValue(key, out List<(AdapterModule, WeightRows)>? group))
            {
                _parts.Add(key, group = []);
            }

            group.Add((module, rows));
        }
        else
        {
            Put(module, isLora);
        }
    }

    private void Put(AdapterModule module, bool isLora)
    {
        if (isLora)
        {
            _others.Add(AdapterOther.OfFactors(module));
        }
        else
        {
            _modules.Add(module);
        }
    }

    private void Split(AdapterModule module, WeightPlace place, WeightRows[] parts, bool isLora)
    {
        long columns = module.Geometry.M * module.Geometry.Columns;
        if (Array.Exists(parts, rows => rows.Range(module.Geometry.Out, columns) is var (first, count) && first + count > module.Geometry.Out))
        {
            Refuse(Misfit(module, place));
            return;
        }

        foreach (WeightRows rows in parts)
        {
            (long start, long length) = rows.Range(module.Geometry.Out, columns);
            AdapterModule named = module with { Name = (place with { Rows = rows }).Published!, IsDotted = true };
            if (ModuleRows.Slice(named, start, length) is AdapterModule part)
            {
                Put(part, isLora);
            }
            else
            {
                AddInexact(named, () => ModuleRows.Dense(module).narrow(0, start, length), () => ModuleRows.Product(module, start, length), Magnitude(module)?.narrow(0, start, length).contiguous());
            }
        }
    }

    private void Fuse(WeightPlace place, List<(AdapterModule Module, WeightRows Rows)> group, bool isLora)
    {
        AdapterModule first = group[0].Module;
        long columns = first.Geometry.M * first.Geometry.Columns;
        WeightRows[] all = Published(place.Weight);
        long? rows = Array.TrueForAll(all, static part => part.Length is not null) ? all.Max(static part => part.Start + part.Length!.Value) * columns
            : group.Count == all.Length ? group.Sum(static part => part.Module.Geometry.Out) : null;
        if (rows is not long height)
        {
            Refuse(new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"The rows of '{place.Name(NameSets.File)}' cannot be put together: the adapter has {group.Count} of its {all.Length} parts, and the sizes of the others are not known.", "Choose a program that divides the weights as the adapter does.") { Target = first.Name });
            return;
        }

        if (group.Find(part => part.Module.Geometry.M * part.Module.Geometry.Columns != columns || part.Rows.Range(height, columns).Length != part.Module.Geometry.Out).Module is AdapterModule odd)
        {
            Refuse(Misfit(odd, place));
            return;
        }

        (AdapterModule Module, long Start)[] parts = [.. group.Select(part => (part.Module, part.Rows.Range(height, columns).Start)).OrderBy(static part => part.Start)];
        AdapterModule named = first with { Name = place.Name(NameSets.File)!, IsDotted = true };
        if (isLora && Array.TrueForAll(parts, static part => part.Module.DoraAxis is null))
        {
            _others.Add(AdapterOther.Join(named.Name, parts, height));
            return;
        }

        if (ModuleRows.Stack(parts, height) is AdapterModule stacked)
        {
            _modules.Add(stacked with { Name = named.Name, IsDotted = true });
            return;
        }

        AdapterModule? decomposed = Array.Find(parts, static part => part.Module.DoraAxis is not null).Module;
        AddInexact(named with { DoraAxis = decomposed?.DoraAxis, WeightShape = named.WeightShape is null ? null : [height, columns] }, () =>
        {
            Tensor dense = zeros(height, columns, dtype: float64);
            foreach ((AdapterModule module, long start) in parts)
            {
                dense.narrow(0, start, module.Geometry.Out).copy_(ModuleRows.Dense(module));
            }

            return dense;
        }, () => ModuleRows.Product(parts, height), magnitude: null);
    }

    // The magnitudes of rows belong to their rows; those of columns to all rows.
    private static Tensor? Magnitude(AdapterModule module) => module.DoraAxis == WeightDecomposeAxis.Output ? module.Tensors[FactorNames.DoraScale] : null;

    private void AddInexact(AdapterModule named, Func<Tensor> rows, Func<(Tensor Up, Tensor Down)> product, Tensor? magnitude)
    {
        if (named.DoraAxis is not null && magnitude is null)
        {
            Refuse(new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"'{named.Name}' has DoRA's magnitudes of other rows too: no module of these rows has the same effect.", "Merge the adapter into its model instead.") { Target = named.Name });
            return;
        }

        using DisposeScope scope = NewDisposeScope();
        switch (_inexact)
        {
            case InexactRows.Full:
                AdapterModule whole = ModuleRows.Whole(named, rows(), magnitude);
                Array.ForEach([FactorNames.W1, FactorNames.W2], suffix => whole.Tensors[suffix].MoveToOuterDisposeScope());
                _modules.Add(whole);
                break;
            case InexactRows.Lora when magnitude is null:
                AdapterOther lora = ModuleRows.Lora(named, product());
                lora.Tensors.Values.ToList().ForEach(static tensor => tensor.MoveToOuterDisposeScope());
                _others.Add(lora);
                break;
            default:
                _refused.Add(named.Name);
                break;
        }
    }

    // Where a program alone would want another division, it has no names for the adapter instead.
    private void Refuse(LoKrException exception)
    {
        if (_isRequired)
        {
            throw exception;
        }

        _refused.Add($"{exception.Target}");
    }

    private AdapterContent Finish()
    {
        foreach ((PartsKey key, List<(AdapterModule Module, WeightRows Rows)> group) in _parts)
        {
            if (key.IsLora && _parts.ContainsKey(key with { IsLora = false }))
            {
                Refuse(TwoKinds(group[0].Module.Name));
            }
            else
            {
                Fuse(key.Place, group, key.IsLora);
            }
        }

        if (_refused.Count > 0 && !_isRequired)
        {
            return _content;
        }

        const int Most = 10;
        return _refused.Count == 0 ? _content with { Modules = _modules, Others = _others }
            : throw new LoKrException(ErrorIds.DivisionInexact, LoKrErrorKind.NotSupported,
                $"The rows of {_refused.Count} modules are not one Kronecker product, because the height of a factor does not divide them: {string.Join(", ", _refused.Take(Most))}{(_refused.Count > Most ? " …" : "")}.",
                "Choose what they become: LoRA, or whole matrices.") { Target = _refused[0] };
    }

    private static LoKrException Misfit(AdapterModule module, WeightPlace place) => new(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
        $"'{module.Name}' is [{module.Geometry.Out}, {module.Geometry.M * module.Geometry.Columns}], which is not what '{place.Name(NameSets.File)}' is divided into.", "The adapter was made for another model.") { Target = module.Name };

    private static LoKrException TwoKinds(string name) => new(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
        $"'{name}' belongs to a weight that has LoKr and LoRA, which cannot be divided apart because they have one alpha.", "Merge the adapter into its model instead.") { Target = name };

    /// <summary>A weight whose parts are put together, each kind of adapter for itself.</summary>
    private readonly record struct PartsKey(AdapterComponent Component, WeightPlace Place, bool IsLora);
}
