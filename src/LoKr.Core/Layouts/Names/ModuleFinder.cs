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
        _byPrefix = new(() => index.FindByPrefix(AdapterLayouts.IsUnderscored(file.Layout) ? [] : file.Modules.Select(static module => (module.Component, module.Name))
            .Concat(file.Foreign.Select(static tensor => (tensor.Component, tensor.Module))).Where(name => index.Find(name.Component, name.Item2) is null)));
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

    /// <summary>The module that a name of the file refers to; null where there is none, or more than one.</summary>
    public KnownModule? Find(AdapterComponent component, string name) => _index.Find(component, name) ?? _byPrefix.Value.GetValueOrDefault((component, name));
}
