using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Loads adapter files of any layout onto models.</summary>
public static class AdapterImporter
{
    /// <summary>Loads a file onto a model. Every module of the file must be one of the model's.</summary>
    /// <param name="model">The model: any module tree, with the names of diffusers or transformers where the file has those.</param>
    /// <param name="file">The file.</param>
    /// <param name="options">Overrides for what the file does not say, or says wrongly.</param>
    /// <param name="name">Name of the adapter on the model.</param>
    /// <param name="trainable">Whether it takes gradients while it is active.</param>
    /// <exception cref="LoKrException">
    /// The file is not valid; modules are not the model's (<c>LoKr.AdapterModulesUnknown</c>); shapes do not fit (<c>LoKr.AdapterShapeMismatch</c>,
    /// <c>LoKr.AdapterKeysMismatch</c>); its head is for other labels (<c>LoKr.LabelsMismatch</c>); the file has options that models do not support
    /// (<c>LoKr.OptionNotSupported</c>). The model is unchanged.
    /// </exception>
    public static LoKrAdapter Import(LoKrModel model, AdapterFile file, AdapterReadOptions? options = null, string name = "default", bool trainable = false)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(file);
        options ??= new();
        using DisposeScope scope = torch.NewDisposeScope();
        (LoKrConfig config, IReadOnlyDictionary<string, torch.Tensor> tensors) = Read(model, file, options, trainable);
        LoKrAdapter adapter = model.LoadAdapter(config, tensors, name, trainable);
        BaseModelCheck.TakeProblem(model, file);
        adapter.AddWarnings(BaseModelCheck.Warnings(model, file, options.Component ?? AdapterComponent.Model));
        return adapter;
    }

    /// <summary>Loads a file onto the parts of a pipeline, as an adapter of the same name on each. Every module of the file must be one of a part's.</summary>
    /// <param name="models">Models by the name of their folders: unet or transformer, text_encoder, text_encoder_2 and so on.</param>
    /// <param name="file">The file.</param>
    /// <param name="options">Overrides for what the file does not say, or says wrongly.</param>
    /// <param name="name">Name of the adapters on the models.</param>
    /// <param name="trainable">Whether they take gradients while they are active.</param>
    /// <returns>The adapters by the names of the models.</returns>
    /// <exception cref="LoKrException">As for one model; all models are unchanged.</exception>
    public static IReadOnlyDictionary<string, LoKrAdapter> Import(
        IReadOnlyDictionary<string, LoKrModel> models, AdapterFile file, AdapterReadOptions? options = null, string name = "default", bool trainable = false)
    {
        ArgumentNullException.ThrowIfNull(models);
        ArgumentNullException.ThrowIfNull(file);
        options ??= new();
        return AllOrNone(models, name, PartsOf(models, file, options).Select(part =>
            KeyValuePair.Create(part.Component, Import(part.Model, file, part.Options, name, trainable))));
    }

    /// <summary>
    /// Loads an adapter onto a model, or onto the components of a pipeline that it is for: from a file whose names tell the components, or from a
    /// folder with a PEFT folder for each component, named as in the pipeline (<c>unet</c>, <c>text_encoder</c>).
    /// </summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="path">The file or folder.</param>
    /// <param name="options">Overrides for what the file does not say, or says wrongly.</param>
    /// <param name="name">Name of the adapters on the models.</param>
    /// <param name="trainable">Whether they take gradients while they are active.</param>
    /// <param name="onFinding">Called with each finding of a file's reader.</param>
    /// <returns>The adapters by component.</returns>
    /// <exception cref="LoKrException">As for one model; every component is unchanged.</exception>
    public static IReadOnlyDictionary<string, LoKrAdapter> Import(
        IAdaptable target,
        string path,
        AdapterReadOptions? options = null,
        string name = "default",
        bool trainable = false,
        Action<LoKrAdapterFinding>? onFinding = null)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentException.ThrowIfNullOrEmpty(path);
        return AllOrNone(target.Models, name, Open(target, path, options ?? new(), onFinding).Select(part =>
            KeyValuePair.Create(part.Component, Import(part.Model, part.File, part.Options, name, trainable))));
    }

    /// <summary>Throws what <see cref="Import(IAdaptable, string, AdapterReadOptions?, string, bool, Action{LoKrAdapterFinding}?)"/> would throw. Nothing is changed.</summary>
    /// <inheritdoc cref="Import(IAdaptable, string, AdapterReadOptions?, string, bool, Action{LoKrAdapterFinding}?)"/>
    public static void Check(
        IAdaptable target,
        string path,
        AdapterReadOptions? options = null,
        string name = "default",
        bool trainable = false,
        Action<LoKrAdapterFinding>? onFinding = null)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentException.ThrowIfNullOrEmpty(path);
        foreach (Part part in Open(target, path, options ?? new(), onFinding))
        {
            using DisposeScope scope = torch.NewDisposeScope();
            (LoKrConfig config, IReadOnlyDictionary<string, torch.Tensor> tensors) = Read(part.Model, part.File, part.Options, trainable);
            part.Model.CheckLoadAdapter(config, tensors, name, trainable);
        }
    }

    /// <summary>Parts of an adapter file by the component of a target. A file is open while its parts are enumerated.</summary>
    private static IEnumerable<Part> Open(IAdaptable target, string path, AdapterReadOptions options, Action<LoKrAdapterFinding>? onFinding)
    {
        KeyValuePair<string, LoKrModel>[] folders =
            [.. target.Models.Where(part => part.Key.Length == 0 || File.Exists(Path.Combine(path, part.Key, PeftAdapterFolder.ConfigFile)))];
        if (folders.Length == 0)
        {
            using AdapterFile file = OpenFile(path);
            foreach (Part part in PartsOf(target.Models, file, options))
            {
                yield return part;
            }
        }

        foreach ((string folder, LoKrModel model) in folders)
        {
            using AdapterFile file = OpenFile(Path.Combine(path, folder));
            yield return new(folder, model, file, options);
        }

        AdapterFile OpenFile(string place)
        {
            AdapterFile file = AdapterFile.Open(place, options.Layout);
            foreach (LoKrAdapterFinding finding in file.Findings)
            {
                onFinding?.Invoke(finding);
            }

            foreach (string message in AdapterReading.Left(file, options))
            {
                onFinding?.Invoke(new(LoKrFindingSeverity.Warning, ErrorIds.AdapterTypeNotSupported, message, file.WeightsPath));
            }

            return file;
        }
    }

    private static IEnumerable<Part> PartsOf(IReadOnlyDictionary<string, LoKrModel> models, AdapterFile file, AdapterReadOptions options)
    {
        IEnumerable<AdapterComponent> components = options.Component is AdapterComponent wanted ? [wanted] : file.Modules.Select(static module => module.Component).Distinct();
        return components.Select(component =>
        {
            string folder = models.Keys.FirstOrDefault(key => AdapterComponents.ByFolder.TryGetValue(key, out AdapterComponent known) && AdapterComponents.Matches(component, known))
                ?? throw new LoKrException(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidData,
                    $"'{file.Path}' has modules of {component}, and the pipeline has {string.Join(", ", models.Keys)}.", "Choose one component.") { Target = file.Path };
            return new Part(folder, models[folder], file, options with { Component = component });
        });
    }

    /// <summary>Configuration and tensors of a file under the names of a model.</summary>
    private static (LoKrConfig Config, IReadOnlyDictionary<string, torch.Tensor> Tensors) Read(LoKrModel model, AdapterFile file, AdapterReadOptions options, bool trainable)
    {
        BaseModelCheck.RequireLabels(model, file);
        if (AdapterLayouts.IsPeft(file.Layout) && file.HasConfig && options is { Alpha: null, Scaling: null, Component: null })
        {
            return ReadPeft(file, options, trainable);
        }

        ModuleNameIndex index = ModuleNameIndex.FromModule(model.Module, model.Name);
        AdapterContent content = AdapterContentReader.ReadDivided(file, options, index);
        return (Config(file, options, content) with { InferenceMode = !trainable, TrainNorm = content.Norms.Count > 0 }, Tensors(content));
    }

    /// <summary>Loads adapters one after the other, and removes those that were loaded if one cannot be.</summary>
    /// <param name="models">Models by the names of their folders.</param>
    /// <param name="name">Name of the adapters.</param>
    /// <param name="loads">A deferred sequence, each element of which loads an adapter.</param>
    private static Dictionary<string, LoKrAdapter> AllOrNone(IReadOnlyDictionary<string, LoKrModel> models, string name, IEnumerable<KeyValuePair<string, LoKrAdapter>> loads)
    {
        Dictionary<string, LoKrAdapter> adapters = new(StringComparer.Ordinal);
        try
        {
            foreach ((string folder, LoKrAdapter adapter) in loads)
            {
                adapters.Add(folder, adapter);
            }

            return adapters;
        }
        catch
        {
            foreach (string folder in adapters.Keys)
            {
                models[folder].RemoveAdapter(name);
            }

            throw;
        }
    }

    /// <summary>A file with PEFT's names and configuration, by PEFT's rules; any difference is an error.</summary>
    private static (LoKrConfig Config, IReadOnlyDictionary<string, torch.Tensor> Tensors) ReadPeft(AdapterFile file, AdapterReadOptions options, bool trainable)
    {
        AdapterReading.Of(file, options).ThrowIfInvalid();
        return (file.ConfigOf(AdapterComponent.Model)! with { InferenceMode = !trainable },
            file.TensorNames.ToDictionary(static pair => pair.Key, pair => file.Tensors.Read(pair.Value), StringComparer.Ordinal));
    }

    /// <summary>The file's own configuration where it results in these shapes, or an inferred one.</summary>
    private static LoKrConfig Config(AdapterFile file, AdapterReadOptions options, AdapterContent content)
    {
        AdapterComponent component = content.Modules.Count > 0 ? content.Modules[0].Component : AdapterComponent.Model;
        bool isOverridden = options.Alpha is not null || options.Scaling is not null;
        ScalingConvention convention = content.Modules.Count > 0 ? content.Modules[0].Scale.Convention : ScalingConvention.Lycoris;
        LoKrConfig inferred = AdapterConfigBuilder.Build(content.Modules, content, convention);
        if (isOverridden || AdapterLayouts.HasAlphaTensors(file.Layout) || file.ConfigOf(component) is not LoKrConfig own)
        {
            return file.ConfigOf(component) is LoKrConfig stored ? inferred with { ModulesToSave = stored.ModulesToSave, TaskType = stored.TaskType } : inferred;
        }

        // The targets of the configuration may be names of another tree, so those of the file's modules replace them.
        return AdapterConfigBuilder.Reproduces(own, content.Modules) ? own with { TargetModules = inferred.TargetModules, ExcludeModules = null, LayersToTransform = null, LayersPattern = null } : inferred;
    }

    private static Dictionary<string, torch.Tensor> Tensors(AdapterContent content)
    {
        Dictionary<string, torch.Tensor> tensors = new(content.Saved, StringComparer.Ordinal);
        foreach (AdapterModule module in content.Modules)
        {
            foreach ((string suffix, torch.Tensor tensor) in module.Factors)
            {
                tensors.Add(ModuleTree.Join(module.Name, suffix), tensor);
            }
        }

        foreach (AdapterNorm norm in content.Norms)
        {
            foreach ((string suffix, torch.Tensor tensor) in norm.Changes)
            {
                tensors.Add(ModuleTree.Join(norm.Name, suffix), tensor);
            }
        }

        return tensors;
    }

    /// <summary>A file for one component of a target.</summary>
    private sealed record Part(string Component, LoKrModel Model, AdapterFile File, AdapterReadOptions Options);
}
