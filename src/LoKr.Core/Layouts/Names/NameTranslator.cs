namespace LoKr.Core.Layouts.Names;

/// <summary>Translates names of adapters of one family of models: any program's name → weight and rows → any other program's name.</summary>
internal sealed class NameTranslator(ModelFamily family)
{
    /// <summary>The family.</summary>
    public ModelFamily Family => family;

    /// <summary>The weights that a module's name can refer to, whichever program wrote it and however it is wrapped; published names first.</summary>
    /// <param name="module">Name of the module with its prefixes.</param>
    public IReadOnlyList<NameMatch> Find(string module) => [.. Ordered(ModelRecognizer.Variants(module).SelectMany(variant => variant.FindIn(family)))];

    /// <summary>The weights that a module of a component can be.</summary>
    /// <param name="component">The component; <see cref="AdapterComponent.Model"/> for the denoiser.</param>
    /// <param name="name">Name of the module without prefix.</param>
    /// <param name="isDotted">Whether it has its dots.</param>
    public IReadOnlyList<NameMatch> Find(AdapterComponent component, string name, bool isDotted)
    {
        SplitName split = SplitName.Of(name);
        IEnumerable<NameMatch> In(Func<ModelPart, bool> isWanted) => family.Parts.Where(isWanted).SelectMany(part => part.Find(split, !isDotted));
        NameMatch[] found = [.. In(part => component == AdapterComponent.Model ? part.IsDenoiser : AdapterComponents.Matches(part.Component, component))];

        // Programs number the text encoders differently: the T5 of Flux.1 is the second or the third.
        return [.. Ordered(found.Length == 0 && AdapterComponents.IsTextEncoder(component) ? In(static part => !part.IsDenoiser) : found)];
    }

    /// <summary>The module that a program reads under a name; null where it reads nothing.</summary>
    /// <param name="program">The program.</param>
    /// <param name="module">Name of the module with its prefix, exactly as it is in the file.</param>
    public NameMatch? Read(AdapterProgram program, string module)
    {
        foreach (ModelPart part in family.Parts)
        {
            foreach (NameSpelling spelling in part.Programs.GetValueOrDefault(program) ?? [])
            {
                if (module.StartsWith(spelling.Prefix, StringComparison.Ordinal))
                {
                    foreach (NameMatch match in part.Find(SplitName.Of(module[spelling.Prefix.Length..]), spelling.IsUnderscored))
                    {
                        if (match.Set == spelling.Set)
                        {
                            return match;
                        }
                    }
                }
            }
        }

        return null;
    }

    private static IEnumerable<NameMatch> Ordered(IEnumerable<NameMatch> matches) => matches.OrderBy(static match => match.Place.Rows?.IsBroken == true ? 2 : NameSets.IsPrimary(match.Set) ? 0 : 1);
}
