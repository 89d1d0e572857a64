using System.Management.Automation;
using System.Runtime.CompilerServices;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using TorchSharp;

namespace LoKr.PowerShell.Binding;

/// <summary>Accepts PEFT's spellings of <c>init_weights</c>: true, false and "lycoris", beside the names of <see cref="InitWeights"/>.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class InitWeightsTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        inputData.Unwrap() switch
        {
            true => InitWeights.Default,
            false => InitWeights.Random,
            string text when text.Equals("true", StringComparison.OrdinalIgnoreCase) => InitWeights.Default,
            string text when text.Equals("false", StringComparison.OrdinalIgnoreCase) => InitWeights.Random,
            _ => inputData,
        };
}

/// <summary>Accepts any <c>torch.nn.Module</c> for a <see cref="LoKrModel"/>; the same module is always the same model.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class LoKrModelTransformationAttribute : ArgumentTransformationAttribute
{
    // Not session state: a module from a script and its wrapper are two views of one object, and are collected together.
    private static readonly ConditionalWeakTable<torch.nn.Module, LoKrModel> s_wrappers = [];

    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        inputData.Unwrap() switch
        {
            LoKrModel model => model,
            torch.nn.Module module => s_wrappers.GetValue(module, static m => new LoKrModel(m)),
            // The binder reports the type it expects, or tries another parameter set.
            _ => inputData,
        };
}

/// <summary>Accepts PEFT's spellings of <c>task_type</c> (SEQ_CLS, CAUSAL_LM …) beside the names of <see cref="TaskType"/>.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class TaskTypeTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        inputData.Unwrap() is string text
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
