using LoKr.Core.Adapters;

namespace LoKr.Core.Conversion;

/// <summary>The configuration of a converted adapter, by PEFT's rules.</summary>
internal static class LoraConfigBuilder
{
    /// <summary>
    /// With one rank for all, the names of the converted layers join the targets of the LoKr adapter; with ranks by energy, or with targets
    /// that are an expression, every layer has an entry of its own and r is 1 (PEFT) or the rank.
    /// </summary>
    public static LoraConfig Create(LoKrConfig config, IReadOnlyDictionary<string, int> ranks, LoraRank rank, bool fanInFanOut)
    {
        IReadOnlyList<string>? given = config.TargetModules?.Names;
        bool patterned = rank.Fixed is null || config.TargetModules is { Pattern: not null };
        ModuleSelector targets = config.TargetModules is { Pattern: not null } expression
            ? expression
            : ModuleSelector.FromNames((given ?? []).Concat(patterned && given is not null ? [] : ranks.Keys.Order(StringComparer.Ordinal)).Distinct(StringComparer.Ordinal));
        return new()
        {
            R = rank.Fixed ?? 1,
            RankPattern = patterned ? [.. Patterns(ranks)] : [],
            TargetModules = targets,
            ExcludeModules = config.ExcludeModules,
            LayersPattern = config.LayersPattern,
            LayersToTransform = config.LayersToTransform,
            ModulesToSave = config.ModulesToSave,
            TaskType = config.TaskType,
            AutoMapping = config.AutoMapping,
            BaseModelNameOrPath = config.BaseModelNameOrPath,
            Revision = config.Revision,
            FanInFanOut = fanInFanOut,
        };
    }

    /// <summary>Full names as PEFT writes them; anchored where a name is the end of another layer's, which PEFT would confuse.</summary>
    private static KeyValuePair<string, int>[] Patterns(IReadOnlyDictionary<string, int> ranks)
    {
        KeyValuePair<string, int>[] plain = [.. ranks];
        return ranks.All(layer => ModulePatterns.Find(plain, layer.Key, 0) == layer.Value)
            ? plain
            : [.. ranks.Select(static layer => KeyValuePair.Create("^" + layer.Key.Replace(".", @"\.", StringComparison.Ordinal), layer.Value))];
    }
}
