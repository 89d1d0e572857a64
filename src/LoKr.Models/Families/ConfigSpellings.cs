using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace LoKr.Models.Families;

/// <summary>
/// The keys of config.json that transformers 5 spells otherwise than the releases before it. An export has both spellings: releases before 5
/// ignore <c>rope_parameters</c> without a word and compute something else. Keys that a configuration has stay as they are.
/// </summary>
internal static class ConfigSpellings
{
    private const string Parameters = "rope_parameters";
    private const string Scaling = "rope_scaling";
    private const string Theta = "rope_theta";
    private const string Part = "partial_rotary_factor";
    private const string OriginalPositions = "original_max_position_embeddings";

    /// <summary>Writes rotary positions that are the same in all layers.</summary>
    /// <param name="config">The configuration, which is completed.</param>
    /// <param name="rope">The positions.</param>
    /// <param name="scaling">The old form of the scaling; null for the usual one.</param>
    public static void WriteRope(JsonObject config, RopeSettings rope, JsonObject? scaling = null)
    {
        Complete(config, Parameters, NewForm(rope));
        Complete(config, Theta, Number(rope.Theta));
        Complete(config, Scaling, rope.Type == "default" ? null : scaling ?? OldForm(rope));
        if (rope.IsPartial)
        {
            Complete(config, Part, Number(rope.PartialFactor));
        }
    }

    /// <summary>Writes rotary positions that layers with and without a window have of their own.</summary>
    /// <param name="config">The configuration, which is completed.</param>
    /// <param name="stack">The layers.</param>
    /// <param name="fullKey">Old key of the base of layers that see everything.</param>
    /// <param name="slidingKey">Old key of the base of layers with a window; null where both had one key.</param>
    /// <param name="hasScaling">Whether older releases have a scaling, of full layers.</param>
    public static void WriteLayerRopes(JsonObject config, StackSettings stack, string fullKey, string? slidingKey, bool hasScaling)
    {
        RopeSettings? Rope(bool isSliding) => stack.Ropes.Zip(stack.Windows).FirstOrDefault(layer => layer.Second is not null == isSliding).First;

        // A model whose layers are all of one kind does not use the other's.
        RopeSettings full = Rope(false) ?? Rope(true)!;
        RopeSettings sliding = Rope(true) ?? full;
        Complete(config, Parameters, new JsonObject { [LayerTypes.Full] = NewForm(full), [LayerTypes.Sliding] = NewForm(sliding) });
        Complete(config, fullKey, Number(full.Theta));
        if (slidingKey is not null)
        {
            Complete(config, slidingKey, Number(sliding.Theta));
        }

        if (hasScaling)
        {
            Complete(config, Scaling, full.Type == "default" ? null : OldForm(full));
        }
    }

    /// <summary>Writes which layers have a window, as a list and, where there is one, as the pattern that releases before the list know.</summary>
    /// <param name="config">The configuration, which is completed.</param>
    /// <param name="sliding">Whether each layer has a window.</param>
    /// <param name="patternKey">Key of the pattern; null where there is none.</param>
    /// <param name="endsGroup">Whether the full layer is the last of its group, else the first.</param>
    public static void WriteLayerTypes(JsonObject config, IReadOnlyList<bool> sliding, string? patternKey = null, bool endsGroup = true)
    {
        Complete(config, LayerTypes.Key, new JsonArray([.. sliding.Select(static isSliding => (JsonNode)(isSliding ? LayerTypes.Sliding : LayerTypes.Full))]));
        if (patternKey is not null && LayerTypes.FindPattern(sliding, endsGroup) is int pattern)
        {
            Complete(config, patternKey, pattern);
        }
    }

    private static void Complete(JsonObject config, string key, JsonNode? value)
    {
        if (config[key] is null)
        {
            config[key] = value;
        }
    }

    private static JsonObject NewForm(RopeSettings rope)
    {
        JsonObject form = Copy(rope);
        form["rope_theta"] = Number(rope.Theta);
        form["rope_type"] = rope.Type;
        if (rope.IsPartial)
        {
            form[Part] = Number(rope.PartialFactor);
        }

        if (rope.Type == "longrope")
        {
            form.TryAdd(OriginalPositions, rope.OriginalPositions);
        }

        return form;
    }

    private static JsonObject OldForm(RopeSettings rope)
    {
        JsonObject form = Copy(rope);
        form.Remove(Theta);
        form.Remove(Part);
        form["rope_type"] = rope.Type;
        return form;
    }

    private static JsonObject Copy(RopeSettings rope) => rope.Parameters.ToJsonObject();

    // As Python writes a number that need not be whole.
    private static JsonValue Number(double value) =>
        JsonValue.Create(JsonElement.Parse(double.IsInteger(value) ? value.ToString("F1", CultureInfo.InvariantCulture) : value.ToString("R", CultureInfo.InvariantCulture)))!;
}
