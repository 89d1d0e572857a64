using System.Management.Automation;
using LoKr.Core.Adapters;

namespace LoKr.PowerShell.Binding;

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
