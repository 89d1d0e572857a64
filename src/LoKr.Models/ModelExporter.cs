using LoKr.Core.Adapters;

namespace LoKr.Models;

/// <summary>Writes a model as a folder that transformers loads.</summary>
public static class ModelExporter
{
    /// <summary>Writes config.json, weights, tokenizer and generation files; the folder appears complete or not at all.</summary>
    /// <param name="model">The model, merged or without adapters.</param>
    /// <param name="destination">Folder to write.</param>
    /// <param name="force">Replace what is there.</param>
    /// <param name="maxShardBytes">Largest size of one weights file in bytes.</param>
    public static void Export(LoKrModel model, string destination, bool force = false, long maxShardBytes = long.MaxValue) => throw new NotImplementedException();
}
