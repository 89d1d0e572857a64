using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Merging.Checkpoints;
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
            norms.Add(new(names.ComponentOf(norm), name, isDotted, Tensors(file, norm)));
        }

        List<AdapterOther> others = [];
        if (options.Foreign == ForeignTensors.Carry)
        {
            OtherModule[] wanted = [.. OtherModule.Of(file, options).Where(other => IsWanted(other.Module))];
            reading.With(OtherModule.Findings([.. wanted.Where(static other => other.Kind.Unsupported is null)], skips: false)).ThrowIfInvalid(file, options);
            foreach (OtherModule other in wanted)
            {
                (string name, bool isDotted, KnownModule? known) = names.OfOther(other.Module);
                if (known?.WeightShape is IReadOnlyList<long> shape && other is { Kind.HasProduct: true } && !other.Fits(shape) && !(shape.Count == 2 && other.Fits([shape[1], shape[0]])))
                {
                    throw OtherChange.Mismatch(other, System.IO.Path.GetFileName(file.Path), shape);
                }

                others.Add(new(names.ComponentOf(other.Module), known?.Swapped ?? name, isDotted, other.Read()));
            }
        }

        names.ThrowIfUnknown();
        if (contents.Count == 0 && norms.Count == 0 && others.Count == 0 && file.SavedTensors.Count == 0)
        {
            throw new LoKrException(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidData,
                $"'{file.Path}' has no modules{(options.Component is null ? "" : $" of the component {options.Component}")}.",
                $"It has modules of {string.Join(", ", file.Modules.Select(static module => module.Component).Concat(file.Foreign.Select(static tensor => tensor.Component)).Distinct())}.") { Target = file.Path };
        }

        return OneDenoiser(new()
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
        });
    }

    /// <summary>A file may have prefixes of UNets and of transformers side by side, as ComfyUI reads them; a model has one denoiser.</summary>
    private static AdapterContent OneDenoiser(AdapterContent content)
    {
        if (!content.Components.Contains(AdapterComponent.Unet) || !content.Components.Contains(AdapterComponent.Transformer))
        {
            return content;
        }

        AdapterComponent denoiser = content.Model?.Denoiser ?? AdapterComponent.Transformer;
        AdapterComponent Of(AdapterComponent component) => component is AdapterComponent.Unet or AdapterComponent.Transformer ? denoiser : component;
        return content with
        {
            Modules = [.. content.Modules.Select(module => module with { Component = Of(module.Component) })],
            Norms = [.. content.Norms.Select(norm => norm with { Component = Of(norm.Component) })],
            Others = [.. content.Others.Select(other => other with { Component = Of(other.Component) })],
        };
    }

    /// <summary>Reads a file whose factors are decomposed: LoRA alone counts as factors of LoKr, under the configuration beside it.</summary>
    /// <param name="file">The file.</param>
    /// <param name="options">Overrides for what the file does not say, or says wrongly.</param>
    /// <param name="index">Modules of the base model, or null. If given, every module of the file must be among them.</param>
    /// <param name="divide">Divides the modules as the result needs them; what becomes LoRA counts as factors too. Null to leave them.</param>
    /// <exception cref="LoKrException">As for <see cref="Read"/>.</exception>
    public static AdapterContent ReadFactors(AdapterFile file, AdapterReadOptions options, ModuleNameIndex? index, Func<AdapterContent, AdapterContent>? divide = null)
    {
        bool isLora = IsLora(file, options);
        AdapterContent content = Read(file, isLora ? options with { Foreign = ForeignTensors.Carry } : options, index);
        content = divide?.Invoke(content) ?? content;
        return content with
        {
            Modules = [.. content.Modules, .. content.Others.Select(static other => other.AsFactors())],
            Others = [],
            Configs = isLora ? file.LowRank.ToDictionary(static pair => pair.Key, static pair => pair.Value.Shared) : content.Configs,
        };
    }

    /// <summary>Whether a file has LoRA, and neither LoKr nor another kind of adapter.</summary>
    /// <param name="file">The file.</param>
    /// <param name="options">Overrides for what the file does not say, or says wrongly.</param>
    public static bool IsLora(AdapterFile file, AdapterReadOptions options) =>
        file.Modules.Count == 0 && file.Foreign.Count > 0 && OtherModule.Of(file, options).All(static other => other.Kind is { IsLora: true, IsEmbedding: false });

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
        if (index.Model is null || file.Modules.Where(module => options.Wants(module.Component)).All(module => finder.Find(module) is not null))
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

        AdapterModule result = new(names.ComponentOf(module), name, isDotted, geometry, scale, tensors)
        {
            WeightShape = weight,
            IsReversed = reading.IsReversed(file),
            DoraAxis = reading.DoraAxis,
        };

        // Under the model's name the two halves of the rows change places; where factors cannot, the file's name says the same.
        return known?.Swapped is not string asked ? result : ModuleRows.Swap(result) ?? result with { Name = asked };
    }

    private static Dictionary<string, torch.Tensor> Tensors(AdapterFile file, AdapterFileModule module) =>
        module.Tensors.ToDictionary(static pair => pair.Key, pair => file.Tensors.Read(pair.Value.Name), StringComparer.Ordinal);

    private sealed class Names(AdapterFile file, ModuleNameIndex? index)
    {
        private readonly ModuleFinder? _finder = index is null ? null : new(file, index);
        private readonly List<AdapterFileModule> _unknown = [];
        private readonly Dictionary<(AdapterComponent, string), string> _seen = [];
        private readonly Dictionary<(AdapterComponent, string), string> _seenOthers = [];

        /// <summary>The part of a pipeline that a module belongs to.</summary>
        public AdapterComponent ComponentOf(AdapterFileModule module) => TextEncoders.ComponentOf(module, index?.Model ?? file.Model);

        /// <summary>The name of a module with factors or of a norm.</summary>
        public (string Name, bool IsDotted, KnownModule? Known) Of(AdapterFileModule module) => Of(module, _seen);

        /// <summary>The name of a module with another kind of adapter, which may have LoKr's factors too.</summary>
        public (string Name, bool IsDotted, KnownModule? Known) OfOther(AdapterFileModule module) => Of(module, _seenOthers);

        private (string Name, bool IsDotted, KnownModule? Known) Of(AdapterFileModule module, Dictionary<(AdapterComponent, string), string> seen)
        {
            (string rest, SafetensorsEntry entry) = module.Tensors.First();
            string stored = entry.Name[..entry.Name.LastIndexOf("." + rest, StringComparison.Ordinal)];
            string key = NamePrefixes.WithoutCompiled(stored);
            if (_finder is null)
            {
                bool isDotted = !AdapterLayouts.IsUnderscored(file.Layout) && !(key.EndsWith(module.Name, StringComparison.Ordinal) && key[..^module.Name.Length].EndsWith('_'));
                string? dotted = file.OriginalNames.GetValueOrDefault(stored) ?? file.Model?.Unwrap(key);
                See(seen, dotted ?? module.Name, ComponentOf(module), stored);
                return (dotted ?? module.Name, dotted is not null || isDotted, null);
            }

            if (_finder.Find(module) is KnownModule known)
            {
                See(seen, known.Name, ComponentOf(module), stored);
                return (known.Name, true, known);
            }

            _unknown.Add(module);
            return (module.Name, false, null);
        }

        // Both kinds of denoisers are one; a module may have LoKr and another kind, each once.
        private void See(Dictionary<(AdapterComponent, string), string> seen, string name, AdapterComponent component, string stored)
        {
            (AdapterComponent, string) key = (component == AdapterComponent.Transformer ? AdapterComponent.Unet : component, name);
            if (!seen.TryAdd(key, stored))
            {
                throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                    $"'{stored}' and '{seen[key]}' in '{file.Path}' are two names of '{name}'.", "The file mixes the names of two programs; keep one of the two modules.") { Target = stored };
            }
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
