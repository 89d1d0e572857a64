using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runs;

/// <summary>
/// <c>history.jsonl</c> of an adapter in a registry: one line for each change, written when the change is done. What a killed process changed and
/// did not write is written by the next one that changes something.
/// </summary>
/// <param name="folder">Folder of the adapter; the caller holds its lock.</param>
internal sealed class RegistryHistory(string folder)
{
    public const string Register = "Register";
    public const string Unregister = "Unregister";
    public const string Publish = "Publish";
    public const string Restore = "Restore";

    private static readonly JsonErrors s_errors = new(ErrorIds.RegistryInvalid, ErrorIds.RegistryInvalid, "Restore the file from a copy, or remove it: it is only read by people.");

    private readonly string _path = Path.Combine(folder, "history.jsonl");

    /// <summary>Adds a change.</summary>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>.</exception>
    public void Note(RegistryChange change)
    {
        try
        {
            JsonRecords.Append(_path, change with { Time = DateTime.UtcNow, By = FileLock.DescribeHolder() });
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }
    }

    /// <summary>Adds the changes that are done and not written.</summary>
    /// <param name="numbers">The versions.</param>
    /// <param name="aliases">What the aliases mean.</param>
    /// <exception cref="LoKrException"><c>LoKr.RegistryInvalid</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public void Complete(IReadOnlyCollection<int> numbers, IReadOnlyDictionary<string, AliasTarget> aliases)
    {
        HashSet<int> versions = [];
        Dictionary<string, int> targets = new(StringComparer.Ordinal);
        foreach (RegistryChange change in JsonRecords.ReadLines<RegistryChange>(_path, s_errors))
        {
            switch (change)
            {
                case { Change: Register }:
                    versions.Add(change.Version);
                    break;
                case { Change: Unregister }:
                    versions.Remove(change.Version);
                    break;
                case { Alias: string alias }:
                    targets[alias] = change.Version;
                    break;
            }
        }

        foreach (int number in numbers.Except(versions).Order())
        {
            Note(new() { Change = Register, Version = number });
        }

        foreach ((string alias, AliasTarget target) in aliases)
        {
            int former = targets.GetValueOrDefault(alias);
            if (former != target.Version)
            {
                // A publication remembers the version before, which a restoration forgets.
                Note(new() { Change = (target.Previous.Count == 0 ? 0 : target.Previous[0]) == former ? Publish : Restore, Version = target.Version, Alias = alias, Former = former });
            }
        }

        foreach (int number in versions.Except(numbers).Order())
        {
            Note(new() { Change = Unregister, Version = number });
        }
    }
}

/// <summary>Meaning of an alias.</summary>
internal sealed record AliasTarget
{
    public int Version { get; init; }

    /// <summary>The versions it meant before, the last one first.</summary>
    public IReadOnlyList<int> Previous { get; init; } = [];
}

/// <summary>A change of a registry.</summary>
internal sealed record RegistryChange
{
    public DateTime Time { get; init; }

    public string By { get; init; } = "";

    public required string Change { get; init; }

    public required int Version { get; init; }

    public string? Alias { get; init; }

    public int? Former { get; init; }
}
