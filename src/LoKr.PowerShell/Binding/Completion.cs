using System.Collections;
using System.Management.Automation;
using LoKr.Core.Adapters;
using TorchSharp;

namespace LoKr.PowerShell.Binding;

/// <summary>What the completers share.</summary>
internal static class Completion
{
    /// <summary>Candidates that begin with a word, quoted where they need it.</summary>
    public static IEnumerable<CompletionResult> Match(IEnumerable<string> candidates, string? word)
    {
        WildcardPattern pattern = WildcardPattern.Get($"{(word ?? "").Trim('\'', '"')}*", WildcardOptions.IgnoreCase);
        foreach (string candidate in candidates.Where(pattern.IsMatch))
        {
            bool plain = candidate.All(c => char.IsLetterOrDigit(c) || c is '_' or '.' or '-' or ':');
            yield return new CompletionResult(
                plain ? candidate : $"'{candidate.Replace("'", "''", StringComparison.Ordinal)}'",
                candidate, CompletionResultType.ParameterValue, candidate);
        }
    }

    /// <summary>The model bound in the same call, or null.</summary>
    public static LoKrModel? BoundModel(IDictionary bound) => (bound["Model"] is PSObject wrapped ? wrapped.BaseObject : bound["Model"]) switch
    {
        LoKrModel model => model,
        torch.nn.Module module => new LoKrModelTransformationAttribute().Transform(null!, module) as LoKrModel,
        _ => null,
    };
}
