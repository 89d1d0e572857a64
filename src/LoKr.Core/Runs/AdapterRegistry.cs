using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>
/// Versions of adapters on plain files: <c>NAME/versions/0007/</c> is a PEFT folder with a card, and never changes; <c>NAME/aliases.json</c> says
/// which version an alias such as <c>champion</c> means; <c>NAME/history.jsonl</c> has a line for each change. Readers need no lock and see
/// whole versions only; one writer at a time has a name.
/// </summary>
public sealed class AdapterRegistry
{
    private const string CardFile = "card.json";
    private const string VersionsFolder = "versions";

    private static readonly JsonErrors s_errors = new(ErrorIds.RegistryInvalid, ErrorIds.RegistryInvalid, "Restore the file from a copy.");

    /// <summary>Names a registry; it is created with its first version.</summary>
    /// <param name="path">Its folder.</param>
    public AdapterRegistry(string path)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        Path = System.IO.Path.GetFullPath(path);
    }

    /// <summary>Full path.</summary>
    public string Path { get; }

    /// <summary>Names of the adapters that have versions. It lists the registry; for one adapter there is <see cref="Contains"/>.</summary>
    public IReadOnlyList<string> Names => FindNames(static _ => true);

    /// <summary>Names of the adapters that have versions, of those that a person asks for.</summary>
    /// <param name="matches">Whether a name is one of them.</param>
    public IReadOnlyList<string> FindNames(Func<string, bool> matches) => !Directory.Exists(Path) ? [] :
        [.. Directory.EnumerateDirectories(Path).Select(static folder => System.IO.Path.GetFileName(folder)).Where(matches).Where(HasVersions).Order(StringComparer.Ordinal)];

    /// <summary>Whether an adapter has versions.</summary>
    /// <param name="name">Name of the adapter.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/> for a name that is not a folder name.</exception>
    public bool Contains(string name)
    {
        CheckName(name, "adapter");
        return HasVersions(name);
    }

    private bool HasVersions(string name) => Directory.Exists(System.IO.Path.Combine(Path, name, VersionsFolder));

    /// <summary>Adds a version: a copy of an adapter folder.</summary>
    /// <param name="name">Name of the adapter in the registry.</param>
    /// <param name="source">A finished run folder, or a PEFT folder.</param>
    /// <param name="card">Lineage and metrics; what a run folder says is added.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.InvalidArgument"/> for a name that is not a folder name; <see cref="ErrorIds.RunNotFound"/> for a run without a result; the
    /// errors of <see cref="PeftAdapterFolder.Read"/>; <see cref="ErrorIds.DestinationBusy"/>; <see cref="ErrorIds.FileNotWritable"/>.
    /// </exception>
    public LoKrAdapterVersion Register(string name, string source, AdapterCard? card = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(source);
        string folder = FolderOf(name);
        string adapter = System.IO.Path.GetFullPath(source);
        card ??= new();
        RunFolder runFolder = new(source);
        if (runFolder.Exists)
        {
            LoKrRun run = runFolder.Read();
            adapter = runFolder.RequireResult();
            card = card with { Run = run.Id, Model = run.Model, Inputs = run.Inputs, Evaluation = card.Evaluation ?? run.After, Gate = card.Gate ?? runFolder.ReadGate()?.ToString(), Seed = run.Seed, Steps = run.Step };
        }

        string[] parts = PartsOf(adapter);
        FileSystem.CreateFolder(System.IO.Path.Combine(folder, VersionsFolder));
        using (Lock(folder, name))
        {
            int number = Numbers(folder).FirstOrDefault() + 1;
            using (StagedDirectory staged = new(PathOf(folder, number), force: false))
            {
                string[] files = [.. parts.SelectMany(static part => (string[])[System.IO.Path.Combine(part, PeftAdapterFolder.WeightsFile), System.IO.Path.Combine(part, PeftAdapterFolder.ConfigFile)])];
                foreach (string file in files)
                {
                    FileSystem.CopyContent(System.IO.Path.Combine(adapter, file), System.IO.Path.Combine(staged.Path, file));
                }

                JsonRecords.Write(System.IO.Path.Combine(staged.Path, CardFile), card with
                {
                    Name = name,
                    Version = number,
                    Created = DateTime.UtcNow,
                    Weights = ContentHash.OfFiles(files.Select(file => System.IO.Path.Combine(staged.Path, file))),
                });
                staged.Commit();
            }

            new RegistryHistory(folder).Note(new() { Change = RegistryHistory.Register, Version = number });
            if (runFolder.Exists)
            {
                runFolder.NoteRegistered(new(name, number));
            }

            return Read(folder, number, ReadAliases(folder));
        }
    }

    /// <summary>Lets an alias mean a version, in one step.</summary>
    /// <param name="name">Name of the adapter.</param>
    /// <param name="version">Number of the version; null for the last one.</param>
    /// <param name="alias">The alias.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.VersionNotFound"/>, <see cref="ErrorIds.DestinationBusy"/>, <see cref="ErrorIds.FileNotWritable"/>.</exception>
    public LoKrAdapterVersion Publish(string name, int? version = null, string alias = "champion")
    {
        string folder = FolderOf(name);
        CheckName(alias, "alias");
        using (Lock(folder, name))
        {
            int number = ToPublish(folder, name, version);
            Dictionary<string, AliasTarget> aliases = ReadAliases(folder);
            AliasTarget now = aliases.GetValueOrDefault(alias, new());
            if (now.Version != number)
            {
                aliases[alias] = new() { Version = number, Previous = now.Version == 0 ? [] : [now.Version, .. now.Previous] };
                WriteAliases(folder, aliases);
                new RegistryHistory(folder).Note(new() { Change = RegistryHistory.Publish, Version = number, Alias = alias, Former = now.Version });
            }

            return Read(folder, number, aliases);
        }
    }

    /// <summary>The version that <see cref="Publish"/> would publish; it throws what that would throw, and changes nothing.</summary>
    /// <inheritdoc cref="Publish"/>
    public int PlanPublication(string name, int? version = null, string alias = "champion")
    {
        string folder = FolderOf(name);
        CheckName(alias, "alias");
        RequireAdapter(folder, name);
        return ToPublish(folder, name, version);
    }

    private int ToPublish(string folder, string name, int? version)
    {
        int number = version ?? Numbers(folder).FirstOrDefault();
        Require(folder, name, number);
        return number;
    }

    /// <summary>Lets an alias mean the version again that it meant before.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.VersionNotFound"/>: there is none before; <see cref="ErrorIds.DestinationBusy"/>, <see cref="ErrorIds.FileNotWritable"/>.</exception>
    public LoKrAdapterVersion Restore(string name, string alias = "champion")
    {
        string folder = FolderOf(name);
        using (Lock(folder, name))
        {
            Dictionary<string, AliasTarget> aliases = ReadAliases(folder);
            AliasTarget before = Before(folder, name, alias, aliases);
            int former = aliases[alias].Version;
            aliases[alias] = before;
            WriteAliases(folder, aliases);
            new RegistryHistory(folder).Note(new() { Change = RegistryHistory.Restore, Version = before.Version, Alias = alias, Former = former });
            return Read(folder, before.Version, aliases);
        }
    }

    /// <summary>The version that <see cref="Restore"/> would take back; it throws what that would throw, and changes nothing.</summary>
    /// <inheritdoc cref="Restore"/>
    public int PlanRestore(string name, string alias = "champion")
    {
        string folder = FolderOf(name);
        RequireAdapter(folder, name);
        return Before(folder, name, alias, ReadAliases(folder)).Version;
    }

    private static AliasTarget Before(string folder, string name, string alias, Dictionary<string, AliasTarget> aliases)
    {
        int[] before = aliases.TryGetValue(alias, out AliasTarget? now) ? [.. now.Previous.SkipWhile(number => !Directory.Exists(PathOf(folder, number)))] : [];
        return before.Length > 0 ? new() { Version = before[0], Previous = before[1..] } : throw new LoKrException(ErrorIds.VersionNotFound, LoKrErrorKind.NotFound,
            now is null ? $"'{name}' has no alias '{alias}'." : FormattableString.Invariant($"'{alias}' of '{name}' is version {now.Version}, and it was never another one."),
            "List the versions, and publish one of them.") { Target = alias };
    }

    /// <summary>The versions of an adapter, the last one first.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.VersionNotFound"/>: the registry has no such adapter; <see cref="ErrorIds.RegistryInvalid"/>.</exception>
    public IReadOnlyList<LoKrAdapterVersion> GetVersions(string name)
    {
        string folder = FolderOf(name);
        Dictionary<string, AliasTarget> aliases = ReadAliases(folder);
        int[] numbers = Numbers(folder);
        return numbers.Length > 0 ? [.. numbers.Select(number => Read(folder, number, aliases))] : throw NotFound(name, $"The registry '{Path}' has no adapter '{name}'.");
    }

    /// <summary>The versions that a run became, by what its folder says. Other registries may have versions of it too, and these may have been removed.</summary>
    /// <param name="run">The run.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.RegistryInvalid"/>, <c>LoKr.RunInvalid</c>.</exception>
    public IReadOnlyList<LoKrAdapterVersion> OfRun(RunFolder run)
    {
        ArgumentNullException.ThrowIfNull(run);
        string id = run.Read().Id;
        return
        [
            .. run.ReadRegistered().Distinct().Where(version => IsName(version.Name) && Directory.Exists(PathOf(FolderOf(version.Name), version.Version)))
                .Select(version => Get(version.Name, version.Version)).Where(version => version.Card.Run == id),
        ];
    }

    /// <summary>The version that an alias means.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.VersionNotFound"/>, <see cref="ErrorIds.RegistryInvalid"/>.</exception>
    public LoKrAdapterVersion Get(string name, string alias = "champion") => Find(name, alias) ?? throw NotFound(name, $"'{name}' has no alias '{alias}' in the registry '{Path}'.");

    /// <summary>The version that an alias means, or null.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.RegistryInvalid"/>.</exception>
    public LoKrAdapterVersion? Find(string name, string alias = "champion")
    {
        string folder = FolderOf(name);
        Dictionary<string, AliasTarget> aliases = ReadAliases(folder);
        return aliases.TryGetValue(alias, out AliasTarget? target) ? Read(folder, target.Version, aliases) : null;
    }

    /// <summary>A version by its number.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.VersionNotFound"/>, <see cref="ErrorIds.RegistryInvalid"/>.</exception>
    public LoKrAdapterVersion Get(string name, int version)
    {
        string folder = FolderOf(name);
        Require(folder, name, version);
        return Read(folder, version, ReadAliases(folder));
    }

    /// <summary>Removes a version.</summary>
    /// <param name="name">Name of the adapter.</param>
    /// <param name="version">Number of the version.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.VersionInUse"/>: an alias means it; <see cref="ErrorIds.VersionNotFound"/>, <see cref="ErrorIds.DestinationBusy"/>.</exception>
    public void Unregister(string name, int version)
    {
        string folder = FolderOf(name);
        using (Lock(folder, name))
        {
            RequireUnused(folder, name, version);
            Remove(folder, version);
        }
    }

    /// <summary>Throws what <see cref="Unregister"/> would throw, and changes nothing.</summary>
    /// <inheritdoc cref="Unregister"/>
    public void CheckUnregister(string name, int version)
    {
        string folder = FolderOf(name);
        RequireAdapter(folder, name);
        RequireUnused(folder, name, version);
    }

    private void RequireUnused(string folder, string name, int version)
    {
        Require(folder, name, version);
        if (ReadAliases(folder).FirstOrDefault(pair => pair.Value.Version == version) is { Key: string alias })
        {
            throw new LoKrException(ErrorIds.VersionInUse, LoKrErrorKind.InvalidOperation,
                FormattableString.Invariant($"Version {version} of '{name}' is its '{alias}'."), "Publish another version first.") { Target = version };
        }
    }

    /// <summary>Removes old versions: all but the last ones, those that an alias means, and those that these came from.</summary>
    /// <param name="name">Name of the adapter.</param>
    /// <param name="keep">How many of the last ones stay.</param>
    /// <returns>Numbers of the versions that were removed.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.VersionNotFound"/>, <see cref="ErrorIds.DestinationBusy"/>, <see cref="ErrorIds.RegistryInvalid"/>.</exception>
    public IReadOnlyList<int> Retain(string name, int keep)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(keep);
        string folder = FolderOf(name);
        using (Lock(folder, name))
        {
            int[] removed = Removable(folder, keep);
            foreach (int number in removed)
            {
                Remove(folder, number);
            }

            return removed;
        }
    }

    /// <summary>Lists the versions that <see cref="Retain"/> would remove.</summary>
    public IReadOnlyList<int> PlanRetention(string name, int keep) => Removable(FolderOf(name), keep);

    private static int[] Removable(string folder, int keep)
    {
        Dictionary<string, AliasTarget> aliases = ReadAliases(folder);
        int[] numbers = Numbers(folder);
        HashSet<int> kept = [.. numbers.Take(keep)];
        foreach (AliasTarget target in aliases.Values)
        {
            // A rollback needs the version before, and a lineage has no gaps.
            kept.UnionWith(target.Previous.Take(1));
            for (int? number = target.Version; number is int at;)
            {
                kept.Add(at);
                int? parent = numbers.Contains(at) ? Read(folder, at, aliases).Card.Parent : null;
                number = parent is int next && next < at ? next : null;
            }
        }

        return [.. numbers.Where(number => !kept.Contains(number))];
    }

    private static void Remove(string folder, int number)
    {
        try
        {
            Contention.RemoveFolder(PathOf(folder, number));
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(PathOf(folder, number), exception);
        }

        new RegistryHistory(folder).Note(new() { Change = RegistryHistory.Unregister, Version = number });
    }

    private static LoKrAdapterVersion Read(string folder, int number, Dictionary<string, AliasTarget> aliases)
    {
        string path = PathOf(folder, number);
        AdapterCard card = JsonRecords.Read<AdapterCard>(System.IO.Path.Combine(path, CardFile), s_errors);
        return new()
        {
            Name = System.IO.Path.GetFileName(folder),
            Registry = System.IO.Path.GetDirectoryName(folder)!,
            Version = number,
            Path = path,
            Aliases = [.. aliases.Where(pair => pair.Value.Version == number).Select(static pair => pair.Key).Order(StringComparer.Ordinal)],
            Created = card.Created,
            Card = card,
        };
    }

    private static int[] Numbers(string folder)
    {
        string versions = System.IO.Path.Combine(folder, VersionsFolder);
        return !Directory.Exists(versions) ? [] :
        [
            .. Directory.EnumerateDirectories(versions)
                .Select(static path => int.TryParse(System.IO.Path.GetFileName(path), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : 0)
                .Where(static number => number > 0).OrderDescending(),
        ];
    }

    private static Dictionary<string, AliasTarget> ReadAliases(string folder)
    {
        string path = System.IO.Path.Combine(folder, "aliases.json");
        return File.Exists(path) ? new(JsonRecords.Read<Dictionary<string, AliasTarget>>(path, s_errors), StringComparer.Ordinal) : new(StringComparer.Ordinal);
    }

    private static void WriteAliases(string folder, Dictionary<string, AliasTarget> aliases) => JsonRecords.Write(System.IO.Path.Combine(folder, "aliases.json"), aliases);

    private static string PathOf(string folder, int number) => System.IO.Path.Combine(folder, VersionsFolder, number.ToString("D4", CultureInfo.InvariantCulture));

    // The folder of an adapter itself, or the folders of the parts of a pipeline in it, whole and readable: what is registered stays for good.
    private static string[] PartsOf(string adapter)
    {
        string[] folders = Directory.Exists(adapter) && !File.Exists(System.IO.Path.Combine(adapter, PeftAdapterFolder.ConfigFile))
            ? [.. Directory.EnumerateDirectories(adapter).Where(static folder => File.Exists(System.IO.Path.Combine(folder, PeftAdapterFolder.ConfigFile))).Order(StringComparer.Ordinal)]
            : [];
        foreach (string folder in folders.Length > 0 ? folders : [adapter])
        {
            PeftAdapterFolder.Read(folder).Dispose();
        }

        return folders.Length > 0 ? [.. folders.Select(static folder => System.IO.Path.GetFileName(folder))] : [""];
    }

    private string FolderOf(string name)
    {
        CheckName(name, "adapter");
        return System.IO.Path.Combine(Path, name);
    }

    private void RequireAdapter(string folder, string name)
    {
        if (!Directory.Exists(folder))
        {
            throw NotFound(name, $"The registry '{Path}' has no adapter '{name}'.");
        }
    }

    private FileLock Lock(string folder, string name)
    {
        RequireAdapter(folder, name);
        FileLock? held = null;
        try
        {
            string versions = System.IO.Path.Combine(folder, VersionsFolder);
            held = DestinationLock.Wait(versions);
            foreach (string left in Directory.Exists(versions) ? Directory.GetDirectories(versions, ".*") : [])
            {
                // Of a process that was killed: nobody else writes versions now.
                Contention.DeleteFolder(left);
            }

            new RegistryHistory(folder).Complete(Numbers(folder), ReadAliases(folder));
            return held;
        }
        catch (Exception exception)
        {
            held?.Dispose();
            if (FileErrors.IsFileSystem(exception))
            {
                throw FileErrors.NotWritable(folder, exception);
            }

            throw;
        }
    }

    private void Require(string folder, string name, int number)
    {
        if (number < 1 || !Directory.Exists(PathOf(folder, number)))
        {
            throw NotFound(name, FormattableString.Invariant($"'{name}' has no version {number} in the registry '{Path}'."));
        }
    }

    /// <summary>Whether a text can be the name of an adapter or of an alias.</summary>
    internal static bool IsName(string name) => name.Length is > 0 and <= 200 && name[0] != '.' && name.All(static c => char.IsLetterOrDigit(c) || c is '-' or '_' or '.');

    private static void CheckName(string name, string what)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (!IsName(name))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"'{name}' cannot be the name of an {what} in a registry.",
                "Use letters, digits, '-', '_' and '.'; it must not begin with a period.") { Target = name };
        }
    }

    private static LoKrException NotFound(string name, string message) =>
        new(ErrorIds.VersionNotFound, LoKrErrorKind.NotFound, message, "List what the registry has.") { Target = name };
}

/// <summary>Lineage and figures of a version. Flat and serializable.</summary>
public sealed record AdapterCard
{
    /// <summary>Name of the adapter in the registry; set by the registry.</summary>
    public string Name { get; init; } = "";

    /// <summary>Number of the version; set by the registry.</summary>
    public int Version { get; init; }

    /// <summary>When it was registered, in UTC; set by the registry.</summary>
    public DateTime Created { get; init; }

    /// <summary>SHA-256 of the weights and configurations; set by the registry.</summary>
    public string Weights { get; init; } = "";

    /// <summary>Id of the run that trained it.</summary>
    public string? Run { get; init; }

    /// <summary>Name of the model.</summary>
    public string? Model { get; init; }

    /// <summary>Hashes of data, base model and configuration.</summary>
    public RunInputs? Inputs { get; init; }

    /// <summary>Seed of the run.</summary>
    public long? Seed { get; init; }

    /// <summary>Steps of the run.</summary>
    public int? Steps { get; init; }

    /// <summary>Evaluation of the values that were registered.</summary>
    public LoKrEvaluation? Evaluation { get; init; }

    /// <summary>The version that was the champion when this one was trained, or that it was trained from.</summary>
    public int? Parent { get; init; }

    /// <summary>The verdict of the gate, in one sentence.</summary>
    public string? Gate { get; init; }

    /// <summary>Name of the job that registered it.</summary>
    public string? Job { get; init; }

    /// <summary>Hashes of the files that the job worked on: with the same ones there is nothing new.</summary>
    public JobInputs? JobInputs { get; init; }

    /// <summary>Labels of a classifier, in order.</summary>
    public IReadOnlyList<string>? Labels { get; init => field = value is null ? null : ValueList.Of(value); }

    /// <summary>A note for people.</summary>
    public string? Description { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Name} {Version}");
}

/// <summary>A version of an adapter in a registry. Its folder is a PEFT folder.</summary>
public sealed record LoKrAdapterVersion
{
    /// <summary>Name of the adapter.</summary>
    public required string Name { get; init; }

    /// <summary>Folder of the registry.</summary>
    public required string Registry { get; init; }

    /// <summary>Number of the version, from 1.</summary>
    public required int Version { get; init; }

    /// <summary>Names that mean this version now, such as <c>champion</c>.</summary>
    public required IReadOnlyList<string> Aliases { get; init => field = ValueList.Of(value); }

    /// <summary>When it was registered, in UTC.</summary>
    public required DateTime Created { get; init; }

    /// <summary>The folder.</summary>
    public required string Path { get; init; }

    /// <summary>Lineage and figures.</summary>
    public required AdapterCard Card { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Name} {Version}{(Aliases.Count == 0 ? "" : $" ({string.Join(", ", Aliases)})")}");
}
