using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Loads adapter files of any layout onto models.</summary>
public static class AdapterImporter
{
    /// <summary>Loads a file onto a model. Every module of the file has to be one of the model's.</summary>
    /// <param name="model">The model: any module tree, with the names of diffusers or transformers where the file has those.</param>
    /// <param name="file">The file.</param>
    /// <param name="options">What the caller says where the file is silent or misleads.</param>
    /// <param name="name">Name that the adapter gets.</param>
    /// <param name="trainable">Whether it takes gradients while it is active.</param>
    /// <exception cref="LoKrException">
    /// The file is not valid; modules are not the model's (<c>LoKr.AdapterModulesUnknown</c>); shapes do not fit (<c>LoKr.AdapterShapeMismatch</c>,
    /// <c>LoKr.AdapterKeysMismatch</c>); the file has what models do not take (<c>LoKr.OptionNotSupported</c>). The model is as before.
    /// </exception>
    public static LoKrAdapter Import(LoKrModel model, AdapterFile file, AdapterReadOptions? options = null, string name = "default", bool trainable = false)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(file);
        options ??= new();
        using DisposeScope scope = torch.NewDisposeScope();
        if (file.Layout is AdapterLayout.Peft or AdapterLayout.PeftInMemory && file.HasConfig && options is { Alpha: null, Scaling: null, Component: null })
        {
            return ImportPeft(model, file, name, trainable);
        }

        ModuleNameIndex index = ModuleNameIndex.FromModule(model.Module, model.Name);
        AdapterContent content = AdapterContentReader.Read(file, options, index);
        LoKrConfig config = Config(file, options, content) with { InferenceMode = !trainable, TrainNorm = content.Norms.Count > 0 };
        return model.LoadAdapter(config, Tensors(content), name, trainable);
    }

    /// <summary>Loads a file onto the parts of a pipeline, each of which gets an adapter of that name; every module has to find its place.</summary>
    /// <param name="models">Models by the name of their folders: unet or transformer, text_encoder, text_encoder_2 and so on.</param>
    /// <param name="file">The file.</param>
    /// <param name="options">What the caller says where the file is silent or misleads.</param>
    /// <param name="name">Name that the adapters get.</param>
    /// <param name="trainable">Whether they take gradients while they are active.</param>
    /// <returns>The adapters by the names of the models.</returns>
    /// <exception cref="LoKrException">As for one model; all models are as before.</exception>
    public static IReadOnlyDictionary<string, LoKrAdapter> Import(
        IReadOnlyDictionary<string, LoKrModel> models, AdapterFile file, AdapterReadOptions? options = null, string name = "default", bool trainable = false)
    {
        ArgumentNullException.ThrowIfNull(models);
        ArgumentNullException.ThrowIfNull(file);
        options ??= new();
        Dictionary<string, LoKrAdapter> adapters = new(StringComparer.Ordinal);
        try
        {
            foreach (AdapterComponent component in options.Component is AdapterComponent wanted ? [wanted] : file.Modules.Select(static module => module.Component).Distinct().ToArray())
            {
                string folder = models.Keys.FirstOrDefault(key => ComponentOf(key) is AdapterComponent known && AdapterContentReader.Matches(component, known))
                    ?? throw new LoKrException(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidData,
                        $"'{file.Path}' has modules of {component}, and the pipeline has {string.Join(", ", models.Keys)}.", "Name the component that is wanted.") { Target = file.Path };
                adapters.Add(folder, Import(models[folder], file, options with { Component = component }, name, trainable));
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

    /// <summary>The component that the folder of a pipeline's part stands for; null for parts without adapters.</summary>
    internal static AdapterComponent? ComponentOf(string folder) => AdapterLayouts.Prefixes(AdapterLayout.Diffusers)
        .Where(entry => entry.Prefix[..^1] == folder).Select(static entry => (AdapterComponent?)entry.Component).FirstOrDefault();

    /// <summary>PEFT's own names and configuration: what they mean on a model is PEFT's rule, and anything else an error.</summary>
    private static LoKrAdapter ImportPeft(LoKrModel model, AdapterFile file, string name, bool trainable)
    {
        _ = AdapterValidator.Read(file, new(), out List<LoKrAdapterFinding> findings);
        AdapterValidator.ThrowIfInvalid(file, findings);
        Dictionary<string, torch.Tensor> tensors = file.SavedTensors.ToDictionary(static pair => pair.Key, pair => file.Tensors.Read(pair.Value), StringComparer.Ordinal);
        foreach (AdapterFileModule module in file.Modules)
        {
            foreach ((string suffix, SafetensorsEntry entry) in module.Tensors)
            {
                tensors.Add(ModuleTree.Join(module.Name, suffix), file.Tensors.Read(entry.Name));
            }
        }

        return model.LoadAdapter(file.ConfigOf(AdapterComponent.Model)! with { InferenceMode = !trainable }, tensors, name, trainable);
    }

    /// <summary>The file's own configuration where it gives these shapes and scales, or one that is inferred.</summary>
    private static LoKrConfig Config(AdapterFile file, AdapterReadOptions options, AdapterContent content)
    {
        AdapterComponent component = content.Modules.Count > 0 ? content.Modules[0].Component : AdapterComponent.Model;
        bool isOverridden = options.Alpha is not null || options.Scaling is not null;
        ScalingConvention convention = content.Modules.Count > 0 ? content.Modules[0].Scale.Convention : ScalingConvention.Lycoris;
        LoKrConfig inferred = AdapterConfigBuilder.Build(content.Modules, content, convention);
        if (isOverridden || AdapterLayouts.HasAlphaTensors(file.Layout) || file.ConfigOf(component) is not LoKrConfig own)
        {
            return file.ConfigOf(component) is LoKrConfig noted ? inferred with { ModulesToSave = noted.ModulesToSave, TaskType = noted.TaskType } : inferred;
        }

        // Its targets may be names of another tree; the modules of the file are known.
        return content.Modules.All(module => AdapterConfigBuilder.Gives(own, module)) ? own with { TargetModules = inferred.TargetModules, ExcludeModules = null, LayersToTransform = null, LayersPattern = null } : inferred;
    }

    private static Dictionary<string, torch.Tensor> Tensors(AdapterContent content)
    {
        Dictionary<string, torch.Tensor> tensors = new(content.Saved, StringComparer.Ordinal);
        foreach (AdapterModule module in content.Modules)
        {
            foreach ((string suffix, torch.Tensor tensor) in module.Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha))
            {
                tensors.Add(ModuleTree.Join(module.Name, suffix), tensor);
            }
        }

        foreach (AdapterNorm norm in content.Norms)
        {
            foreach ((string suffix, torch.Tensor tensor) in norm.Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha))
            {
                tensors.Add(ModuleTree.Join(norm.Name, suffix), tensor);
            }
        }

        return tensors;
    }
}
