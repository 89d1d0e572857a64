namespace LoKr.Core.Errors;

/// <summary>
/// Every error id of the library. They are part of the public interface: scripts compare them, so they never change.
/// </summary>
public static class ErrorIds
{
    /// <summary>A file or folder that was named does not exist.</summary>
    public const string PathNotFound = "LoKr.PathNotFound";

    /// <summary>The destination exists and overwriting was not allowed.</summary>
    public const string DestinationExists = "LoKr.DestinationExists";

    /// <summary>An argument is out of its range.</summary>
    public const string InvalidArgument = "LoKr.InvalidArgument";

    /// <summary>A rank is not a positive number.</summary>
    public const string RankInvalid = "LoKr.RankInvalid";

    /// <summary>Alpha is not a finite number.</summary>
    public const string AlphaInvalid = "LoKr.AlphaInvalid";

    /// <summary>A dropout probability is outside [0, 1).</summary>
    public const string DropoutInvalid = "LoKr.DropoutInvalid";

    /// <summary>The decompose factor is neither -1 nor positive.</summary>
    public const string DecomposeFactorInvalid = "LoKr.DecomposeFactorInvalid";

    /// <summary>layers_pattern was given without layers_to_transform.</summary>
    public const string LayersPatternInvalid = "LoKr.LayersPatternInvalid";

    /// <summary>A regular expression cannot be read, or takes too long to match.</summary>
    public const string PatternInvalid = "LoKr.PatternInvalid";

    /// <summary>A configuration option, or a combination of them, is not supported.</summary>
    public const string OptionNotSupported = "LoKr.OptionNotSupported";

    /// <summary>No target modules were given and the architecture has no default.</summary>
    public const string TargetModulesRequired = "LoKr.TargetModulesRequired";

    /// <summary>No module of the model has a name that was targeted.</summary>
    public const string TargetModuleNotFound = "LoKr.TargetModuleNotFound";

    /// <summary>The exclusions leave no module at all.</summary>
    public const string AllModulesExcluded = "LoKr.AllModulesExcluded";

    /// <summary>Every targeted module was excluded.</summary>
    public const string NoModuleTargeted = "LoKr.NoModuleTargeted";

    /// <summary>A targeted module is of a type that cannot take an adapter.</summary>
    public const string ModuleTypeNotSupported = "LoKr.ModuleTypeNotSupported";

    /// <summary>A module to save does not exist, or cannot be saved whole.</summary>
    public const string SavedModuleInvalid = "LoKr.SavedModuleInvalid";

    /// <summary>Two adapters would replace the same module at once.</summary>
    public const string SavedModuleConflict = "LoKr.SavedModuleConflict";

    /// <summary>A weight is shared by two modules, so that the operation would change both.</summary>
    public const string TiedWeight = "LoKr.TiedWeight";

    /// <summary>The name of an adapter cannot be used.</summary>
    public const string AdapterNameInvalid = "LoKr.AdapterNameInvalid";

    /// <summary>An adapter of that name exists.</summary>
    public const string AdapterExists = "LoKr.AdapterExists";

    /// <summary>No adapter of that name exists.</summary>
    public const string AdapterNotFound = "LoKr.AdapterNotFound";

    /// <summary>Tensors of an adapter are missing or unexpected.</summary>
    public const string AdapterKeysMismatch = "LoKr.AdapterKeysMismatch";

    /// <summary>Tensors of an adapter differ in shape from what the configuration and the model require.</summary>
    public const string AdapterShapeMismatch = "LoKr.AdapterShapeMismatch";

    /// <summary>The adapter is merged, which the operation does not allow.</summary>
    public const string AdapterMerged = "LoKr.AdapterMerged";

    /// <summary>Adapters are switched off, which the operation does not allow.</summary>
    public const string AdaptersDisabled = "LoKr.AdaptersDisabled";

    /// <summary>There is nothing to merge, or no merge to undo.</summary>
    public const string NothingToMerge = "LoKr.NothingToMerge";

    /// <summary>A weight that an adapter is made from has NaN or infinity.</summary>
    public const string WeightNotFinite = "LoKr.WeightNotFinite";

    /// <summary>A merged weight would hold NaN or infinity.</summary>
    public const string MergeNotFinite = "LoKr.MergeNotFinite";

    /// <summary>The model was built without weights.</summary>
    public const string ModelHasNoWeights = "LoKr.ModelHasNoWeights";

    /// <summary>The share of energy that a conversion to LoRA preserves is outside (0, 1].</summary>
    public const string EnergyInvalid = "LoKr.EnergyInvalid";

    /// <summary>A layer of the adapter cannot be written as LoRA.</summary>
    public const string LoraConversionNotSupported = "LoKr.LoraConversionNotSupported";

    /// <summary>A program has no weight under names of an adapter file.</summary>
    public const string ProgramNameUnread = "LoKr.ProgramNameUnread";

    /// <summary>No known program reads the names of an adapter file.</summary>
    public const string ProgramModelUnknown = "LoKr.ProgramModelUnknown";

    /// <summary>A program drops, refuses or multiplies wrongly factors of an adapter file.</summary>
    public const string ProgramFactorsUnread = "LoKr.ProgramFactorsUnread";

    /// <summary>A program applies another scale than an adapter file means.</summary>
    public const string ProgramScaleDiffers = "LoKr.ProgramScaleDiffers";

    /// <summary>A program ignores DoRA's magnitudes, or computes them otherwise.</summary>
    public const string ProgramDoraDiffers = "LoKr.ProgramDoraDiffers";

    /// <summary>A program refuses an adapter file.</summary>
    public const string ProgramFileRefused = "LoKr.ProgramFileRefused";

    /// <summary>A file exists but cannot be opened or read.</summary>
    public const string FileNotReadable = "LoKr.FileNotReadable";

    /// <summary>A file or folder cannot be written.</summary>
    public const string FileNotWritable = "LoKr.FileNotWritable";

    /// <summary>The disk is full.</summary>
    public const string DiskFull = "LoKr.DiskFull";

    /// <summary>A folder that holds neither a model nor an adapter is not replaced.</summary>
    public const string DestinationForeign = "LoKr.DestinationForeign";

    /// <summary>Another process is writing the same destination.</summary>
    public const string DestinationBusy = "LoKr.DestinationBusy";

    /// <summary>A pickle file was given; loading one can run code, so only safetensors is read.</summary>
    public const string PickleRefused = "LoKr.PickleRefused";

    /// <summary>A GGUF file ends before the bytes its header describes.</summary>
    public const string GgufTruncated = "LoKr.GgufTruncated";

    /// <summary>The header of a GGUF file is not valid, or is of a version that is not read.</summary>
    public const string GgufHeaderInvalid = "LoKr.GgufHeaderInvalid";

    /// <summary>A tensor of a GGUF file has an element type that is unknown, or whose values cannot be read or written.</summary>
    public const string GgufTypeUnsupported = "LoKr.GgufTypeUnsupported";

    /// <summary>The description of a quantized weight (its scale, its settings) is missing, damaged, or does not fit it.</summary>
    public const string QuantizationInvalid = "LoKr.QuantizationInvalid";

    /// <summary>The values of a quantized weight cannot be read.</summary>
    public const string QuantizationUnsupported = "LoKr.QuantizationUnsupported";

    /// <summary>Changed values cannot be stored in the quantized type of their weight.</summary>
    public const string QuantizationNotWritable = "LoKr.QuantizationNotWritable";

    /// <summary>A safetensors file ends before the bytes its header describes.</summary>
    public const string SafetensorsTruncated = "LoKr.SafetensorsTruncated";

    /// <summary>A safetensors file is longer than its header says.</summary>
    public const string SafetensorsTrailingData = "LoKr.SafetensorsTrailingData";

    /// <summary>A safetensors header is larger than the format allows (100 MB), or the file is of another kind.</summary>
    public const string SafetensorsHeaderTooLarge = "LoKr.SafetensorsHeaderTooLarge";

    /// <summary>A safetensors header is not the JSON object that the format requires.</summary>
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

    /// <summary>The shape and element type of a tensor disagree with its number of bytes in the file.</summary>
    public const string SafetensorsSizeMismatch = "LoKr.SafetensorsSizeMismatch";

    /// <summary>Two tensors of a file share bytes.</summary>
    public const string SafetensorsOverlap = "LoKr.SafetensorsOverlap";

    /// <summary>Bytes of a file belong to no tensor.</summary>
    public const string SafetensorsHole = "LoKr.SafetensorsHole";

    /// <summary>A stored value is impossible for its element type, such as a boolean that is neither 0 nor 1.</summary>
    public const string SafetensorsValueInvalid = "LoKr.SafetensorsValueInvalid";

    /// <summary>A name cannot be used for a tensor or a metadata entry.</summary>
    public const string SafetensorsNameInvalid = "LoKr.SafetensorsNameInvalid";

    /// <summary>No tensor of that name exists.</summary>
    public const string TensorNotFound = "LoKr.TensorNotFound";

    /// <summary>A tensor differs in shape from its destination.</summary>
    public const string TensorShapeMismatch = "LoKr.TensorShapeMismatch";

    /// <summary>The element type of a tensor cannot be converted to the requested one without losing its meaning.</summary>
    public const string TensorDTypeMismatch = "LoKr.TensorDTypeMismatch";

    /// <summary>An element type, or a value of it, cannot be stored or represented.</summary>
    public const string TensorDTypeUnsupported = "LoKr.TensorDTypeUnsupported";

    /// <summary>A folder holds no weights.</summary>
    public const string CheckpointNotFound = "LoKr.CheckpointNotFound";

    /// <summary>The index of a sharded checkpoint is not valid.</summary>
    public const string CheckpointIndexInvalid = "LoKr.CheckpointIndexInvalid";

    /// <summary>A shard listed in the index is missing.</summary>
    public const string CheckpointShardMissing = "LoKr.CheckpointShardMissing";

    /// <summary>A tensor listed in the index is in no shard.</summary>
    public const string CheckpointTensorMissing = "LoKr.CheckpointTensorMissing";

    /// <summary>A tensor is in a different shard than the index says, or in two.</summary>
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

    /// <summary>Nothing determines the scale of the factors of an adapter file.</summary>
    public const string AdapterScaleUnknown = "LoKr.AdapterScaleUnknown";

    /// <summary>Modules of an adapter file cannot be found in the model.</summary>
    public const string AdapterModulesUnknown = "LoKr.AdapterModulesUnknown";

    /// <summary>Rows that another division of a model needs are not one Kronecker product, and nobody chose what they become.</summary>
    public const string DivisionInexact = "LoKr.DivisionInexact";

    /// <summary>An adapter cannot be written in a layout without changing its meaning, or not without more information.</summary>
    public const string ConversionUnsupported = "LoKr.ConversionUnsupported";

    /// <summary>A tensor of an adapter file holds NaN or infinity.</summary>
    public const string AdapterValueInvalid = "LoKr.AdapterValueInvalid";

    /// <summary>The native library that reads and writes images does not load.</summary>
    public const string ImageLibraryMissing = "LoKr.ImageLibraryMissing";

    /// <summary>A file is not an image of a supported format, or is damaged.</summary>
    public const string ImageNotReadable = "LoKr.ImageNotReadable";

    /// <summary>A width or height is not a multiple of 8, or not one that the model supports.</summary>
    public const string ImageSizeInvalid = "LoKr.ImageSizeInvalid";

    /// <summary>A generated image contains NaN or infinity.</summary>
    public const string PictureNotFinite = "LoKr.PictureNotFinite";

    /// <summary>A training image has no caption.</summary>
    public const string CaptionMissing = "LoKr.CaptionMissing";

    /// <summary>A model's rotary position embedding is of an unsupported kind, or differs between kinds of layers.</summary>
    public const string RopeUnsupported = "LoKr.RopeUnsupported";

    /// <summary>A prompt leaves no room for a new token within the model's longest sequence.</summary>
    public const string PromptTooLong = "LoKr.PromptTooLong";

    /// <summary>A prompt has no token to continue from.</summary>
    public const string PromptEmpty = "LoKr.PromptEmpty";

    /// <summary>A prompt holds an id that is not in the model's vocabulary.</summary>
    public const string PromptInvalid = "LoKr.PromptInvalid";

    /// <summary>An option of text generation is out of its range.</summary>
    public const string GenerationOptionInvalid = "LoKr.GenerationOptionInvalid";

    /// <summary>The scores of the next token are NaN or infinite.</summary>
    public const string LogitsNotFinite = "LoKr.LogitsNotFinite";

    /// <summary>A folder has no config.json.</summary>
    public const string ModelConfigNotFound = "LoKr.ModelConfigNotFound";

    /// <summary>config.json is not JSON, or a key is missing or has a value that cannot be used.</summary>
    public const string ModelConfigInvalid = "LoKr.ModelConfigInvalid";

    /// <summary>config.json requires something that is understood but not supported.</summary>
    public const string ModelConfigUnsupported = "LoKr.ModelConfigUnsupported";

    /// <summary>config.json names no model_type.</summary>
    public const string ModelTypeMissing = "LoKr.ModelTypeMissing";

    /// <summary>The model_type of config.json is not among the known architectures.</summary>
    public const string ModelTypeUnknown = "LoKr.ModelTypeUnknown";

    /// <summary>A folder has no model_index.json, so it is not a pipeline.</summary>
    public const string PipelineNotFound = "LoKr.PipelineNotFound";

    /// <summary>A component that model_index.json lists, or that the kind of pipeline requires, is missing.</summary>
    public const string PipelineComponentMissing = "LoKr.PipelineComponentMissing";

    /// <summary>A pipeline, or a component of it, is of an unsupported class.</summary>
    public const string PipelineUnsupported = "LoKr.PipelineUnsupported";

    /// <summary>The components of a pipeline do not fit each other, or model_index.json cannot be used.</summary>
    public const string PipelineInvalid = "LoKr.PipelineInvalid";

    /// <summary>The weights of a checkpoint do not fit the model its config.json describes.</summary>
    public const string CheckpointKeysMismatch = "LoKr.CheckpointKeysMismatch";

    /// <summary>The given labels differ from those of the checkpoint's classification head, or those of the model from those of an adapter's head.</summary>
    public const string LabelsMismatch = "LoKr.LabelsMismatch";

    /// <summary>Labels were given to a model that does not classify, or are empty or repeated.</summary>
    public const string LabelsInvalid = "LoKr.LabelsInvalid";

    /// <summary>An adapter file does not name the labels of its classifier.</summary>
    public const string AdapterLabelsMissing = "LoKr.AdapterLabelsMissing";

    /// <summary>Models cannot run in the requested element type.</summary>
    public const string DTypeNotSupported = "LoKr.DTypeNotSupported";

    /// <summary>A batch does not fit the model: it is too long, has another shape, or has ids outside the vocabulary.</summary>
    public const string ModelInputInvalid = "LoKr.ModelInputInvalid";

    /// <summary>A model with unmerged adapters cannot be exported.</summary>
    public const string ExportUnmerged = "LoKr.ExportUnmerged";

    /// <summary>A file in a model's folder is a link to a place outside the folder.</summary>
    public const string LinkOutsideFolder = "LoKr.LinkOutsideFolder";

    /// <summary>The destination of an export is the model's own folder, is inside it, or contains it.</summary>
    public const string ExportIntoSource = "LoKr.ExportIntoSource";

    /// <summary>No libtorch was found in the usual places, or the named folder has none.</summary>
    public const string RuntimeNotFound = "LoKr.RuntimeNotFound";

    /// <summary>The libtorch found is of another version than TorchSharp was built for, or its version cannot be determined.</summary>
    public const string RuntimeVersionMismatch = "LoKr.RuntimeVersionMismatch";

    /// <summary>The libraries were found but the system's loader refused them.</summary>
    public const string RuntimeLoadFailed = "LoKr.RuntimeLoadFailed";

    /// <summary>A runtime other than the requested one is already loaded in this process.</summary>
    public const string RuntimeAlreadyLoaded = "LoKr.RuntimeAlreadyLoaded";

    /// <summary>The per-user runtime store cannot be written.</summary>
    public const string RuntimeStoreNotWritable = "LoKr.RuntimeStoreNotWritable";

    /// <summary>Other users can change what the runtime store holds, so no native code is loaded from it.</summary>
    public const string RuntimeStoreUntrusted = "LoKr.RuntimeStoreUntrusted";

    /// <summary>A library of a runtime is not the one that was published or installed.</summary>
    public const string RuntimeDamaged = "LoKr.RuntimeDamaged";

    /// <summary>A package of the runtime is not in the source that was named, there is none for this platform, or there is no such source.</summary>
    public const string RuntimePackageNotFound = "LoKr.RuntimePackageNotFound";

    /// <summary>A package of the runtime cannot be downloaded.</summary>
    public const string RuntimeDownloadFailed = "LoKr.RuntimeDownloadFailed";

    /// <summary>A device name is not auto, cpu, cuda or cuda:N.</summary>
    public const string DeviceInvalid = "LoKr.DeviceInvalid";

    /// <summary>The requested GPU is not available.</summary>
    public const string DeviceNotFound = "LoKr.DeviceNotFound";

    /// <summary>The folder has none of the known tokenizer files.</summary>
    public const string TokenizerNotFound = "LoKr.TokenizerNotFound";

    /// <summary>The tokenizer's files are well formed, but require something that cannot be done exactly.</summary>
    public const string TokenizerUnsupported = "LoKr.TokenizerUnsupported";

    /// <summary>A tokenizer file is damaged, or two of them contradict each other.</summary>
    public const string TokenizerInvalid = "LoKr.TokenizerInvalid";

    /// <summary>Conversations are given to a model without a chat template.</summary>
    public const string ChatTemplateMissing = "LoKr.ChatTemplateMissing";

    /// <summary>A chat template is malformed.</summary>
    public const string ChatTemplateInvalid = "LoKr.ChatTemplateInvalid";

    /// <summary>A chat template needs a part of Jinja that is not interpreted.</summary>
    public const string ChatTemplateUnsupported = "LoKr.ChatTemplateUnsupported";

    /// <summary>A chat template refuses a conversation, cannot be rendered with it, or exceeds a limit.</summary>
    public const string ChatTemplateFailed = "LoKr.ChatTemplateFailed";

    /// <summary>Another thread trains, merges, changes or runs the model.</summary>
    public const string ModelBusy = "LoKr.ModelBusy";

    /// <summary>The model was disposed.</summary>
    public const string ModelDisposed = "LoKr.ModelDisposed";

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

    /// <summary>An evaluation has no value of the metric.</summary>
    public const string MetricUnavailable = "LoKr.MetricUnavailable";

    /// <summary>Another process has the run folder.</summary>
    public const string RunBusy = "LoKr.RunBusy";

    /// <summary>The folder has a run already, or holds something else.</summary>
    public const string RunExists = "LoKr.RunExists";

    /// <summary>The folder has no run, or none that can be continued.</summary>
    public const string RunNotFound = "LoKr.RunNotFound";

    /// <summary>A file of a run folder is damaged.</summary>
    public const string RunInvalid = "LoKr.RunInvalid";

    /// <summary>The folder has no submission of jobs.</summary>
    public const string SubmissionNotFound = "LoKr.SubmissionNotFound";

    /// <summary>A file of a submission folder is damaged.</summary>
    public const string SubmissionInvalid = "LoKr.SubmissionInvalid";

    /// <summary>A run began with other data, another base model, or another configuration.</summary>
    public const string RunMismatch = "LoKr.RunMismatch";

    /// <summary>The tensors of a checkpoint do not fit the run.</summary>
    public const string CheckpointMismatch = "LoKr.CheckpointMismatch";

    /// <summary>No MPI library is installed, and several processes are to work together.</summary>
    public const string MpiNotFound = "LoKr.MpiNotFound";

    /// <summary>The MPI library does not fit the launcher, or cannot be used from threads.</summary>
    public const string MpiNotUsable = "LoKr.MpiNotUsable";

    /// <summary>Another worker ended, or failed with an error that has no id of its own.</summary>
    public const string WorkerFailed = "LoKr.WorkerFailed";

    /// <summary>Workers have different data, models, options or processors, do different things, or computed different values.</summary>
    public const string WorkersDiffer = "LoKr.WorkersDiffer";

    /// <summary>A registry has no such adapter, version or alias.</summary>
    public const string VersionNotFound = "LoKr.VersionNotFound";

    /// <summary>An alias means the version, so it is not removed.</summary>
    public const string VersionInUse = "LoKr.VersionInUse";

    /// <summary>A file of a registry is damaged.</summary>
    public const string RegistryInvalid = "LoKr.RegistryInvalid";

    /// <summary>A job file has a key or a value that cannot be used.</summary>
    public const string JobInvalid = "LoKr.JobInvalid";

    /// <summary>The program that is told how a job ended failed.</summary>
    public const string NotificationFailed = "LoKr.NotificationFailed";

    /// <summary>The disk has less free space than a run has to leave.</summary>
    public const string DiskSpaceLow = "LoKr.DiskSpaceLow";

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

    /// <summary>No row has a token that contributes to the loss.</summary>
    public const string DataWithoutLoss = "LoKr.DataWithoutLoss";

    /// <summary>Texts of the data are empty, more of them than is allowed.</summary>
    public const string DataTextEmpty = "LoKr.DataTextEmpty";

    /// <summary>Rows of the data are there twice, more of them than is allowed.</summary>
    public const string DataDuplicate = "LoKr.DataDuplicate";

    /// <summary>Texts of the data have several labels, more of them than is allowed.</summary>
    public const string DataContradiction = "LoKr.DataContradiction";

    /// <summary>Rows of the data have no label, more of them than is allowed.</summary>
    public const string DataUnlabeled = "LoKr.DataUnlabeled";

    /// <summary>Validation rows are also in the data, more of them than is allowed.</summary>
    public const string DataShared = "LoKr.DataShared";

    /// <summary>Labels of the data were never seen before, more of them than is allowed.</summary>
    public const string DataLabelNew = "LoKr.DataLabelNew";

    /// <summary>Labels of the validation rows are not in the data, more of them than is allowed.</summary>
    public const string DataLabelUnseen = "LoKr.DataLabelUnseen";

    /// <summary>The shares of the labels changed more than is allowed.</summary>
    public const string DataLabelShift = "LoKr.DataLabelShift";

    /// <summary>The lengths of the texts changed more than is allowed.</summary>
    public const string DataLengthShift = "LoKr.DataLengthShift";

    /// <summary>More tokens of the data are unknown to the tokenizer than is allowed.</summary>
    public const string DataTokensUnknown = "LoKr.DataTokensUnknown";

    /// <summary>More rows of the data will be cut than is allowed.</summary>
    public const string DataCut = "LoKr.DataCut";

    /// <summary>More answers of conversations will be cut or left out than is allowed.</summary>
    public const string DataAnswersCut = "LoKr.DataAnswersCut";

    /// <summary>More answers of conversations begin within a token of the text in front of them than is allowed.</summary>
    public const string DataAnswersJoined = "LoKr.DataAnswersJoined";

    /// <summary>More answers of conversations have no place in the text of their conversation than is allowed.</summary>
    public const string DataAnswersUnplaced = "LoKr.DataAnswersUnplaced";

    /// <summary>The requested maximum length exceeds what the model allows.</summary>
    public const string MaxLengthTooLarge = "LoKr.MaxLengthTooLarge";
}
