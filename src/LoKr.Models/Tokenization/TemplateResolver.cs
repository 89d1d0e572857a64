namespace LoKr.Models.Tokenization;

/// <summary>Decides which special tokens go around a text, as transformers does.</summary>
internal static class TemplateResolver
{
    public static SpecialTokenTemplate Resolve(TokenizerParts parts, TokenizerConfig config, AddedTokenTable added)
    {
        // Where the configuration says whether to add bos and eos, that replaces the post-processor of the file.
        if (config.AddBos is not null || config.AddEos is not null || parts.AddsBosByDefault)
        {
            bool bos = config.AddBos ?? parts.AddsBosByDefault;
            bool eos = config.AddEos ?? false;
            return new SpecialTokenTemplate(
                bos && added.NamedId("bos_token") is int bosId ? [bosId] : [],
                eos && added.NamedId("eos_token") is int eosId ? [eosId] : []);
        }

        if (parts.NamedTemplate is not null)
        {
            (IReadOnlyList<string> before, IReadOnlyList<string> after) = parts.NamedTemplate.Value;
            return new SpecialTokenTemplate([.. before.Select(Id)], [.. after.Select(Id)]);
        }

        return parts.Template ?? SpecialTokenTemplate.Empty;

        int Id(string name) => added.NamedId(name)
            ?? throw TokenizerError.Invalid(parts.File, $"its template needs a {name}, which tokenizer_config.json sets to nothing");
    }
}
