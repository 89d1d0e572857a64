using System.Management.Automation;
using System.Runtime.CompilerServices;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using TorchSharp;

namespace LoKr.PowerShell.Binding;

/// <summary>Accepts PEFT's spellings of <c>init_weights</c>: true, false and "lycoris", beside the names of <see cref="InitWeights"/>.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class InitWeightsTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        (inputData is PSObject wrapped ? wrapped.BaseObject : inputData) switch
        {
            true => InitWeights.Default,
            false => InitWeights.Random,
            string text when text.Equals("true", StringComparison.OrdinalIgnoreCase) => InitWeights.Default,
            string text when text.Equals("false", StringComparison.OrdinalIgnoreCase) => InitWeights.Random,
            _ => inputData,
        };
}

/// <summary>Lets any <c>torch.nn.Module</c> stand where a <see cref="LoKrModel"/> is wanted; the same module is always the same model.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class LoKrModelTransformationAttribute : ArgumentTransformationAttribute
{
    // Not state of a session: a module made in a script and its wrapper are one object seen two ways, and die together.
    private static readonly ConditionalWeakTable<torch.nn.Module, LoKrModel> s_wrappers = [];

    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        (inputData is PSObject wrapped ? wrapped.BaseObject : inputData) switch
        {
            LoKrModel model => model,
            torch.nn.Module module => s_wrappers.GetValue(module, static m => new LoKrModel(m)),
            // The binder says what it wanted, or tries another parameter set.
            _ => inputData,
        };
}

/// <summary>Accepts PEFT's spellings of <c>task_type</c> (SEQ_CLS, CAUSAL_LM …) beside the names of <see cref="TaskType"/>.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class TaskTypeTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        (inputData is PSObject wrapped ? wrapped.BaseObject : inputData) is string text
            ? text.ToUpperInvariant() switch
            {
                "SEQ_CLS" => TaskType.SequenceClassification,
                "SEQ_2_SEQ_LM" => TaskType.Seq2SeqLanguageModeling,
                "CAUSAL_LM" => TaskType.CausalLanguageModeling,
                "TOKEN_CLS" => TaskType.TokenClassification,
                "QUESTION_ANS" => TaskType.QuestionAnswering,
                "FEATURE_EXTRACTION" => TaskType.FeatureExtraction,
                _ => inputData,
            }
            : inputData;
}

/// <summary>Reads a choice of modules from a parameter of names and one of a pattern.</summary>
internal static class SelectorReader
{
    /// <summary>The selector, or null when neither parameter was given.</summary>
    public static ModuleSelector? Read(string[]? names, string namesParameter, string? pattern, string patternParameter)
    {
        if (names is not null && pattern is not null)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"-{namesParameter} and -{patternParameter} were both given.", "Use the one or the other.");
        }

        if (pattern is not null)
        {
            return ModuleSelector.FromPattern(pattern);
        }

        if (names is null)
        {
            return null;
        }

        if (names.Length == 1 && names[0].Equals("all-linear", StringComparison.OrdinalIgnoreCase))
        {
            return ModuleSelector.FromPattern("all-linear");
        }

        // PEFT would match such a name literally and find nothing; it is nearly always a pattern in the wrong place.
        string? odd = names.FirstOrDefault(name => !name.All(c => char.IsLetterOrDigit(c) || c is '_' or '.' or '-'));
        return odd is null
            ? ModuleSelector.FromNames(names)
            : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"'{odd}' is not a module name.", $"Give a regular expression with -{patternParameter}.") { Target = odd };
    }
}
