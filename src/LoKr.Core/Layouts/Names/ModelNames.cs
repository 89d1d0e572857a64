namespace LoKr.Core.Layouts.Names;

/// <summary>The weights of one family of models, and what every program calls them.</summary>
/// <param name="Name">Name of the table, for example <c>flux1</c>.</param>
/// <param name="Title">Name for people, for example Flux.1.</param>
/// <param name="DiffusersLoads">Names under which the pipeline of diffusers loads LoKr; empty where it loads none.</param>
/// <param name="Parts">Denoiser and text encoders.</param>
internal sealed record ModelFamily(string Name, string Title, IReadOnlyList<DiffusersSpelling> DiffusersLoads, IReadOnlyList<ModelPart> Parts)
{
    /// <inheritdoc/>
    public override string ToString() => Title;
}

/// <summary>A spelling of all names of a LoKr file that the pipeline of diffusers loads.</summary>
/// <param name="Names">Prefix and set.</param>
/// <param name="Alpha">Whether the file must have alpha tensors, or must not; null for either.</param>
/// <param name="BlocksOnly">Whether one name outside the blocks makes it refuse the file.</param>
internal sealed record DiffusersSpelling(NameSpelling Names, bool? Alpha, bool BlocksOnly);

/// <summary>A part of a pipeline: its weights, the prefixes of its names in checkpoints, and how programs spell them in adapters.</summary>
internal sealed class ModelPart
{
    private readonly Dictionary<string, List<NameEntry>> _dotted = new(StringComparer.Ordinal);
    private readonly Dictionary<string, List<NameEntry>> _underscored = new(StringComparer.Ordinal);

    /// <summary>Creates a part.</summary>
    public ModelPart(
        AdapterComponent component, IReadOnlyList<string> checkpointPrefixes, IReadOnlyDictionary<AdapterProgram, IReadOnlyList<NameSpelling>> programs, IReadOnlyList<WeightNames> weights)
    {
        (Component, CheckpointPrefixes, Programs, Weights) = (component, checkpointPrefixes, programs, weights);
        foreach (WeightNames weight in weights)
        {
            Add(weight, null, weight.Names);
            foreach (WeightRows rows in weight.Rows)
            {
                Add(weight, rows, rows.Names);
            }
        }
    }

    /// <summary>Which part it is.</summary>
    public AdapterComponent Component { get; }

    /// <summary>Whether it is the denoiser.</summary>
    public bool IsDenoiser => Component is AdapterComponent.Unet or AdapterComponent.Transformer;

    /// <summary>Whether its names are those of text encoders only; a language model may be one, and may be anything else.</summary>
    public bool IsPublishedAlone => !IsDenoiser && !Weights.Any(static weight => weight.Names.Of("short").Count > 0);

    /// <summary>Prefix of the names of its weights in single files.</summary>
    public IReadOnlyList<string> CheckpointPrefixes { get; }

    /// <summary>Spellings by program, in the order in which they are preferred for writing. A program that is absent does not read adapters of this part.</summary>
    public IReadOnlyDictionary<AdapterProgram, IReadOnlyList<NameSpelling>> Programs { get; }

    /// <summary>The weights.</summary>
    public IReadOnlyList<WeightNames> Weights { get; }

    /// <summary>The weights that a name without prefix can refer to.</summary>
    /// <param name="name">The name, split.</param>
    /// <param name="isUnderscored">Whether underscores stand for its dots.</param>
    public IEnumerable<NameMatch> Find(SplitName name, bool isUnderscored)
    {
        if ((isUnderscored ? _underscored : _dotted).TryGetValue(name.Shape, out List<NameEntry>? entries))
        {
            foreach (NameEntry entry in entries)
            {
                if (entry.Template.Match(name.Numbers) is BlockNumbers numbers)
                {
                    yield return new(new(this, entry.Weight, entry.Rows, numbers), entry.Set, entry.Template);
                }
            }
        }
    }

    private void Add(WeightNames weight, WeightRows? rows, NameSets names)
    {
        foreach ((string set, NameTemplate template) in names.All)
        {
            NameEntry entry = new(weight, rows, set, template);
            Add(_dotted, template.Shape, entry);
            Add(_underscored, template.Shape.Replace('.', '_'), entry);
        }
    }

    private static void Add(Dictionary<string, List<NameEntry>> index, string shape, NameEntry entry)
    {
        if (!index.TryGetValue(shape, out List<NameEntry>? entries))
        {
            index.Add(shape, entries = []);
        }

        entries.Add(entry);
    }

    private sealed record NameEntry(WeightNames Weight, WeightRows? Rows, string Set, NameTemplate Template);
}

/// <summary>One way in which a program spells names: a prefix and a set of names. Underscores replace dots where the prefix ends with one.</summary>
/// <param name="Prefix">What comes before the name.</param>
/// <param name="Set">One of the sets of <see cref="NameSets"/>.</param>
internal sealed record NameSpelling(string Prefix, string Set)
{
    /// <summary>Whether underscores stand for the dots of the name.</summary>
    public bool IsUnderscored => Prefix.EndsWith('_');

    /// <summary>The whole name.</summary>
    public string Write(string name) => Prefix + (IsUnderscored ? name.Replace('.', '_') : name);
}

/// <summary>The names of one weight, or of rows of it, by set.</summary>
/// <param name="Sets">Templates by set; a set without an entry has no name for it.</param>
internal sealed record NameSets(IReadOnlyDictionary<string, IReadOnlyList<NameTemplate>> Sets)
{
    /// <summary>Names in single files, as ComfyUI's model class has them.</summary>
    public const string File = "file";

    /// <summary>Names in single files as they were published first.</summary>
    public const string Original = "original";

    /// <summary>Names of the model class of diffusers or transformers.</summary>
    public const string Diffusers = "diffusers";

    /// <summary>Names in ComfyUI's table of other programs' names.</summary>
    public const string Table = "table";

    /// <summary>Names that transformers has had since release 5.</summary>
    public const string Current = "current";

    private static readonly IReadOnlyList<NameTemplate> s_none = [];

    /// <summary>Every name with its set.</summary>
    public IEnumerable<(string Set, NameTemplate Template)> All => Sets.SelectMany(static set => set.Value.Select(template => (set.Key, template)));

    /// <summary>Names of a set, the preferred one first.</summary>
    public IReadOnlyList<NameTemplate> Of(string set) => Sets.GetValueOrDefault(set) ?? s_none;

    /// <summary>The name that published folders have, else that of single files; null where only rows have one.</summary>
    public NameTemplate? Published => Of(Diffusers) is [NameTemplate published, ..] ? published : Of(File) is [NameTemplate file, ..] ? file : null;

    /// <summary>Whether a set has names that a model is published with; other sets hold names that some program also takes.</summary>
    public static bool IsPrimary(string set) => set is File or Original or Diffusers or Current;
}

/// <summary>The names of one weight.</summary>
/// <param name="Names">Names of the module, or of the parameter itself.</param>
/// <param name="IsParameter">Whether the names in single files are those of a parameter; otherwise they are followed by <c>.weight</c>.</param>
/// <param name="IsSwapped">Whether the two halves of its rows change places between single files and the published model, if it has twice as many rows as columns.</param>
/// <param name="IsTransposed">Whether single files store it transposed.</param>
/// <param name="Rows">Rows that other programs have as a weight of their own.</param>
internal sealed record WeightNames(NameSets Names, bool IsParameter, bool IsSwapped, bool IsTransposed, IReadOnlyList<WeightRows> Rows);

/// <summary>Rows of a fused weight, measured in its columns.</summary>
/// <param name="Names">Names of the rows.</param>
/// <param name="Start">First row, as a multiple of the columns.</param>
/// <param name="Length">Number of rows as a multiple of the columns; null for an equal share of the rows that are left.</param>
/// <param name="Share">For an equal share: which one, and of how many.</param>
/// <param name="IsBroken">Whether the only program with this name takes the wrong rows for it; such a name is read, and never written.</param>
internal sealed record WeightRows(NameSets Names, int Start, int? Length, (int Index, int Count) Share, bool IsBroken)
{
    /// <summary>First row and number of rows in a weight of a shape.</summary>
    public (long Start, long Length) Range(long rows, long columns)
    {
        if (Length is int length)
        {
            return (Start * columns, length * columns);
        }

        long share = (rows - (Start * columns)) / Share.Count;
        return ((Start * columns) + (Share.Index * share), share);
    }
}

/// <summary>A name without prefix, split into its shape and numbers.</summary>
/// <param name="Shape">The name with # in place of numbers.</param>
/// <param name="Numbers">The numbers.</param>
internal readonly record struct SplitName(string Shape, IReadOnlyList<string> Numbers)
{
    /// <summary>Splits a name.</summary>
    public static SplitName Of(string name)
    {
        (string shape, IReadOnlyList<string> numbers) = NameTemplate.Split(name);
        return new(shape, numbers);
    }
}

/// <summary>A weight of one block, or rows of it.</summary>
/// <param name="Part">The part of the pipeline.</param>
/// <param name="Weight">The weight.</param>
/// <param name="Rows">The rows; null for the whole weight.</param>
/// <param name="Numbers">The blocks.</param>
internal sealed record WeightPlace(ModelPart Part, WeightNames Weight, WeightRows? Rows, BlockNumbers Numbers)
{
    private NameSets Names => Rows?.Names ?? Weight.Names;

    /// <summary>The name that published folders have.</summary>
    public string? Published => Names.Published?.Fill(Numbers);

    /// <summary>Whether the published model has a weight of just these rows.</summary>
    public bool HasPublishedName => Names.Of(NameSets.Diffusers).Count > 0 || Weight.Rows.Count == 0;

    /// <summary>The preferred name of a set; null where it has none.</summary>
    public string? Name(string set) => Names.Of(set) is [NameTemplate first, ..] ? first.Fill(Numbers) : null;

    /// <summary>Every name of a set.</summary>
    public IEnumerable<string> AllNames(string set) => Names.Of(set).Select(template => template.Fill(Numbers));

    /// <summary>Every name of every set.</summary>
    public IEnumerable<string> AllNames() => Names.All.Select(entry => entry.Template.Fill(Numbers)).Distinct(StringComparer.Ordinal);

    /// <summary>Whether a program reads a name for it that means these rows.</summary>
    public bool IsReadBy(AdapterProgram program) => Spellings(program).Any();

    /// <summary>Names that a program has for it, the preferred one first; empty where it has none.</summary>
    public IEnumerable<string> Spellings(AdapterProgram program) => Rows?.IsBroken != true && Part.Programs.TryGetValue(program, out IReadOnlyList<NameSpelling>? spellings)
        ? spellings.SelectMany(spelling => AllNames(spelling.Set).Select(spelling.Write)).Distinct(StringComparer.Ordinal)
        : [];
}

/// <summary>A weight that a name refers to.</summary>
/// <param name="Place">The weight, or rows of it.</param>
/// <param name="Set">The set that the name is from.</param>
/// <param name="Template">The name.</param>
internal sealed record NameMatch(WeightPlace Place, string Set, NameTemplate Template)
{
    /// <summary>Whether the name's rows are those of the published model: <see cref="WeightNames.IsSwapped"/> applies to single files then.</summary>
    public bool IsPublished => IsPublishedName(Template);

    /// <summary>Names that a program has for the weight, with the rows in the order of this name.</summary>
    /// <param name="program">The program.</param>
    /// <param name="swaps">Whether the weight has the shape in which halves change places.</param>
    public IEnumerable<string> Spellings(AdapterProgram program, bool swaps)
    {
        if (!swaps || !Place.Weight.IsSwapped)
        {
            return Place.Spellings(program);
        }

        IEnumerable<NameSpelling> spellings = Place.Part.Programs.GetValueOrDefault(program) ?? [];
        return spellings.SelectMany(spelling => Place.Weight.Names.Of(spelling.Set).Where(name => IsPublishedName(name) == IsPublished).Select(name => spelling.Write(name.Fill(Place.Numbers)))).Distinct(StringComparer.Ordinal);
    }

    private bool IsPublishedName(NameTemplate name) => !Place.Weight.Names.Of(NameSets.File).Concat(Place.Weight.Names.Of(NameSets.Original)).Any(other => other.Text == name.Text);
}
