using System.Text.Json;

namespace LoKr.Core.Layouts.Names;

/// <summary>
/// Reads the tables of names: one embedded JSON file a family of models (<c>Models/FAMILY.json</c>), and one a text encoder that several families
/// share (<c>Models/encoder-NAME.json</c>). CONTRIBUTING.md describes the fields.
/// </summary>
internal static class NameTables
{
    private const string Prefix = "Names/";
    private const string EncoderPrefix = Prefix + "encoder-";
    private static readonly Lazy<IReadOnlyList<ModelFamily>> s_all = new(static () => Load());

    /// <summary>Every family, in the order of their names.</summary>
    public static IReadOnlyList<ModelFamily> All => s_all.Value;

    private static List<ModelFamily> Load()
    {
        string[] resources = [.. typeof(NameTables).Assembly.GetManifestResourceNames().Where(static name => name.StartsWith(Prefix, StringComparison.Ordinal)).Order(StringComparer.Ordinal)];
        Dictionary<string, IReadOnlyList<WeightNames>> encoders = [];
        foreach (string name in resources.Where(static name => name.StartsWith(EncoderPrefix, StringComparison.Ordinal)))
        {
            using JsonDocument document = Open(name);
            encoders.Add(document.RootElement.GetProperty("table").GetString()!, new Table(document.RootElement).Weights);
        }

        List<ModelFamily> families = [];
        foreach (string name in resources.Where(static name => !name.StartsWith(EncoderPrefix, StringComparison.Ordinal)))
        {
            using JsonDocument document = Open(name);
            JsonElement root = document.RootElement;
            families.Add(new(
                root.GetProperty("family").GetString()!,
                root.GetProperty("title").GetString()!,
                root.TryGetProperty("diffusersLoads", out JsonElement loads) ? [.. loads.EnumerateArray().Select(static entry => new DiffusersSpelling(
                    Spelling(entry.GetProperty("names").GetString()!),
                    entry.TryGetProperty("alpha", out JsonElement alpha) ? alpha.GetBoolean() : null,
                    Flag(entry, "blocksOnly")))] : [],
                [.. root.GetProperty("parts").EnumerateArray().Select(part => Part(part, encoders))]));
        }

        return families;
    }

    private static JsonDocument Open(string name)
    {
        using Stream stream = typeof(NameTables).Assembly.GetManifestResourceStream(name)!;
        return JsonDocument.Parse(stream);
    }

    private static ModelPart Part(JsonElement part, Dictionary<string, IReadOnlyList<WeightNames>> encoders) => new(
        Enum.Parse<AdapterComponent>(part.GetProperty("component").GetString()!),
        [.. Strings(part.GetProperty("checkpoint"))],
        part.GetProperty("programs").EnumerateObject().ToDictionary(
            static program => Enum.Parse<AdapterProgram>(program.Name),
            static program => (IReadOnlyList<NameSpelling>)[.. Strings(program.Value).Select(Spelling)]),
        part.TryGetProperty("table", out JsonElement table) ? encoders[table.GetString()!] : new Table(part).Weights);

    /// <summary>Reads <c>PREFIX{SET}</c>.</summary>
    private static NameSpelling Spelling(string text)
    {
        int brace = text.IndexOf('{', StringComparison.Ordinal);
        return new(text[..brace], text[(brace + 1)..^1]);
    }

    private static bool Flag(JsonElement element, string name) => element.TryGetProperty(name, out JsonElement value) && value.GetBoolean();

    private static IEnumerable<string> Strings(JsonElement element) => element.ValueKind == JsonValueKind.Array ? element.EnumerateArray().Select(static item => item.GetString()!) : [element.GetString()!];

    /// <summary>The weights of a table: those written under <c>for</c> once for each entry of a list, or of two.</summary>
    private sealed class Table
    {
        private static readonly string[] s_notNames = ["for", "parameter", "swapped", "transposed", "parts", "also", "at", "rows", "broken"];

        private readonly Dictionary<string, IReadOnlyList<IReadOnlyDictionary<string, string>>> _lists = [];
        private readonly string _tableIs;

        public Table(JsonElement element)
        {
            _tableIs = element.TryGetProperty("tableIs", out JsonElement set) ? set.GetString()! : NameSets.Diffusers;
            if (element.TryGetProperty("lists", out JsonElement lists))
            {
                foreach (JsonProperty list in lists.EnumerateObject())
                {
                    _lists.Add(list.Name, [.. list.Value.EnumerateArray().Select(static entry => entry.EnumerateObject().ToDictionary(static pair => pair.Name, static pair => pair.Value.GetString()!))]);
                }
            }

            Weights = [.. element.GetProperty("weights").EnumerateArray().SelectMany(Expand)];
        }

        public IReadOnlyList<WeightNames> Weights { get; }

        private IEnumerable<WeightNames> Expand(JsonElement weight)
        {
            IEnumerable<IReadOnlyDictionary<string, string>> rows = [new Dictionary<string, string>()];
            if (weight.TryGetProperty("for", out JsonElement lists))
            {
                foreach (string list in Strings(lists))
                {
                    rows = [.. rows.SelectMany(row => _lists[list].Select(more => (IReadOnlyDictionary<string, string>)row.Concat(more).ToDictionary()))];
                }
            }

            return rows.Select(row => new WeightNames(Sets(weight, row), Flag(weight, "parameter"), Flag(weight, "swapped"), Flag(weight, "transposed"), [.. Rows(weight, row)]));
        }

        private IEnumerable<WeightRows> Rows(JsonElement weight, IReadOnlyDictionary<string, string> row)
        {
            if (!weight.TryGetProperty("parts", out JsonElement parts))
            {
                yield break;
            }

            int at = 0;
            int shares = parts.EnumerateArray().Count(static part => Multiple(part, "rows") is null);
            int share = 0;
            foreach (JsonElement part in parts.EnumerateArray())
            {
                int? length = Multiple(part, "rows");
                bool isPlaced = part.TryGetProperty("at", out _);
                yield return new(Sets(part, row), isPlaced ? Multiple(part, "at") ?? 0 : at, length, length is null ? (share++, shares) : default, Flag(part, "broken"));
                at += isPlaced ? 0 : length ?? 0;
            }
        }

        /// <summary>Reads <c>0</c>, <c>columns</c>, <c>3 columns</c>; null for <c>rest</c>.</summary>
        private static int? Multiple(JsonElement part, string name)
        {
            string text = part.GetProperty(name).GetString()!;
            return text == "rest" ? null : text == "columns" ? 1 : int.Parse(text.Split(' ')[0], System.Globalization.CultureInfo.InvariantCulture);
        }

        private NameSets Sets(JsonElement element, IReadOnlyDictionary<string, string> row)
        {
            NameTemplate[] Templates(JsonElement names) => [.. Strings(names).Select(name => new NameTemplate(row.Aggregate(name, static (text, pair) => text.Replace($"{{{pair.Key}}}", pair.Value, StringComparison.Ordinal))))];
            Dictionary<string, IReadOnlyList<NameTemplate>> sets = new(StringComparer.Ordinal);
            foreach (JsonProperty set in element.EnumerateObject().Where(static property => !s_notNames.Contains(property.Name)))
            {
                sets.Add(set.Name, Templates(set.Value));
            }

            IReadOnlyList<NameTemplate> Given(string set) => sets.GetValueOrDefault(set) ?? [];
            sets.TryAdd(NameSets.Original, Given(NameSets.File));
            sets.TryAdd(NameSets.Table, [.. Given(_tableIs), .. element.TryGetProperty("also", out JsonElement also) ? Templates(also) : []]);
            sets.TryAdd("dotted", sets[NameSets.Table]);
            return new(sets);
        }
    }
}
