namespace LoKr.Core;

public static partial class ErrorIds
{
    /// <summary>A folder has no config.json.</summary>
    public const string ModelConfigNotFound = "LoKr.ModelConfigNotFound";

    /// <summary>config.json is not JSON, or a key is missing or has a value that cannot be used.</summary>
    public const string ModelConfigInvalid = "LoKr.ModelConfigInvalid";

    /// <summary>config.json asks for something that is understood but not built.</summary>
    public const string ModelConfigUnsupported = "LoKr.ModelConfigUnsupported";

    /// <summary>config.json names no model_type.</summary>
    public const string ModelTypeMissing = "LoKr.ModelTypeMissing";

    /// <summary>The model_type of config.json is not among the known architectures.</summary>
    public const string ModelTypeUnknown = "LoKr.ModelTypeUnknown";

    /// <summary>A folder holds no model_index.json, so that it is no pipeline.</summary>
    public const string PipelineNotFound = "LoKr.PipelineNotFound";

    /// <summary>A component that a pipeline's model_index.json lists, or that its kind of pipeline needs, is not there.</summary>
    public const string PipelineComponentMissing = "LoKr.PipelineComponentMissing";

    /// <summary>A pipeline, or a component of it, is of a class that is not built.</summary>
    public const string PipelineUnsupported = "LoKr.PipelineUnsupported";

    /// <summary>The components of a pipeline do not fit each other, or model_index.json cannot be used.</summary>
    public const string PipelineInvalid = "LoKr.PipelineInvalid";

    /// <summary>The weights of a checkpoint do not fit the model its config.json describes.</summary>
    public const string CheckpointKeysMismatch = "LoKr.CheckpointKeysMismatch";

    /// <summary>The labels that were given are not those of the checkpoint's classification head.</summary>
    public const string LabelsMismatch = "LoKr.LabelsMismatch";

    /// <summary>Labels were given to a model that does not classify, or are empty or repeated.</summary>
    public const string LabelsInvalid = "LoKr.LabelsInvalid";

    /// <summary>The element type that was asked for is not one that models run in.</summary>
    public const string DTypeNotSupported = "LoKr.DTypeNotSupported";

    /// <summary>A batch does not fit the model: too long, of another shape, or with ids outside the vocabulary.</summary>
    public const string ModelInputInvalid = "LoKr.ModelInputInvalid";

    /// <summary>A model with adapters that are not merged was to be exported.</summary>
    public const string ExportUnmerged = "LoKr.ExportUnmerged";

    /// <summary>The destination of an export is the model's own folder, lies in it or contains it.</summary>
    public const string ExportIntoSource = "LoKr.ExportIntoSource";
}
