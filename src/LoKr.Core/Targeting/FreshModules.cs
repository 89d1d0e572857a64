using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Targeting;

/// <summary>
/// Modules that the checkpoint of a model lacked, so that loading initialized them at random: a new classification head, a pooler. The next
/// load has other values, so an adapter is worth something there only if it holds them. A new adapter therefore trains and saves them, the
/// head of a classifier under its task as in PEFT. An empty <see cref="LoKrConfig.ModulesToSave"/> declines.
/// </summary>
internal static class FreshModules
{
    /// <summary>The modules that own parameters, each once.</summary>
    /// <param name="parameters">Full names of parameters.</param>
    public static IReadOnlyList<string> Of(IEnumerable<string> parameters) =>
        [.. parameters.Select(static name => name[..Math.Max(name.LastIndexOf('.'), 0)]).Distinct(StringComparer.Ordinal)];

    /// <summary>The configuration of a new adapter with the fresh modules saved.</summary>
    /// <param name="root">The model.</param>
    /// <param name="config">The configuration, with the module names of the tree.</param>
    /// <param name="fresh">Full names of the fresh modules.</param>
    /// <param name="warnings">Targets that are saved whole instead.</param>
    public static LoKrConfig Save(nn.Module root, LoKrConfig config, IReadOnlyList<string> fresh, out string[] warnings)
    {
        warnings = [];
        if (fresh.Count == 0 || config.ModulesToSave is { Count: 0 })
        {
            return config;
        }

        TaskType? task = root switch { ISequenceClassifier => TaskType.SequenceClassification, ITokenClassifier => TaskType.TokenClassification, _ => null };
        LoKrConfig result = config.TaskType is null && fresh.Any(name => Saves(TargetResolver.TaskHead(task), name)) ? config with { TaskType = task } : config;
        string[] saved = [.. result.ModulesToSave ?? [], .. TargetResolver.TaskHead(result.TaskType)];
        string[] others = [.. fresh.Where(name => !Saves(saved, name))];
        result = others.Length == 0 ? result : result with { ModulesToSave = [.. result.ModulesToSave ?? [], .. others] };

        TargetMatcher asGiven = new(config);
        string[] targets = config.TargetModules is null or { IsAllLinear: true } ? [] : [.. fresh.Where(name => asGiven.Check(name) == TargetMatcher.Verdict.Target)];
        warnings = targets.Length == 0 ? [] : [$"The checkpoint lacked {string.Join(", ", targets)}: trained and saved whole instead of adapted."];
        return result;
    }

    /// <summary>Fresh modules that an adapter does not hold.</summary>
    /// <param name="fresh">Full names of the fresh modules.</param>
    /// <param name="saved">Full names of the modules that the adapter saves whole.</param>
    public static IReadOnlyList<string> Unsaved(IReadOnlyList<string> fresh, IEnumerable<string> saved) =>
        [.. fresh.Where(name => !saved.Any(outer => ModuleTree.IsWithin(name, outer)))];

    /// <summary>Whether entries of modules_to_save name a module or one around it, so that it is not adapted either.</summary>
    private static bool Saves(IEnumerable<string> entries, string module) =>
        new TargetMatcher(new() { ModulesToSave = [.. entries] }).Check(module) == TargetMatcher.Verdict.Saved;
}
