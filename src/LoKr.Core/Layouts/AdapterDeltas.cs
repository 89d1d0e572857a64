using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layers;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>An adapter that is looked into: one of a model or a pipeline, or one in a file or folder.</summary>
public abstract record AdapterReference
{
    private AdapterReference()
    {
    }

    /// <summary>Name of the adapter, or last part of its path.</summary>
    public abstract string Name { get; }

    /// <summary>An adapter of a model or a pipeline.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="name">Name of the adapter.</param>
    public static AdapterReference OfModel(IAdaptable target, string name) => new InModel(target, name);

    /// <summary>An adapter in a file or folder.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <param name="options">Information that is not in the file. The base model resolves names, and relates norms to its weights.</param>
    /// <param name="name">What it is called; null for the last part of the path.</param>
    public static AdapterReference OfFile(string path, AdapterConvertOptions? options = null, string? name = null) => new InFile(path, options ?? new(), name);

    /// <summary>Reads the deltas; their tensors belong to the current dispose scope or to the model.</summary>
    /// <exception cref="LoKrException">The model has no such adapter, or the file is not valid.</exception>
    internal abstract AdapterDeltas Open();

    /// <summary>The name of the adapter on a model; null for an adapter in a file.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>: it is on another model.</exception>
    internal abstract string? FindIn(LoKrModel model);

    /// <summary>Loads an adapter from its file onto a model.</summary>
    /// <param name="model">The model.</param>
    /// <param name="name">Name of the adapter there.</param>
    internal abstract void LoadOnto(LoKrModel model, string name);

    private sealed record InModel(IAdaptable Target, string Adapter) : AdapterReference
    {
        public override string Name => Adapter;

        internal override AdapterDeltas Open()
        {
            IReadOnlyDictionary<string, LoKrAdapter> adapters = Target.GetAdapters(Adapter);
            return new(
                Adapter,
                Recorded(adapters.First()),
                [.. adapters.SelectMany(part => part.Value.Layers.Select(layer => Describe(part.Key, layer, Target.Models[part.Key])))],
                [
                    .. adapters.SelectMany(part => part.Value.Norms.SelectMany(norm => norm.Tensors.Select(tensor => new TensorDelta(ModuleTree.Join(part.Key, ModuleTree.Join(norm.ModuleName, tensor.Suffix)), tensor.Tensor, norm.Scale)))),
                    .. adapters.SelectMany(part => part.Value.Copies.SelectMany(copy => copy.LocalNames.Where(copy.IsParameter).Select(local => new TensorDelta(ModuleTree.Join(part.Key, ModuleTree.Join(copy.ModuleName, local)), copy.Value(local), 1)))),
                ]);
        }

        /// <summary>The configuration as a file of the adapter would have it.</summary>
        private LoKrConfig Recorded(KeyValuePair<string, LoKrAdapter> part) =>
            part.Value.Config with { BaseModelNameOrPath = MachinePaths.NameOf(part.Value.Config.BaseModelNameOrPath ?? Target.Models[part.Key].SourcePath) };

        internal override string? FindIn(LoKrModel model) => Target.Models.Values.Contains(model)
            ? Adapter
            : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"The adapter '{Adapter}' is on another model.", "Compare the answers of adapters on one model, or of files.") { Target = Adapter };

        internal override void LoadOnto(LoKrModel model, string name) => throw new NotSupportedException();

        private static AdapterDelta Describe(string component, LoKrLayer layer, LoKrModel model) => new(
            component,
            layer.ModuleName,
            layer.Factors,
            layer.Config.WeightDecompose ? layer.DefaultScaling : layer.Scaling,
            layer.R,
            layer.Config.WeightDecompose ? layer.Factors.Tensors[FactorNames.DoraScale] : null,
            () => model.BaseWeightNorm(layer));
    }

    private sealed record InFile(string Path, AdapterConvertOptions Options, string? Called) : AdapterReference
    {
        public override string Name => Called ?? System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(Path)));

        internal override AdapterDeltas Open()
        {
            using AdapterFile file = AdapterFile.Open(Path, Options.Read.Layout);
            bool isDotted = !AdapterLayouts.IsUnderscored(file.Layout);

            // Files with dots are matched with the base model's weights by the rules of a merge, which know prefixes.
            AdapterContent content = AdapterContentReader.Read(file, Options.Read, isDotted && Options.Model is null ? null : BaseModelNames.Find(Options.Model, Options.BasePath));
            BaseWeights? weights = Options.BasePath is null ? null : BaseWeights.Find(Options.BasePath, content.Modules);
            LoKrConfig? config = content.Configs.Values.FirstOrDefault()
                ?? (content.Modules.Count == 0 ? null : AdapterConfigBuilder.Build(content.Modules, content, content.Modules[0].Scale.Convention));
            return new(
                Name,
                config,
                [.. content.Modules.Select(module => Describe(module, weights))],
                [
                    .. content.Norms.SelectMany(static norm => norm.Changes.Select(change => new TensorDelta(ModuleTree.Join(FolderOf(norm.Component), ModuleTree.Join(norm.Name, change.Key)), change.Value, 1))),
                    .. content.Saved.Select(static entry => new TensorDelta(entry.Key, entry.Value, 1)),
                ]);
        }

        internal override string? FindIn(LoKrModel model) => null;

        internal override void LoadOnto(LoKrModel model, string name)
        {
            using AdapterFile file = AdapterFile.Open(Path, Options.Read.Layout);
            AdapterImporter.Import(model, file, Options.Read, name);
        }

        private static AdapterDelta Describe(AdapterModule module, BaseWeights? weights)
        {
            Dictionary<string, Tensor> factors = module.Factors.ToDictionary(StringComparer.Ordinal);

            // Where only the base layer would tell the kernel, it counts as columns of w2: norms and singular values are the same.
            return new(
                FolderOf(module.Component),
                module.Name,
                new KroneckerFactors(factors, module.Kernel ?? [], module.IsReversed),
                module.Scale.Factor,
                module.Scale.Rank,
                factors.GetValueOrDefault(FactorNames.DoraScale),
                () => weights?.Norm(module));
        }

        private static string FolderOf(AdapterComponent component) =>
            AdapterComponents.ByFolder.FirstOrDefault(pair => pair.Value == component).Key ?? "";
    }
}

/// <summary>The changes that an adapter makes, without their dense form.</summary>
/// <param name="Name">Name of the adapter or of its file.</param>
/// <param name="Config">Its configuration, inferred from the shapes where the file has none; null for an adapter without factors and configuration.</param>
/// <param name="Layers">Layers with factors.</param>
/// <param name="Tensors">Changes of norms, and modules that were trained whole.</param>
internal sealed record AdapterDeltas(string Name, LoKrConfig? Config, IReadOnlyList<AdapterDelta> Layers, IReadOnlyList<TensorDelta> Tensors);

/// <summary>The change of one layer.</summary>
/// <param name="Component">Component of a pipeline; empty for a single model.</param>
/// <param name="LocalName">Name of the layer in its component.</param>
/// <param name="Factors">The factors.</param>
/// <param name="Scale">Scale of w1 ⊗ w2, the strength of the adapter included.</param>
/// <param name="Rank">Rank; null where it is not known.</param>
/// <param name="Magnitude">DoRA's magnitudes; null without them.</param>
/// <param name="BaseNorm">Computes ‖W‖ of the base weight; null where it is not known.</param>
internal sealed record AdapterDelta(string Component, string LocalName, KroneckerFactors Factors, double Scale, long? Rank, Tensor? Magnitude, Func<double?> BaseNorm)
{
    /// <summary>Full name; it begins with the component.</summary>
    public string Name => ModuleTree.Join(Component, LocalName);

    /// <summary>Output size.</summary>
    public long OutFeatures => Factors.OutFeatures;

    /// <summary>Input size times the kernel.</summary>
    public long Columns => Factors.InFeatures * Factors.Kernel.Product();
}

/// <summary>A tensor that an adapter holds as it is: the change of a norm, or a parameter of a module that was trained whole.</summary>
/// <param name="Name">Full name.</param>
/// <param name="Value">The tensor.</param>
/// <param name="Scale">Strength of a change.</param>
internal sealed record TensorDelta(string Name, Tensor Value, double Scale);
