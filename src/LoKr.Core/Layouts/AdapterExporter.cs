using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layers;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Writes adapters of models in any layout.</summary>
public static class AdapterExporter
{
    /// <summary>Writes one adapter.</summary>
    /// <param name="model">The model.</param>
    /// <param name="name">Name of the adapter.</param>
    /// <param name="destination">Safetensors file to write; a folder for PEFT's and diffusers' layouts.</param>
    /// <param name="layout">Layout.</param>
    /// <param name="options">Component, and whether to replace.</param>
    /// <returns>Warnings.</returns>
    /// <exception cref="LoKrException">
    /// <c>LoKr.AdapterNotFound</c>; <c>LoKr.ConversionUnsupported</c> where the layout cannot express the adapter;
    /// <c>LoKr.DestinationExists</c>, <c>LoKr.InvalidArgument</c>, <c>LoKr.FileNotWritable</c>.
    /// </exception>
    public static IReadOnlyList<string> Export(LoKrModel model, string name, string destination, AdapterLayout layout, AdapterWriteOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentException.ThrowIfNullOrEmpty(destination);
        using IDisposable reading = model.BeginReading();
        return [.. AdapterWriter.Write(Path.GetFullPath(destination), layout, Content(model, name, AdapterComponent.Model), options ?? new()), .. Unsaved(model, name)];
    }

    /// <summary>Writes the adapters of that name on the parts of a pipeline to one file.</summary>
    /// <param name="models">Models by the names of their folders: unet or transformer, text_encoder, text_encoder_2 and so on. Those without the adapter are skipped.</param>
    /// <param name="name">Name of the adapters.</param>
    /// <param name="destination">Safetensors file to write.</param>
    /// <param name="layout">Layout whose names tell the parts of a pipeline apart: Kohya, Comfy, Diffusers or OneTrainer.</param>
    /// <param name="options">Whether to replace.</param>
    /// <returns>Warnings.</returns>
    /// <exception cref="LoKrException">As for one model; <c>LoKr.AdapterNotFound</c> if no model has the adapter.</exception>
    public static IReadOnlyList<string> Export(IReadOnlyDictionary<string, LoKrModel> models, string name, string destination, AdapterLayout layout, AdapterWriteOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(models);
        ArgumentException.ThrowIfNullOrEmpty(destination);
        using ModelUses reading = ModelUses.Run(models.Values, "read");
        (AdapterContent content, IReadOnlyList<string> unsaved) = Content(models, name);
        return [.. AdapterWriter.Write(Path.GetFullPath(destination), layout, content, options ?? new()), .. unsaved];
    }

    /// <summary>
    /// Writes the adapter of a model, or the adapters of a name on all components of a pipeline: as one file in layouts that name components,
    /// or in PEFT's layout as a folder for each component, named as in the pipeline.
    /// </summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="name">Name of the adapters.</param>
    /// <param name="destination">File or folder to write.</param>
    /// <param name="layout">Layout.</param>
    /// <param name="options">Whether to replace; for a single model also its component.</param>
    /// <returns>Warnings.</returns>
    /// <exception cref="LoKrException">As for one model; nothing is written when one component cannot be.</exception>
    public static IReadOnlyList<string> Export(IAdaptable target, string name, string destination, AdapterLayout layout, AdapterWriteOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentException.ThrowIfNullOrEmpty(destination);
        options ??= new();
        using IDisposable reading = target.BeginReading();
        if (options.Program is AdapterProgram program and not AdapterProgram.Peft)
        {
            (AdapterContent content, IReadOnlyList<string> unsaved) = Content(target, name);
            return [.. ProgramWriter.Write(Path.GetFullPath(destination), program, content, options), .. unsaved];
        }

        layout = options.Program is null ? layout : AdapterLayout.Peft;
        if (target.Models.TryGetValue("", out LoKrModel? single))
        {
            return Export(single, name, destination, layout, options);
        }

        if (options.Component is not null)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"A component is given, but {target.Name} has several: {string.Join(", ", target.Models.Keys)}.", "Export one of its models to choose a component.")
            { Target = options.Component };
        }

        KeyValuePair<string, LoKrModel>[] adapted = [.. target.Models.Where(part => part.Value.Adapters.Any(adapter => adapter.Name == name))];
        if (layout is not AdapterLayout.Peft || adapted.Length == 0)
        {
            return Export(target.Models, name, destination, layout, options);
        }

        foreach (KeyValuePair<string, LoKrModel> part in adapted)
        {
            FileSystem.CheckReplaceable(Path.Combine(destination, part.Key, PeftAdapterFolder.ConfigFile), options.Force);
        }

        if (!options.CheckOnly)
        {
            FileSystem.CreateFolder(destination);
        }

        return [.. adapted.SelectMany(part => Export(part.Value, name, Path.Combine(destination, part.Key), layout, options))];
    }

    /// <summary>The adapter of a model, or the adapters of a name on all components of a pipeline, in memory, with warnings about what is not saved.</summary>
    internal static (AdapterContent Content, IReadOnlyList<string> Unsaved) Content(IAdaptable target, string name) => target.Models.TryGetValue("", out LoKrModel? single)
        ? (Content(single, name, AdapterComponent.Model), [.. Unsaved(single, name)])
        : Content(target.Models, name);

    private static (AdapterContent Content, IReadOnlyList<string> Unsaved) Content(IReadOnlyDictionary<string, LoKrModel> models, string name)
    {
        List<AdapterContent> parts = [];
        List<string> unsaved = [];
        foreach ((string folder, LoKrModel model) in models)
        {
            if (AdapterComponents.ByFolder.TryGetValue(folder, out AdapterComponent component) && model.Adapters.Any(adapter => adapter.Name == name))
            {
                parts.Add(Content(model, name, component));
                unsaved.AddRange(Unsaved(model, name));
            }
        }

        if (parts.Count == 0)
        {
            throw new LoKrException(ErrorIds.AdapterNotFound, LoKrErrorKind.NotFound, $"No part of the pipeline has an adapter '{name}'.", "Add or load the adapter first, or use the name of another one.") { Target = name };
        }

        AdapterContent content = new()
        {
            Modules = [.. parts.SelectMany(static part => part.Modules)],
            Norms = [.. parts.SelectMany(static part => part.Norms)],
            Saved = parts.SelectMany(static part => part.Saved).ToDictionary(static pair => pair.Key, static pair => pair.Value, StringComparer.Ordinal),
            Configs = parts.SelectMany(static part => part.Configs).ToDictionary(static pair => pair.Key, static pair => pair.Value),
            BaseModels = parts.SelectMany(static part => part.BaseModels).ToDictionary(static pair => pair.Key, static pair => pair.Value),
            AllNames = parts.Count == 1 ? parts[0].AllNames : [],
        };
        return (content, unsaved);
    }

    private static IEnumerable<string> Unsaved(LoKrModel model, string name) => AdapterWarnings.Unsaved(name, model.GetAdapter(name).UnsavedModules);

    private static AdapterContent Content(LoKrModel model, string name, AdapterComponent component)
    {
        LoKrAdapter adapter = model.GetAdapter(name);
        Dictionary<string, torch.Tensor> saved = new(adapter.GetTensors(), StringComparer.Ordinal);
        List<AdapterModule> modules = [];
        foreach (LoKrLayer layer in adapter.Layers)
        {
            foreach (string suffix in layer.Factors.Tensors.Keys)
            {
                saved.Remove(ModuleTree.Join(layer.ModuleName, suffix));
            }

            modules.Add(Module(layer, component));
        }

        List<AdapterNorm> norms = [];
        foreach (LoKrNorm norm in adapter.Norms)
        {
            Dictionary<string, torch.Tensor> changes = norm.Tensors.ToDictionary(static entry => entry.Suffix, static entry => entry.Tensor, StringComparer.Ordinal);
            foreach (string suffix in changes.Keys)
            {
                saved.Remove(ModuleTree.Join(norm.ModuleName, suffix));
            }

            norms.Add(new(component, norm.ModuleName, true, changes));
        }

        return new()
        {
            Modules = modules,
            Norms = norms,
            Saved = saved,
            Configs = new Dictionary<AdapterComponent, LoKrConfig>
            {
                [component] = adapter.Config with { BaseModelNameOrPath = adapter.Config.BaseModelNameOrPath ?? BaseName(model.SourcePath) },
            },
            BaseModels = new Dictionary<AdapterComponent, ModelIdentity> { [component] = adapter.BaseModel with { Problem = ProblemOf(model, adapter) } },
            FactorHint = adapter.Config.DecomposeFactor,
            AllNames = [.. ModuleTree.Modules(model.Module).Select(static entry => entry.Name)],
        };
    }

    // A training may have found it out, which the folder of the model does not say.
    private static ClassificationProblem? ProblemOf(LoKrModel model, LoKrAdapter adapter) =>
        adapter.SavedModules.Count > 0 && model.Pretrained is ISequenceClassifier classifier ? ClassificationProblems.Find(classifier) : null;

    // The name of the model, and for a component that of its pipeline, as diffusers names it.
    private static string? BaseName(string? folder) => MachinePaths.NameOf(
        folder is not null && Path.GetDirectoryName(folder) is string above && File.Exists(Path.Combine(above, "model_index.json")) ? above : folder);

    private static AdapterModule Module(LoKrLayer layer, AdapterComponent component)
    {
        FactorShapes shapes = layer.Shapes;
        bool isFlat = shapes.LowRankW2 && !shapes.Tucker;
        FactorGeometry geometry = new(
            shapes.L,
            shapes.M,
            shapes.K,
            isFlat ? shapes.Kernel.Aggregate(shapes.N, static (product, size) => product * size) : shapes.N,
            isFlat ? null : shapes.Kernel,
            shapes.LowRankW1 ? shapes.OuterRank ?? shapes.Rank : null,
            shapes.LowRankW2 ? shapes.Rank : null,
            shapes.Tucker);
        return new(component, layer.ModuleName, true, geometry, new(layer.R, layer.Alpha, layer.Config.Scaling, layer.DefaultScaling), layer.Factors.Tensors)
        {
            WeightShape = [layer.BaseLayer.OutFeatures, layer.BaseLayer.InFeatures, .. layer.BaseLayer.Kernel],
            IsReversed = shapes.Reversed,
            KindBeyondPeft = layer.BaseLayer.HasLoKrInPeft ? null : layer.BaseLayer.TypeName,
            DoraAxis = layer.Config.WeightDecompose ? layer.Config.WeightDecomposeAxis : null,
        };
    }
}
