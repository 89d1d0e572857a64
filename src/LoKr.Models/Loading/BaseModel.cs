using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Models.Families;

namespace LoKr.Models.Loading;

/// <summary>Base models on disk, for merges that do not load them.</summary>
public static class BaseModel
{
    /// <summary>Reads the config.json of a folder and finds its architecture.</summary>
    /// <param name="folder">Folder of a model; it may have no config.json, or one of an unknown architecture.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelConfigInvalid"/>, <see cref="ErrorIds.FileNotReadable"/>.</exception>
    public static CheckpointBase Read(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        CheckpointBase model = CheckpointBase.Read(folder);
        ModelArchitecture? architecture = model.Config is ModelConfig config ? ArchitectureRegistry.Default.Find(config) : null;
        return model with { Names = architecture?.Layout.Names, HeadClass = architecture?.Layout.HeadPrefixes.Count > 0 ? architecture.Name : null };
    }
}
