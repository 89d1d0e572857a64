namespace LoKr.Core;

public static partial class ErrorIds
{
    /// <summary>A file exists but cannot be opened or read.</summary>
    public const string FileNotReadable = "LoKr.FileNotReadable";

    /// <summary>A file or folder cannot be written.</summary>
    public const string FileNotWritable = "LoKr.FileNotWritable";

    /// <summary>The disk has no room for what was to be written.</summary>
    public const string DiskFull = "LoKr.DiskFull";

    /// <summary>Another process is writing the same destination.</summary>
    public const string DestinationBusy = "LoKr.DestinationBusy";

    /// <summary>A pickle file was given; loading one can run code, so only safetensors is read.</summary>
    public const string PickleRefused = "LoKr.PickleRefused";

    /// <summary>A safetensors file ends before the bytes its header describes.</summary>
    public const string SafetensorsTruncated = "LoKr.SafetensorsTruncated";

    /// <summary>A safetensors file is longer than its header says.</summary>
    public const string SafetensorsTrailingData = "LoKr.SafetensorsTrailingData";

    /// <summary>A safetensors header is larger than the format allows (100 MB), or the file is of another kind.</summary>
    public const string SafetensorsHeaderTooLarge = "LoKr.SafetensorsHeaderTooLarge";

    /// <summary>A safetensors header is not the JSON object that the format asks for.</summary>
    public const string SafetensorsHeaderInvalid = "LoKr.SafetensorsHeaderInvalid";

    /// <summary>Metadata of a safetensors file is not an object of strings.</summary>
    public const string SafetensorsMetadataInvalid = "LoKr.SafetensorsMetadataInvalid";

    /// <summary>A key appears twice in a safetensors header.</summary>
    public const string SafetensorsDuplicateKey = "LoKr.SafetensorsDuplicateKey";

    /// <summary>An element type is not one of the format's.</summary>
    public const string SafetensorsDTypeUnknown = "LoKr.SafetensorsDTypeUnknown";

    /// <summary>A shape is negative, not of integers, or too large to address.</summary>
    public const string SafetensorsShapeInvalid = "LoKr.SafetensorsShapeInvalid";

    /// <summary>Data offsets are not two ascending positions.</summary>
    public const string SafetensorsOffsetsInvalid = "LoKr.SafetensorsOffsetsInvalid";

    /// <summary>Shape and element type of a tensor do not give the number of bytes it has in the file.</summary>
    public const string SafetensorsSizeMismatch = "LoKr.SafetensorsSizeMismatch";

    /// <summary>Two tensors of a file share bytes.</summary>
    public const string SafetensorsOverlap = "LoKr.SafetensorsOverlap";

    /// <summary>Bytes of a file belong to no tensor.</summary>
    public const string SafetensorsHole = "LoKr.SafetensorsHole";

    /// <summary>A stored value is impossible for its element type, such as a boolean that is neither 0 nor 1.</summary>
    public const string SafetensorsValueInvalid = "LoKr.SafetensorsValueInvalid";

    /// <summary>A name cannot be used for a tensor or a metadata entry.</summary>
    public const string SafetensorsNameInvalid = "LoKr.SafetensorsNameInvalid";

    /// <summary>No tensor of that name.</summary>
    public const string TensorNotFound = "LoKr.TensorNotFound";

    /// <summary>A tensor has another shape than the one it is for.</summary>
    public const string TensorShapeMismatch = "LoKr.TensorShapeMismatch";

    /// <summary>A tensor's element type cannot be converted to the wanted one without losing its meaning.</summary>
    public const string TensorDTypeMismatch = "LoKr.TensorDTypeMismatch";

    /// <summary>An element type, or a value of it, cannot be stored or held.</summary>
    public const string TensorDTypeUnsupported = "LoKr.TensorDTypeUnsupported";

    /// <summary>A folder holds no weights.</summary>
    public const string CheckpointNotFound = "LoKr.CheckpointNotFound";

    /// <summary>The index of a sharded checkpoint is not valid.</summary>
    public const string CheckpointIndexInvalid = "LoKr.CheckpointIndexInvalid";

    /// <summary>A shard that the index names is not there.</summary>
    public const string CheckpointShardMissing = "LoKr.CheckpointShardMissing";

    /// <summary>A tensor that the index names is in no shard.</summary>
    public const string CheckpointTensorMissing = "LoKr.CheckpointTensorMissing";

    /// <summary>A tensor is in another shard than the index says, or in two.</summary>
    public const string CheckpointTensorMisplaced = "LoKr.CheckpointTensorMisplaced";

    /// <summary>A folder holds no adapter_config.json, or no adapter weights.</summary>
    public const string AdapterFileNotFound = "LoKr.AdapterFileNotFound";

    /// <summary>An adapter_config.json is not JSON, or a value in it has the wrong type or is out of range.</summary>
    public const string AdapterConfigInvalid = "LoKr.AdapterConfigInvalid";

    /// <summary>An adapter_config.json describes another kind of adapter than LoKr.</summary>
    public const string AdapterTypeNotSupported = "LoKr.AdapterTypeNotSupported";

    /// <summary>A tensor name of an adapter file does not have the form that PEFT writes.</summary>
    public const string AdapterKeyInvalid = "LoKr.AdapterKeyInvalid";

    /// <summary>An adapter file holds tensors of several layouts, or of several adapters.</summary>
    public const string AdapterLayoutMixed = "LoKr.AdapterLayoutMixed";

    /// <summary>Nothing says what the factors of an adapter file are multiplied with.</summary>
    public const string AdapterScaleUnknown = "LoKr.AdapterScaleUnknown";

    /// <summary>Modules of an adapter file cannot be found among those of the model it is for.</summary>
    public const string AdapterModulesUnknown = "LoKr.AdapterModulesUnknown";

    /// <summary>An adapter cannot be written in a layout without changing its meaning, or not without more information.</summary>
    public const string ConversionUnsupported = "LoKr.ConversionUnsupported";

    /// <summary>A tensor of an adapter file holds NaN or infinity.</summary>
    public const string AdapterValueInvalid = "LoKr.AdapterValueInvalid";
}
