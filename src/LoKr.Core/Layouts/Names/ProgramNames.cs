namespace LoKr.Core.Layouts.Names;

/// <summary>
/// Names of a program for the modules of an adapter, by the tables of its model. All modules of a part get one prefix where the program reads all of
/// them under it. Where the names fit several models, a name counts if it means the same to all that the program reads.
/// </summary>
internal sealed class ProgramNames
{
    private readonly Dictionary<(AdapterComponent Component, string Name), string> _names = [];
    private readonly List<string> _unknown = [];

    /// <summary>Finds the names.</summary>
    /// <param name="program">The program.</param>
    /// <param name="content">The adapter.</param>
    public ProgramNames(AdapterProgram program, AdapterContent content)
    {
        Model = PublishedNames.Recognize(content);
        IEnumerable<(AdapterComponent Component, string Name, bool IsDotted, bool Swaps)> modules = content.Modules
            .Select(static module => (module.Component, module.Name, module.IsDotted, module.Geometry.Out == 2 * module.Geometry.M * module.Geometry.Columns))
            .Concat(content.Norms.Select(static norm => (norm.Component, norm.Name, norm.IsDotted, false)))
            .Concat(content.Others.Select(static other => (other.Component, other.Name, other.IsDotted, true)))
            .DistinctBy(static module => (module.Component, module.Name));
        foreach (var part in modules.GroupBy(static module => module.Component))
        {
            List<((AdapterComponent, string) Key, List<string> Names)> spelled = [];
            foreach ((AdapterComponent component, string name, bool isDotted, bool swaps) in part)
            {
                List<string> names = Spellings(program, component, name, isDotted, swaps);
                if (names.Count == 0)
                {
                    _unknown.Add(name);
                }
                else
                {
                    spelled.Add(((component, name), names));
                }
            }

            string? prefix = Prefixes(program).FirstOrDefault(candidate => spelled.TrueForAll(module => module.Names.Any(name => name.StartsWith(candidate, StringComparison.Ordinal))));
            foreach (((AdapterComponent, string) key, List<string> names) in spelled)
            {
                _names[key] = names.FirstOrDefault(name => prefix is not null && name.StartsWith(prefix, StringComparison.Ordinal)) ?? names[0];
            }
        }
    }

    /// <summary>The model; null where no table has the names.</summary>
    public RecognizedModel? Model { get; }

    /// <summary>Modules that the program has no name for.</summary>
    public IReadOnlyList<string> Unknown => _unknown;

    /// <summary>Whether the program reads any adapter of the model.</summary>
    public static bool Knows(AdapterProgram program, RecognizedModel model) => model.Candidates.Any(family => family.Parts.Any(part => part.IsDenoiser && part.Programs.ContainsKey(program)));

    /// <summary>The name of a module with its prefix, without a suffix; null where the program has none.</summary>
    public string? Of(AdapterComponent component, string name) => _names.GetValueOrDefault((component, name));

    private IEnumerable<string> Prefixes(AdapterProgram program) => Model is null ? [] : Model.Candidates[0].Parts
        .SelectMany(part => part.Programs.GetValueOrDefault(program) ?? []).Select(static spelling => spelling.Prefix).Where(static prefix => prefix.Length > 0);

    private List<string> Spellings(AdapterProgram program, AdapterComponent component, string name, bool isDotted, bool swaps)
    {
        IEnumerable<ModelFamily> families = Model?.Candidates ?? (AdapterComponents.IsTextEncoder(component) ? NameTables.All : []);
        List<string>? common = null;
        foreach (ModelFamily family in families.Where(family => family.Parts.Any(part => part.Programs.ContainsKey(program))))
        {
            List<string> names = new NameTranslator(family).Find(component, name, isDotted) is [NameMatch match, ..] ? [.. match.Spellings(program, swaps)] : [];
            common = common is null ? names : [.. common.Intersect(names, StringComparer.Ordinal)];
        }

        return common ?? [];
    }
}
