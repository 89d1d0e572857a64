using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Models.Families;

namespace LoKr.Models.Diffusion;

/// <summary>Checks the keys of a diffusers configuration: what is not built is an error, never ignored.</summary>
internal static class DiffusersOptions
{
    /// <summary>Refuses a key that is not known, and a value of a known one that is not built.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="known">Keys that are read, or that change nothing.</param>
    /// <param name="only">Keys with the one value, as JSON, that is built.</param>
    public static void Check(ModelConfig config, IReadOnlySet<string> known, IReadOnlyDictionary<string, string> only)
    {
        foreach ((string key, JsonNode? value) in config.ToJsonObject())
        {
            string text = value?.ToJsonString() ?? "null";
            if (only.TryGetValue(key, out string? built))
            {
                if (text != built)
                {
                    throw config.Unsupported(key, $"is {text}; only {built} is built");
                }
            }
            else if (!known.Contains(key) && !key.StartsWith('_') && text is not ("null" or "false"))
            {
                throw config.Unsupported(key, $"is {text}, an option that is not known");
            }
        }
    }

    /// <summary>One whole number for every block: a list of them, or one number for all.</summary>
    public static IReadOnlyList<int> PerBlock(ModelConfig config, string key, int blocks, int defaultValue)
    {
        IReadOnlyList<int> values = config.Has(key) ? config.GetInts(key) : [defaultValue];
        values = values.Count == 1 ? [.. Enumerable.Repeat(values[0], blocks)] : values;
        return values.Count != blocks
            ? throw config.Invalid(key, $"has {values.Count} values for {blocks} blocks")
            : values.All(value => value > 0) ? values : throw config.Invalid(key, "holds a number that is not positive");
    }

    /// <summary>Types of blocks; one that is not built is an error that lists those that are.</summary>
    public static IReadOnlyList<string> BlockTypes(ModelConfig config, string key, IReadOnlyList<string> defaultValue, params string[] built)
    {
        IReadOnlyList<string> types = config.Has(key) ? config.GetStrings(key) : defaultValue;
        return types.FirstOrDefault(type => !built.Contains(type, StringComparer.Ordinal)) is string unknown
            ? throw config.Unsupported(key, $"names the block '{unknown}'; built are {string.Join(", ", built)}")
            : types.Count == 0 ? throw config.Invalid(key, "is empty") : types;
    }

    /// <summary>Refuses a number of channels that its groups or heads do not divide.</summary>
    public static void CheckDivides(ModelConfig config, string key, int parts, int channels)
    {
        if (channels % parts != 0)
        {
            throw config.Invalid(key, $"is {parts}, which does not divide {channels} channels");
        }
    }
}
