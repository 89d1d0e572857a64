using System.Globalization;
using System.Management.Automation;
using System.Runtime.CompilerServices;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Core.Runs;
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

/// <summary>Accepts times as people write them: <c>90s</c>, <c>10m</c>, <c>2h</c>, <c>1d</c>. A number alone has no unit and is refused.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class DurationTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) => Read(inputData) is string text ? Durations.Parse(text) : inputData;

    // To PowerShell 90s is a number of 16 bits and 1d a decimal, which would become ticks; what was written is kept beside the number.
    internal static string? Read(object? input) => input.Unwrap() switch
    {
        string text => text,
        ValueType number and not TimeSpan and not RunInterval => Convert.ToString(input is PSObject written ? written.ToString() : number, CultureInfo.InvariantCulture),
        _ => null,
    };
}

/// <summary>Accepts a number of steps, or a time as <see cref="DurationTransformationAttribute"/> does.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class IntervalTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) => inputData.Unwrap() switch
    {
        TimeSpan time => new RunInterval(time),
        _ => DurationTransformationAttribute.Read(inputData) is string text ? RunInterval.Parse(text) : inputData,
    };
}
