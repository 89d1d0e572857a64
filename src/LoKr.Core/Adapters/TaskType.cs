namespace LoKr.Core.Adapters;

/// <summary>PEFT's task types, named as in <c>adapter_config.json</c>.</summary>
public enum TaskType
{
    /// <summary>Sequence classification (<c>SEQ_CLS</c>): the head called classifier or score is trained and saved too.</summary>
    SequenceClassification,

    /// <summary>Sequence to sequence (<c>SEQ_2_SEQ_LM</c>).</summary>
    Seq2SeqLanguageModeling,

    /// <summary>Causal language modelling (<c>CAUSAL_LM</c>).</summary>
    CausalLanguageModeling,

    /// <summary>Token classification (<c>TOKEN_CLS</c>): the head called classifier or score is trained and saved too.</summary>
    TokenClassification,

    /// <summary>Question answering (<c>QUESTION_ANS</c>): the head called qa_outputs is trained and saved too.</summary>
    QuestionAnswering,

    /// <summary>Feature extraction (<c>FEATURE_EXTRACTION</c>).</summary>
    FeatureExtraction,
}
