namespace LoKr.Core;

public static partial class ErrorIds
{
    /// <summary>A training option is out of its range.</summary>
    public const string TrainingOptionInvalid = "LoKr.TrainingOptionInvalid";

    /// <summary>The model has no adapter to train.</summary>
    public const string NoAdapter = "LoKr.NoAdapter";

    /// <summary>Several adapters are active and none was named.</summary>
    public const string AdapterAmbiguous = "LoKr.AdapterAmbiguous";

    /// <summary>Adapters are merged or disabled, so that training would change nothing.</summary>
    public const string AdapterNotTrainable = "LoKr.AdapterNotTrainable";

    /// <summary>An adapted layer did not run in the first training step.</summary>
    public const string AdapterNotCalled = "LoKr.AdapterNotCalled";

    /// <summary>The loss became NaN or infinite.</summary>
    public const string LossNotFinite = "LoKr.LossNotFinite";

    /// <summary>The gradient became NaN or infinite.</summary>
    public const string GradientNotFinite = "LoKr.GradientNotFinite";

    /// <summary>A loss is not one number, or has no gradient.</summary>
    public const string LossInvalid = "LoKr.LossInvalid";

    /// <summary>The model is neither a text classifier nor a language model, so its loss is not known.</summary>
    public const string TaskUnknown = "LoKr.TaskUnknown";

    /// <summary>The model has no tokenizer.</summary>
    public const string TokenizerMissing = "LoKr.TokenizerMissing";

    /// <summary>A row has a label that the model does not know.</summary>
    public const string LabelUnknown = "LoKr.LabelUnknown";

    /// <summary>The data has no rows.</summary>
    public const string DataEmpty = "LoKr.DataEmpty";

    /// <summary>A line or record of a data file cannot be read.</summary>
    public const string DataLineInvalid = "LoKr.DataLineInvalid";

    /// <summary>The data lacks a column that the task needs.</summary>
    public const string DataColumnMissing = "LoKr.DataColumnMissing";

    /// <summary>A value of a row has the wrong type.</summary>
    public const string DataValueInvalid = "LoKr.DataValueInvalid";

    /// <summary>A data file's header has a column twice, or an empty one.</summary>
    public const string DataHeaderInvalid = "LoKr.DataHeaderInvalid";

    /// <summary>The extension of a data file is not known.</summary>
    public const string DataFormatUnknown = "LoKr.DataFormatUnknown";

    /// <summary>A data file is not UTF-8.</summary>
    public const string DataEncodingInvalid = "LoKr.DataEncodingInvalid";

    /// <summary>No row has a token left that carries loss.</summary>
    public const string DataWithoutLoss = "LoKr.DataWithoutLoss";

    /// <summary>The longest sequence asked for is more than the model allows.</summary>
    public const string MaxLengthTooLarge = "LoKr.MaxLengthTooLarge";
}
