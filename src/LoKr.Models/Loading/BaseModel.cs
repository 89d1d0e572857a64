using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Models.Families;

namespace LoKr.Models.Loading;

/// <summary>Base models on disk, for merges that do not load them.</summary>
public static class BaseModel
{
    /// <summary>Reads the config.json of a folder and finds its architecture; of a pipeline that of every component.</summary>
    /// <param name="folder">Folder of a model or of a pipeline; it may have no config.json, or one of an unknown architecture. Or a single file, which has none.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelConfigInvalid"/>, <see cref="ErrorIds.FileNotReadable"/>.</exception>
    public static CheckpointBase Read(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        return Describe(CheckpointBase.Read(folder));
    }

    private static CheckpointBase Describe(CheckpointBase model)
    {
        ModelArchitecture? architecture = model.Config is ModelConfig config ? ArchitectureRegistry.Default.Find(config) : null;
        return model with
        {
            Names = architecture?.Layout.Names,
            HeadClass = architecture?.Layout.HeadPrefixes.Count > 0 ? architecture.Name : null,
            CompleteConfig = architecture?.WriteSpellings is { } write ? json => Complete(model.Config!, json, write) : null,
            Components = model.Components.ToDictionary(static part => part.Key, static part => Describe(part.Value), StringComparer.Ordinal),
        };
    }

    // A merge on disk takes models that cannot be built, for a value of their configuration: it stays as it is.
    private static void Complete(ModelConfig config, JsonObject json, Action<ModelConfig, JsonObject> write)
    {
        try
        {
            write(config, json);
        }
        catch (LoKrException exception) when (exception.ErrorId is ErrorIds.ModelConfigInvalid or ErrorIds.ModelConfigUnsupported or ErrorIds.RopeUnsupported)
        {
        }
    }
}
