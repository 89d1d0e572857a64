using LoKr.Core.Modeling;

namespace LoKr.Models;

/// <summary>Names of a known architecture, for work on files without a model.</summary>
public static class ModelNames
{
    /// <summary>The names of the architecture that a folder's config.json names.</summary>
    /// <param name="folder">Folder of a model.</param>
    /// <returns>Null where the architecture has one generation of names, is not known, or the folder has no config.json.</returns>
    /// <exception cref="Core.LoKrException"><c>LoKr.ModelConfigInvalid</c>.</exception>
    public static IModuleAliases? Find(string folder) => Architecture(folder)?.Layout.Names;

    /// <summary>The class of the architecture with its task head, for example <c>BertForSequenceClassification</c>.</summary>
    /// <param name="folder">Folder of a model.</param>
    /// <returns>Null where the architecture has no head of its own, is not known, or the folder has no config.json.</returns>
    /// <exception cref="Core.LoKrException"><c>LoKr.ModelConfigInvalid</c>.</exception>
    public static string? FindHeadClass(string folder) => Architecture(folder) is { Layout.HeadPrefixes.Count: > 0 } architecture ? architecture.Name : null;

    private static ModelArchitecture? Architecture(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        if (!File.Exists(Path.Combine(folder, ModelConfig.FileName)))
        {
            return null;
        }

        ModelConfig config = ModelConfig.Load(folder);
        return (config.GetString("model_type", null) ?? config.GetString(ModelConfig.ClassNameKey, null)) is string modelType
            && ArchitectureRegistry.Default.ModelTypes.Contains(modelType, StringComparer.Ordinal)
            ? ArchitectureRegistry.Default.Get(config)
            : null;
    }
}
