using LoKr.Core.Configuration;
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
        bool IsWanted(AdapterFileModule module) => options.Component is not AdapterComponent wanted || AdapterComponents.Matches(module.Component, wanted);
        HashSet<string> unwanted = [.. file.Modules.Where(module => !IsWanted(module)).Select(static module => module.Name)];
        reading.ThrowIfInvalid(finding => !unwanted.Contains(finding.Target));
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
        if (contents.Count == 0 && norms.Count == 0 && file.SavedTensors.Count == 0)
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
            AllNames = index is null || contents.Count == 0 ? [] : index.Names(contents[0].Component),
        };
    }

    private static AdapterModule Module(AdapterFile file, Names names, ModuleReading reading)
    {
        (AdapterFileModule module, FactorGeometry geometry, ModuleScale scale) = reading;
        (string name, bool isDotted, KnownModule? known) = names.Of(module);
        IReadOnlyList<long>? weight = known?.WeightShape is IReadOnlyList<long> shape ? Fit(file, module, geometry, shape) : null;
        bool fromPeft = file.FollowsPeft || file.Layout == AdapterLayout.DiffusersModel
            || (file.Layout == AdapterLayout.Diffusers && file.HasConfig);
        Conv1dLayout conv1d = (AdapterLayouts.HasAlphaTensors(file.Layout) ? null : file.ConfigOf(module.Component))?.Conv1dLayout ?? (fromPeft ? Conv1dLayout.Peft : Conv1dLayout.Kronecker);
        return new(module.Component, name, isDotted, geometry, scale, Tensors(file, module))
        {
            WeightShape = weight,
            IsReversed = conv1d == Conv1dLayout.Peft && geometry.InnerRank is null && geometry.Kernel!.Count == 1,
            DoraAxis = module.Tensors.TryGetValue(FactorNames.DoraScale, out SafetensorsEntry? magnitude) ? FactorGeometry.DoraAxis(magnitude, geometry) : null,
        };
    }

    private static Dictionary<string, torch.Tensor> Tensors(AdapterFile file, AdapterFileModule module) =>
        module.Tensors.ToDictionary(static pair => pair.Key, pair => file.Tensors.Read(pair.Value.Name), StringComparer.Ordinal);

    /// <summary>The shape of the base weight as out×in×kernel, which the factors must fit.</summary>
    private static IReadOnlyList<long> Fit(AdapterFile file, AdapterFileModule module, FactorGeometry geometry, IReadOnlyList<long> weight)
    {
        long columns = geometry.M * geometry.Columns;
        long kernel = weight.Skip(2).Product();
        bool Fits(long rows, long inputs) => rows == geometry.Out
            && (geometry.Kernel is null ? columns == inputs * kernel && geometry.Columns % kernel == 0 : columns == inputs && SameKernel(geometry.Kernel, weight.Skip(2)));
        return weight.Count >= 2 && Fits(weight[0], weight[1]) ? weight

            // GPT-2's Conv1D stores the weight as in×out.
            : weight.Count == 2 && Fits(weight[1], weight[0]) ? [weight[1], weight[0]]
            : throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
                $"The factors of '{module}' in '{file.Path}' give [{geometry.Out}, {columns}{(geometry.Kernel is null ? "" : string.Concat(geometry.Kernel.Select(static size => $", {size}")))}], "
                + $"but the weight of the base model is [{string.Join(", ", weight)}].",
                "The adapter was made for another model.") { Target = module.Name };
    }

    // The core of a one-dimensional convolution has a second kernel dimension of 1 in PEFT.
    private static bool SameKernel(IReadOnlyList<long> kernel, IEnumerable<long> weight)
    {
        long[] expected = [.. weight];
        return kernel.SequenceEqual(expected) || (kernel is [_, 1] && expected.Length == 1 && kernel[0] == expected[0]);
    }

    private sealed class Names(AdapterFile file, ModuleNameIndex? index)
    {
        private readonly List<AdapterFileModule> _unknown = [];
        private readonly Dictionary<string, AdapterFileModule> _seen = new(StringComparer.Ordinal);

        public (string Name, bool IsDotted, KnownModule? Known) Of(AdapterFileModule module)
        {
            string key = AdapterKey.Split(module.Tensors.Values.First().Name).Module;
            bool isDotted = !AdapterLayouts.IsUnderscored(file.Layout) && !(key.EndsWith(module.Name, StringComparison.Ordinal) && key[..^module.Name.Length].EndsWith('_'));
            if (index is null)
            {
                SafetensorsEntry entry = module.Tensors.Values.First();
                string prefixed = entry.Name[..entry.Name.LastIndexOf('.')];
                return file.OriginalNames.TryGetValue(prefixed, out string? original) ? (original, true, null)
                    : file.Model?.Unwrap(key) is string unwrapped ? (unwrapped, true, null)
                    : (module.Name, isDotted, null);
            }

            if (index.Find(module.Component, module.Name) is not KnownModule known)
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
            if (index is null)
            {
                return file.OriginalNames.TryGetValue(key, out string? original) ? (original, true) : file.Model?.Unwrap(NamePrefixes.WithoutCompiled(key)) is string unwrapped ? (unwrapped, true) : (module.Name, isDotted);
            }

            if (index.Find(module.Component, module.Name) is KnownModule known)
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
                const int Most = 30;
                AdapterComponent[] components = [.. file.Modules.Select(static module => module.Component).Distinct()];
                AdapterComponent[] unknown = [.. _unknown.Select(static module => module.Component).Distinct()];
                string advice = components.Length > 1 && unknown.Length < components.Length
                    ? $"The file is for several parts of a pipeline; choose one: {string.Join(", ", components.Except(unknown))}."
                    : "The adapter was made for another model.";
                throw new LoKrException(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidData,
                    $"{_unknown.Count} of {file.Modules.Count} modules of '{file.Path}' are not in {index!.Target}: "
                    + $"{string.Join(", ", _unknown.Take(Most).Select(static module => module.ToString()))}{(_unknown.Count > Most ? " …" : "")}.", advice) { Target = _unknown[0].Name };
            }
        }
    }
}
