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
