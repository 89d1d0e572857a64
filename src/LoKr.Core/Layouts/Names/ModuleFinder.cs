using LoKr.Core.Errors;

namespace LoKr.Core.Layouts.Names;

/// <summary>
/// Finds the modules of one adapter file in a model: by name, by the tables of names, and where these know some of them not, by a prefix that all of
/// these have and the model's names do not.
/// </summary>
internal sealed class ModuleFinder
{
    private readonly AdapterFile _file;
    private readonly ModuleNameIndex _index;
    private readonly Lazy<IReadOnlyDictionary<(AdapterComponent Component, string Name), KnownModule>> _byPrefix;

    /// <summary>Prepares to find modules.</summary>
    /// <param name="file">The file.</param>
    /// <param name="index">The model.</param>
    public ModuleFinder(AdapterFile file, ModuleNameIndex index)
    {
        (_file, _index) = (file, index);
        _byPrefix = new(() => index.FindByPrefix(AdapterLayouts.IsUnderscored(file.Layout) ? [] : file.Modules
            .Concat(file.Others)
            .Select(module => (Component: ComponentOf(module), module.Name)).Where(name => index.Find(name.Component, name.Name) is null)));
    }

    /// <summary>The error for modules that the model does not have.</summary>
    /// <param name="modules">The modules.</param>
    public LoKrException Unknown(IEnumerable<AdapterFileModule> modules)
    {
        AdapterFileModule[] unknown = [.. modules.DistinctBy(static module => (module.Component, module.Name))];
        const int Most = 30;
        AdapterComponent[] components = [.. _file.Modules.Select(static module => module.Component).Concat(_file.Foreign.Select(static tensor => tensor.Component)).Distinct()];
        AdapterComponent[] missing = [.. unknown.Select(static module => module.Component).Distinct()];
        int count = _file.Modules.Select(static module => (module.Component, module.Name)).Concat(_file.Foreign.Select(static tensor => (tensor.Component, tensor.Module))).Distinct().Count();
        string advice = components.Length > 1 && missing.Length < components.Length
            ? $"The file is for several parts of a pipeline; choose one: {string.Join(", ", components.Except(missing))}."
            : _index.IsSingleFile && _index.Model is null
            ? $"The base model is one file, and no table of models has its names, such as '{_index.Example}': name the model in a published layout, or the folder of its component."
            : "The adapter was made for another model.";
        return new(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidData,
            $"{unknown.Length} of {count} modules of '{_file.Path}' are not in {_index.Target}: "
            + $"{string.Join(", ", unknown.Take(Most).Select(static module => module.ToString()))}{(unknown.Length > Most ? " …" : "")}.", advice) { Target = unknown[0].Name };
    }

    /// <summary>The module of the model that a module of the file is; null where there is none, or more than one.</summary>
    public KnownModule? Find(AdapterFileModule module)
    {
        AdapterComponent component = ComponentOf(module);
        return _index.Find(component, module.Name) ?? _byPrefix.Value.GetValueOrDefault((component, module.Name));
    }

    private AdapterComponent ComponentOf(AdapterFileModule module) => TextEncoders.ComponentOf(module, _index.Model ?? _file.Model);
}

/// <summary>Which text encoder a module belongs to. Layouts number them one way and models another: ComfyUI's <c>t5xxl</c> is the first, the second or the third.</summary>
internal static class TextEncoders
{
    /// <summary>The component of a module by the names of its model; that of the layout where these do not tell.</summary>
    /// <param name="module">The module of a file.</param>
    /// <param name="model">The model, or null.</param>
    public static AdapterComponent ComponentOf(AdapterFileModule module, RecognizedModel? model) => model is not null && AdapterComponents.IsTextEncoder(module.Component)
        && model.Candidates.SelectMany(family => new NameTranslator(family).Find(AdapterKey.Split(module.Tensors.Values.First().Name).Module)).Select(static match => match.Place.Part.Component)
            .Where(AdapterComponents.IsTextEncoder).Distinct().ToArray() is [AdapterComponent only] ? only : module.Component;
}
