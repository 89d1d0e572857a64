using System.Globalization;
using System.Text.Json;

namespace LoKr.Testing;

/// <summary>Small data sets that the tiny models can learn.</summary>
public static class TinyData
{
    /// <summary>Classes of the tickets.</summary>
    public static readonly string[] Labels = ["network", "access", "billing"];

    /// <summary>Five words of each label, then five of all.</summary>
    public static readonly string[] Words =
    [
        "vpn", "wifi", "router", "cable", "slow", "password", "login", "account", "locked", "reset",
        "invoice", "payment", "refund", "card", "price", "the", "my", "is", "not", "working",
    ];

    /// <summary>Tickets as JSON Lines; each label has its own words, so that a model can learn them.</summary>
    public static string WriteTickets(string file, int rows, int seed = 1)
    {
        Random random = new(seed);
        File.WriteAllLines(file, Enumerable.Range(0, rows).Select(row =>
        {
            int label = row % Labels.Length;
            string text = string.Join(' ', Enumerable.Range(0, 3 + random.Next(4)).Select(_ => Words[random.Next(4) == 0 ? 15 + random.Next(5) : (label * 5) + random.Next(5)]));
            return JsonSerializer.Serialize(new { text, label = Labels[label] });
        }));
        return file;
    }

    /// <summary>Tags of <see cref="WriteTagged"/>.</summary>
    public static readonly string[] Tags = ["O", "B-DEVICE", "I-DEVICE", "B-ACCOUNT", "I-ACCOUNT"];

    /// <summary>Words with tags, as JSON Lines or, by the name of the file, in columns: words of one label that follow each other are one entity.</summary>
    public static string WriteTagged(string file, int rows, int seed = 1)
    {
        Random random = new(seed);
        bool hasColumns = file.EndsWith(".conll", StringComparison.Ordinal);
        File.WriteAllLines(file, Enumerable.Range(0, rows).Select(_ =>
        {
            List<(string Word, string Tag)> row = [];
            for (int part = 2 + random.Next(2); part > 0; part--)
            {
                row.Add((Words[15 + random.Next(5)], "O"));
                int kind = random.Next(3);
                for (int word = 0; kind < 2 && word < 1 + random.Next(2); word++)
                {
                    row.Add((Words[(kind * 5) + random.Next(5)], (word == 0 ? "B-" : "I-") + (kind == 0 ? "DEVICE" : "ACCOUNT")));
                }
            }

            return hasColumns
                ? string.Concat(row.Select(static word => $"{word.Word} {word.Tag}\n"))
                : JsonSerializer.Serialize(new { tokens = row.Select(static word => word.Word), ner_tags = row.Select(static word => word.Tag) });
        }));
        return file;
    }

    /// <summary>Conversations as JSON Lines, whose answer is always the same, so that a tiny model can learn it.</summary>
    public static string WriteChats(string file, int rows)
    {
        File.WriteAllLines(file, Enumerable.Range(0, rows).Select(row => JsonSerializer.Serialize(new
        {
            messages = new[] { new { role = "user", content = Words[row % Words.Length] + new string('.', row / Words.Length) }, new { role = "assistant", content = "ok" } },
        })));
        return file;
    }

    /// <summary>Queries with four texts each as JSON Lines, of which one has words of the same label.</summary>
    public static string WritePairs(string file, int queries, int seed = 1)
    {
        Random random = new(seed);
        File.WriteAllLines(file, Enumerable.Range(0, queries).SelectMany(query =>
        {
            int own = query % Labels.Length;
            string text = Text(own);
            return Enumerable.Range(0, 4).Select(place =>
                JsonSerializer.Serialize(new { query, text, text_pair = Text(place == query % 4 ? own : (own + 1 + random.Next(2)) % Labels.Length), label = place == query % 4 ? 1 : 0 })).ToArray();
        }));
        return file;

        string Text(int label) => string.Join(' ', Enumerable.Range(0, 2).Select(_ => Words[(label * 5) + random.Next(5)]));
    }

    /// <summary>Prompts with completions as JSON Lines.</summary>
    public static string WriteCompletions(string file, int rows)
    {
        File.WriteAllLines(file, Enumerable.Range(0, rows).Select(row => JsonSerializer.Serialize(new
        {
            prompt = string.Create(CultureInfo.InvariantCulture, $"{Words[row % Words.Length]}: "),
            completion = Words[(row + 1) % Words.Length],
        })));
        return file;
    }
}
