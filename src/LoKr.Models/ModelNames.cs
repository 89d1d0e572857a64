using LoKr.Core.Modeling;

namespace LoKr.Models;

/// <summary>The two generations of names of an architecture's modules, for work on files without a model.</summary>
public static class ModelNames
{
    /// <summary>The names of the architecture that a folder's config.json names.</summary>
    /// <param name="folder">Folder of a model.</param>
    /// <returns>Null where the architecture has one generation of names, is not known, or the folder has no config.json.</returns>
    /// <exception cref="Core.LoKrException"><c>LoKr.ModelConfigInvalid</c>.</exception>
    public static IModuleAliases? Find(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        if (!File.Exists(Path.Combine(folder, ModelConfig.FileName)))
        {
            return null;
        }

        ModelConfig config = ModelConfig.Load(folder);
        return (config.GetString("model_type", null) ?? config.GetString(ModelConfig.ClassNameKey, null)) is string modelType && ArchitectureRegistry.Default.ModelTypes.Contains(modelType, StringComparer.Ordinal)
            ? ArchitectureRegistry.Default.Get(config).Layout.Names
            : null;
    }
}
