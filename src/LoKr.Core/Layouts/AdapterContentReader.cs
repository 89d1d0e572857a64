using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Reads an adapter file into memory, with the names and shapes of the base model where it is given.</summary>
internal static class AdapterContentReader
{
    /// <summary>Reads everything. The tensors belong to the current dispose scope.</summary>
    /// <param name="file">The file.</param>
    /// <param name="options">Overrides for what the file does not say, or says wrongly.</param>
    /// <param name="index">Modules of the base model, or null. If given, every module of the file must be among them.</param>
    /// <exception cref="LoKrException">The file is not valid, or modules are unknown (LoKr.AdapterModulesUnknown).</exception>
    public static AdapterContent Read(AdapterFile file, AdapterReadOptions options, ModuleNameIndex? index)
    {
        AdapterReading reading = AdapterReading.Of(file, options);
        bool IsWanted(AdapterFileModule module) => options.Wants(module.Component);
        reading.ThrowIfInvalid(file, options);
        Names names = new(file, index);
        List<AdapterModule> contents = [.. reading.Modules.Where(entry => IsWanted(entry.Module)).Select(entry => Module(file, names, entry))];
        List<AdapterNorm> norms = [];
        foreach (AdapterFileModule norm in file.Modules.Where(module => module.IsNorm && IsWanted(module)))
        {
            (string name, bool isDotted, _) = names.Of(norm);
            norms.Add(new(norm.Component, name, isDotted, Tensors(file, norm)));
        }

        List<AdapterOther> others = [];
        foreach (IGrouping<(AdapterComponent Component, string Module), AdapterForeignTensor> other in options.Foreign == ForeignTensors.Carry ? file.Foreign.GroupBy(static tensor => (tensor.Component, tensor.Module)) : [])
        {
            AdapterFileModule module = new(other.Key.Component, other.Key.Module, other.ToDictionary(static tensor => tensor.Suffix, static tensor => tensor.Entry, StringComparer.Ordinal), null);
            if (IsWanted(module))
            {
                (string name, bool isDotted) = names.OfOther(module);
                others.Add(new(module.Component, name, isDotted, Tensors(file, module)));
            }
        }

        names.ThrowIfUnknown();
        if (contents.Count == 0 && norms.Count == 0 && others.Count == 0 && file.SavedTensors.Count == 0)
        {
            throw new LoKrException(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidData,
                $"'{file.Path}' has no modules{(options.Component is null ? "" : $" of the component {options.Component}")}.",
                $"It has modules of {string.Join(", ", file.Modules.Select(static module => module.Component).Distinct())}.") { Target = file.Path };
        }

        return new()
        {
            Modules = contents,
            Norms = norms,
            Others = others,
            Saved = file.SavedTensors.ToDictionary(static pair => pair.Key, pair => file.Tensors.Read(pair.Value), StringComparer.Ordinal),
            Configs = file.Configs,
            BaseModels = file.BaseModels,
            Metadata = file.Metadata,
            FactorHint = file.FactorHint,
            Model = index?.Model ?? file.Model,
            UnknownBase = index is { IsSingleFile: true, Model: null } ? index.Target : null,
            AllNames = index is null || contents.Count == 0 ? [] : index.Names(contents[0].Component),
        };
    }

    /// <summary>
    /// Reads a file for a model in memory, which may divide its weights otherwise: q, k and v of a fused weight become modules of their own, and the other
    /// way round, where their rows are one Kronecker product.
    /// </summary>
    /// <param name="file">The file.</param>
    /// <param name="options">Overrides for what the file does not say, or says wrongly.</param>
    /// <param name="index">Modules of the model. Every module of the file must be among them.</param>
    /// <exception cref="LoKrException">As for <see cref="Read"/>, and <c>LoKr.DivisionInexact</c>.</exception>
    public static AdapterContent ReadDivided(AdapterFile file, AdapterReadOptions options, ModuleNameIndex index)
    {
        ModuleFinder finder = new(file, index);
        if (index.Model is null || file.Modules.Where(module => options.Wants(module.Component)).All(module => finder.Find(module.Component, module.Name) is not null))
        {
            return Read(file, options, index);
        }

        AdapterContent content = Read(file, options, null) with { Model = index.Model, AllNames = index.Names(AdapterComponent.Model) };
        return DividedContent.Of(content, name => index.Find(AdapterComponent.Model, name) is not null) is ModuleDivision division
            ? Named(DividedContent.As(content, division, InexactRows.Refuse), index)

            // Says which modules the model does not have.
            : Read(file, options, index);
    }

    /// <summary>The same modules under the names of a model that has all of them.</summary>
    private static AdapterContent Named(AdapterContent content, ModuleNameIndex index) => content with
    {
        Modules = [.. content.Modules.Select(module =>
        {
            KnownModule known = index.Find(AdapterComponent.Model, module.Name)!;
            IReadOnlyList<long> weight = module.Geometry.Fit(known.WeightShape!) ?? throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
                $"The factors of '{module}' give [{module.Geometry.Out}, {module.Geometry.M * module.Geometry.Columns}], but the weight of the model is [{string.Join(", ", known.WeightShape!)}].", "The adapter was made for another model.")
            { Target = module.Name };
            return module with { Name = known.Name, IsDotted = true, WeightShape = weight };
        })],
        Norms = [.. content.Norms.Select(norm => norm with { Name = index.Find(AdapterComponent.Model, norm.Name)!.Name, IsDotted = true })],
    };

    private static AdapterModule Module(AdapterFile file, Names names, ModuleReading reading)
    {
        (AdapterFileModule module, FactorGeometry geometry, ModuleScale scale) = reading;
        (string name, bool isDotted, KnownModule? known) = names.Of(module);
        IReadOnlyList<long>? weight = known?.WeightShape is IReadOnlyList<long> shape ? geometry.Fit(shape) ?? throw geometry.Mismatch(file, module, shape) : null;
        Dictionary<string, torch.Tensor> tensors = Tensors(file, module);
        if (weight is not null && geometry is { Kernel: not null, InnerRank: null } && !geometry.Kernel.SequenceEqual(weight.Skip(2)))
        {
            geometry = geometry with { Kernel = [.. weight.Skip(2)] };
            tensors[FactorNames.W2] = tensors[FactorNames.W2].reshape([geometry.K, geometry.Columns, .. geometry.Kernel]);
        }

        return new(module.Component, name, isDotted, geometry, scale, tensors)
        {
            WeightShape = weight,
            IsReversed = reading.IsReversed(file),
            DoraAxis = reading.DoraAxis,
        };
    }

    private static Dictionary<string, torch.Tensor> Tensors(AdapterFile file, AdapterFileModule module) =>
        module.Tensors.ToDictionary(static pair => pair.Key, pair => file.Tensors.Read(pair.Value.Name), StringComparer.Ordinal);

    private sealed class Names(AdapterFile file, ModuleNameIndex? index)
    {
        private readonly ModuleFinder? _finder = index is null ? null : new(file, index);
        private readonly List<AdapterFileModule> _unknown = [];
        private readonly Dictionary<string, AdapterFileModule> _seen = new(StringComparer.Ordinal);

        public (string Name, bool IsDotted, KnownModule? Known) Of(AdapterFileModule module)
        {
            string key = AdapterKey.Split(module.Tensors.Values.First().Name).Module;
            bool isDotted = !AdapterLayouts.IsUnderscored(file.Layout) && !(key.EndsWith(module.Name, StringComparison.Ordinal) && key[..^module.Name.Length].EndsWith('_'));
            if (_finder is null)
            {
                SafetensorsEntry entry = module.Tensors.Values.First();
                string prefixed = entry.Name[..entry.Name.LastIndexOf('.')];
                return file.OriginalNames.TryGetValue(prefixed, out string? original) ? (original, true, null)
                    : file.Model?.Unwrap(key) is string unwrapped ? (unwrapped, true, null)
                    : (module.Name, isDotted, null);
            }

            if (_finder.Find(module.Component, module.Name) is not KnownModule known)
            {
                _unknown.Add(module);
                return (module.Name, isDotted, null);
            }

            if (!_seen.TryAdd(known.Name, module) && _seen[known.Name].Component == module.Component)
            {
                throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                    $"'{module.Name}' and '{_seen[known.Name].Name}' in '{file.Path}' are two names of '{known.Name}'.", "The file mixes the names of two programs; keep one of the two modules.") { Target = module.Name };
            }

            return (known.Name, true, known);
        }

        /// <summary>The name of a module with another kind of adapter, which may have LoKr's factors too.</summary>
        public (string Name, bool IsDotted) OfOther(AdapterFileModule module)
        {
            SafetensorsEntry entry = module.Tensors.Values.First();
            string key = entry.Name[..entry.Name.LastIndexOf("." + module.Tensors.Keys.First(), StringComparison.Ordinal)];
            bool isDotted = !AdapterLayouts.IsUnderscored(file.Layout) && !(key.EndsWith(module.Name, StringComparison.Ordinal) && key[..^module.Name.Length].EndsWith('_'));
            if (_finder is null)
            {
                return file.OriginalNames.TryGetValue(key, out string? original) ? (original, true) : file.Model?.Unwrap(NamePrefixes.WithoutCompiled(key)) is string unwrapped ? (unwrapped, true) : (module.Name, isDotted);
            }

            if (_finder.Find(module.Component, module.Name) is KnownModule known)
            {
                return (known.Name, true);
            }

            _unknown.Add(module);
            return (module.Name, isDotted);
        }

        public void ThrowIfUnknown()
        {
            if (_unknown.Count > 0)
            {
                throw _finder!.Unknown(_unknown);
            }
        }
    }
}
