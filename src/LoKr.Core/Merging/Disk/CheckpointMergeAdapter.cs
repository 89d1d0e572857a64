namespace LoKr.Core.Merging;

/// <summary>An adapter to merge into a checkpoint.</summary>
/// <param name="Path">Folder with <c>adapter_config.json</c> and <c>adapter_model.safetensors</c>.</param>
/// <param name="Weight">Strength, 1 as trained; saved modules are not scaled.</param>
public sealed record CheckpointMergeAdapter(string Path, double Weight = 1)
{
    /// <summary>Name of the folder.</summary>
    public string Name => System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(Path)));
}
