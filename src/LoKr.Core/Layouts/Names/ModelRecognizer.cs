namespace LoKr.Core.Layouts.Names;

/// <summary>
/// Recognizes the family of a model from the names of its tensors, or of an adapter's. Names decide, not sizes, so that every size of a family is
/// recognized by one table. An adapter may have only names that several families share; then there are several candidates.
/// </summary>
internal static class ModelRecognizer
{
    private static readonly Lazy<ModelPart?> s_languageModel = new(static () => NameTables.All.SelectMany(static family => family.Parts).FirstOrDefault(static part => !part.IsDenoiser && !part.IsPublishedAlone));
    private static readonly Lazy<NamePrefixes> s_prefixes = new(() => new(NameTables.All));

    /// <summary>Recognizes the model that an adapter was made for; null where no family has its names.</summary>
    /// <param name="modules">Names of its modules with their prefixes.</param>
    public static RecognizedModel? OfAdapter(IEnumerable<string> modules)
    {
        IReadOnlyList<PrefixedName>[] names = [.. modules.Distinct(StringComparer.Ordinal).Select(s_prefixes.Value.Variants)];
        RecognizedModel? best = Best(family => names.Select(variants => variants.SelectMany(variant => variant.FindIn(family))));

        // A language model has names that a denoiser built on one has too, and every layout of denoisers has a prefix for them: only a name that no
        // language model has tells the denoiser.
        bool IsKnown(IReadOnlyList<PrefixedName> variants) => best!.Candidates.Any(family => variants.Any(variant => variant.FindIn(family).Any()));
        bool IsOfLanguageModel(IReadOnlyList<PrefixedName> variants) => variants.Any(static variant => variant.Parts?.All(static part => part.IsDenoiser) != false && s_languageModel.Value?.Find(variant.Split, variant.IsUnderscored).Any() == true);
        return best is not null && names.Where(IsKnown).All(IsOfLanguageModel) ? null : best;
    }

    /// <summary>Recognizes the model of a checkpoint: a single file of any spelling, or a component of a pipeline. Null where no family has its names.</summary>
    /// <param name="tensors">Names of its tensors.</param>
    public static RecognizedModel? OfCheckpoint(IEnumerable<string> tensors)
    {
        string[] names = [.. tensors.Select(Module).Distinct(StringComparer.Ordinal)];
        RecognizedModel? best = Best(family => names.Select(name => family.Parts.Where(static part => part.IsDenoiser).SelectMany(part => InCheckpoint(part, name))));

        // A family may have all names of another and more; a checkpoint has every weight.
        return best is null || best.Family is not null ? best : new([.. best.Candidates.GroupBy(Missing).MinBy(static group => group.Key)!]);

        int Missing(ModelFamily family) => family.Parts.Where(static part => part.IsDenoiser)
            .Sum(part => part.Weights.Except(names.SelectMany(name => InCheckpoint(part, name)).Select(static match => match.Place.Weight)).Count());
    }

    /// <summary>The part of a pipeline whose weights a model has, by the names of its modules; null where no table has any of them.</summary>
    /// <param name="modules">Names of modules without prefix.</param>
    public static ModelPart? PartOf(IReadOnlyCollection<string> modules)
    {
        SplitName[] names = [.. modules.Select(SplitName.Of)];
        (ModelPart? Part, int Found) best = (null, 0);
        foreach (ModelPart part in NameTables.All.SelectMany(static family => family.Parts))
        {
            int found = names.Count(name => part.Find(name, isUnderscored: false).Any(static match => NameSets.IsPrimary(match.Set)));
            best = found > best.Found ? (part, found) : best;
        }

        return best.Part;
    }

    /// <summary>The weights of a part that a tensor of a checkpoint can be.</summary>
    /// <param name="part">The part.</param>
    /// <param name="module">The tensor's name; a module's without <c>.weight</c>.</param>
    public static IEnumerable<NameMatch> InCheckpoint(ModelPart part, string module) => part.CheckpointPrefixes.Append("").Distinct(StringComparer.Ordinal)
        .Where(prefix => module.StartsWith(prefix, StringComparison.Ordinal))
        .SelectMany(prefix => part.Find(SplitName.Of(module[prefix.Length..]), isUnderscored: false))
        .Where(static match => NameSets.IsPrimary(match.Set));

    /// <summary>The forms of a name of an adapter without its prefixes.</summary>
    public static IReadOnlyList<PrefixedName> Variants(string module) => s_prefixes.Value.Variants(module);

    /// <summary>The module of a tensor: its name without <c>.weight</c> or <c>.bias</c>.</summary>
    public static string Module(string tensor) => tensor.EndsWith(".weight", StringComparison.Ordinal) ? tensor[..^7] : tensor.EndsWith(".bias", StringComparison.Ordinal) ? tensor[..^5] : tensor;

    /// <summary>The families that know most names; among equals those whose published names they are.</summary>
    private static RecognizedModel? Best(Func<ModelFamily, IEnumerable<IEnumerable<NameMatch>>> find)
    {
        List<ModelFamily> best = [];
        (int Found, int Primary) most = (0, 0);
        foreach (ModelFamily family in NameTables.All)
        {
            (int found, int primary) = (0, 0);
            foreach (IEnumerable<NameMatch> matches in find(family))
            {
                NameMatch[] all = [.. matches.Where(static match => match.Place.Rows?.IsBroken != true)];
                found += all.Length > 0 ? 1 : 0;
                primary += Array.Exists(all, static match => NameSets.IsPrimary(match.Set)) ? 1 : 0;
            }

            if (found == 0 || (found, primary).CompareTo(most) < 0)
            {
                continue;
            }

            if ((found, primary).CompareTo(most) > 0)
            {
                best.Clear();
                most = (found, primary);
            }

            best.Add(family);
        }

        return best.Count == 0 ? null : new(best);
    }
}

/// <summary>The families that a file's names fit equally well.</summary>
/// <param name="Candidates">One or more.</param>
internal sealed record RecognizedModel(IReadOnlyList<ModelFamily> Candidates)
{
    /// <summary>The family; null where several remain.</summary>
    public ModelFamily? Family => Candidates is [ModelFamily only] ? only : null;

    /// <summary>The kind of denoiser that all candidates have; null where they differ.</summary>
    public AdapterComponent? Denoiser =>
        Candidates.SelectMany(static family => family.Parts).Where(static part => part.IsDenoiser).Select(static part => part.Component).Distinct().ToArray() is [AdapterComponent only] ? only : null;

    /// <summary>
    /// The name of a module with its dots and without its prefixes, as the file spells it; null where the candidates do not know it, or read it differently.
    /// </summary>
    /// <param name="module">Name of the module with its prefixes.</param>
    public string? Unwrap(string module) => Candidates
        .Select(family => new NameTranslator(family).Find(module) is [NameMatch match, ..] ? match.Template.Fill(match.Place.Numbers) : null)
        .Distinct(StringComparer.Ordinal).ToArray() is [string only] ? only : null;

    /// <summary>The families for a message.</summary>
    public override string ToString() => string.Join(" or ", Candidates);
}
