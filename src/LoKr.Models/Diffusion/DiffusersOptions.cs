using System.Text.Json.Nodes;
using LoKr.Core.Configuration;

namespace LoKr.Models.Diffusion;

/// <summary>Reads and checks the keys of a diffusers configuration: an unsupported option is an error and never ignored.</summary>
internal static class DiffusersOptions
{
    /// <summary>Refuses unknown keys and unsupported values.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="known">Keys that are read or have no effect.</param>
    /// <param name="only">Keys with the only supported value, as JSON.</param>
    public static void Check(ModelConfig config, IReadOnlySet<string> known, IReadOnlyDictionary<string, string> only)
    {
        foreach ((string key, JsonNode? value) in config.ToJsonObject())
        {
            string text = value?.ToJsonString() ?? "null";
            if (only.TryGetValue(key, out string? built))
            {
                if (text != built)
                {
                    throw config.Unsupported(key, $"is {text}; only {built} is supported");
                }
            }
            else if (!known.Contains(key) && !key.StartsWith('_') && text is not ("null" or "false"))
            {
                throw config.Unsupported(key, $"is {text}, an unknown option");
            }
        }
    }

    /// <summary>Reads a whole number for every block: a list, or one number for all.</summary>
    public static IReadOnlyList<int> PerBlock(ModelConfig config, string key, int blocks, int defaultValue)
    {
        IReadOnlyList<int> values = config.Has(key) ? config.GetInts(key) : [defaultValue];
        values = values.Count == 1 ? [.. Enumerable.Repeat(values[0], blocks)] : values;
        return values.Count != blocks
            ? throw config.Invalid(key, $"has {values.Count} values for {blocks} blocks")
            : values.All(value => value > 0) ? values : throw config.Invalid(key, "holds a number that is not positive");
    }

    /// <summary>Reads the types of blocks; an unsupported type is an error that lists the supported ones.</summary>
    public static IReadOnlyList<string> BlockTypes(ModelConfig config, string key, IReadOnlyList<string> defaultValue, params string[] built)
    {
        IReadOnlyList<string> types = config.Has(key) ? config.GetStrings(key) : defaultValue;
        return types.FirstOrDefault(type => !built.Contains(type, StringComparer.Ordinal)) is string unknown
            ? throw config.Unsupported(key, $"names the block '{unknown}'; supported are {string.Join(", ", built)}")
            : types.Count == 0 ? throw config.Invalid(key, "is empty") : types;
    }

    /// <summary>Reads the channels of every block, and checks that there are as many up blocks as down blocks.</summary>
    public static IReadOnlyList<int> Channels(ModelConfig config, int downBlocks, int upBlocks, IReadOnlyList<int> defaultValue)
    {
        if (upBlocks != downBlocks)
        {
            throw config.Invalid("up_block_types", $"has {upBlocks} blocks, but down_block_types has {downBlocks}");
        }

        IReadOnlyList<int> channels = config.Has("block_out_channels") ? config.GetInts("block_out_channels") : defaultValue;
        return channels.Count == downBlocks && channels.All(count => count > 0)
            ? channels
            : throw config.Invalid("block_out_channels", $"is [{string.Join(", ", channels)}], not a positive number for each of {downBlocks} blocks");
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
