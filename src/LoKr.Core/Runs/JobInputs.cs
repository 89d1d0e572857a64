using System.Text.Json;
using LoKr.Core.IO;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Runs;

/// <summary>
/// SHA-256 hashes of what a job works on, as lower-case hexadecimal digits. They are taken from the files, before a model is loaded, so that a
/// night with nothing new ends in a moment.
/// </summary>
public sealed record JobInputs
{
    /// <summary>The files of data, in the order of their paths.</summary>
    public required string Data { get; init; }

    /// <summary>The files of validation data; null without.</summary>
    public string? ValidationData { get; init; }

    /// <summary>The weights, by the fingerprint of the checkpoint, and the other files of the model, those in folders of their own (<c>1_Pooling</c>) too.</summary>
    public required string BaseModel { get; init; }

    /// <summary>Labels, configuration and training of the job, as far as its result depends on them.</summary>
    public required string Configuration { get; init; }

    /// <summary>All of them in one hash.</summary>
    internal string Digest => ContentHash.OfText($"{Data}\n{ValidationData}\n{BaseModel}\n{Configuration}");

    /// <summary>The hashes of a job.</summary>
    /// <param name="job">The job.</param>
    /// <param name="data">Its files of data.</param>
    /// <param name="validation">Its files of validation data.</param>
    internal static JobInputs Of(LoKrJob job, IReadOnlyList<string> data, IReadOnlyList<string> validation) => new()
    {
        Data = HashOf(data),
        ValidationData = validation.Count == 0 ? null : HashOf(validation),
        BaseModel = HashOfModel(job.FullPath(job.Base.Path)),
        Configuration = ContentHash.OfText(JsonSerializer.Serialize(new
        {
            job.Base.Labels,
            job.Base.DType,
            job.Base.Pooling,
            job.Base.Normalize,
            job.Configuration,
            Training = job.Training with { TimeLimit = null },
            job.Data.NewLabels,
            job.Data.Columns,
            job.Data.SkipInvalid,
            job.Registry?.StartFrom,
        }, JobSchema.Options) + job.Base.Task),
    };

    internal static string HashOfModel(string folder)
    {
        using CheckpointReader checkpoint = CheckpointReader.Open(folder);
        IEnumerable<string> inside = CompanionFiles.List(folder).Where(static file => Path.GetDirectoryName(file)!.Length > 0).Select(file => Path.Combine(folder, file));
        string[] described = [.. Directory.EnumerateFiles(folder).Order(StringComparer.Ordinal).Concat(inside).Where(static path => Path.GetExtension(path) is ".json" or ".txt" or ".model" or ".jinja")];
        return ContentHash.OfText($"{CheckpointFingerprint.Compute(checkpoint)}\n{HashOf(described)}");
    }

    internal static string HashOf(IReadOnlyList<string> files) => ContentHash.OfText(string.Join('\n', files.Select(ContentHash.OfFile)));
}

/// <summary>Files by patterns: <c>*</c> and <c>?</c> in names, <c>**</c> for any number of folders.</summary>
internal static class FilePatterns
{
    /// <summary>The files that a pattern matches, in the order of their paths; none where nothing matches.</summary>
    /// <param name="pattern">A full path; a file of that very name is meant before a pattern.</param>
    public static IReadOnlyList<string> Expand(string pattern)
    {
        if (File.Exists(pattern))
        {
            return [pattern];
        }

        string root = Path.GetPathRoot(pattern)!;
        string[] parts = pattern[root.Length..].Split([Path.DirectorySeparatorChar, Path.AltDirectorySeparatorChar], StringSplitOptions.RemoveEmptyEntries);
        IEnumerable<string> folders = [root];
        foreach (string part in parts.SkipLast(1))
        {
            folders = part == "**" ? folders.SelectMany(static folder => Directory.EnumerateDirectories(folder, "*", SearchOption.AllDirectories).Prepend(folder))
                : HasWildcard(part) ? folders.SelectMany(folder => Directory.EnumerateDirectories(folder, part))
                : folders.Select(folder => Path.Combine(folder, part)).Where(Directory.Exists);
        }

        string[] found = parts.Length == 0 ? [] : [.. folders.SelectMany(folder => Directory.EnumerateFiles(folder, parts[^1] == "**" ? "*" : parts[^1])).Distinct(StringComparer.Ordinal)];
        Array.Sort(found, StringComparer.Ordinal);
        return found;
    }

    private static bool HasWildcard(string part) => part.AsSpan().ContainsAny('*', '?');
}
