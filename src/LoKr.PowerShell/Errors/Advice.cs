using System.Collections.Frozen;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;

namespace LoKr.PowerShell.Errors;

/// <summary>
/// Advice in PowerShell's terms, chosen by error id. The library advises C# programmers and names no cmdlet; where a cmdlet or a
/// parameter is the answer, a text here replaces the library's or is added to it. An id without an entry leaves it as it is.
/// </summary>
internal static class Advice
{
    private const string AddAdapter = "Add one with Add-LoKrAdapter or Import-LoKrAdapter";
    private const string ListModules = "Get-LoKrModule lists the modules of the model.";
    private const string CompareTargets = "Compare -TargetModules with -ExcludeModules, -ModulesToSave and -LayersToTransform. " + ListModules;

    private static readonly FrozenDictionary<string, string> s_texts = new Dictionary<string, string>
    {
        // A configuration and its targets.
        [ErrorIds.LayersPatternInvalid] =
            "Give -LayersPattern only with -LayersToTransform, and -LayersToTransform only with names in -TargetModules: a pattern, or all-linear, names its layers itself.",
        [ErrorIds.TargetModulesRequired] = "Name the modules with -TargetModules, or use all-linear. " + ListModules,
        [ErrorIds.AllModulesExcluded] = CompareTargets,
        [ErrorIds.NoModuleTargeted] = CompareTargets,
        [ErrorIds.ModuleTypeNotSupported] = "Target the layers inside it, or leave it out with -ExcludeModules. " + ListModules,
        [ErrorIds.SavedModuleInvalid] = "Name modules with a forward pass in -ModulesToSave, such as those inside a list of modules. " + ListModules,

        // Adapters on a model.
        [ErrorIds.AdapterExists] = "Choose another -Name, or remove the adapter with Remove-LoKrAdapter first.",
        [ErrorIds.AdapterNotFound] = "Get-LoKrAdapter -Model lists the adapters of a model. " + AddAdapter + ".",
        [ErrorIds.AdapterMerged] = "Take the merge back with Undo-LoKrMerge first.",
        [ErrorIds.AdaptersDisabled] = "Switch the adapters on with Enable-LoKrAdapter first.",

        // Files of adapters and models.
        [ErrorIds.DestinationExists] = "Choose another destination, or add -Force to replace it; a folder never replaces a file.",
        [ErrorIds.QuantizationNotWritable] = "Give the quantized weights another type in the result with -DType BFloat16.",
        [ErrorIds.AdapterScaleUnknown] = "Give -Alpha, or the convention with -Scaling.",
        [ErrorIds.ExportUnmerged] = "Merge them with Merge-LoKrAdapter, remove them with Remove-LoKrAdapter, or write the adapter alone with Export-LoKrAdapter.",
        [ErrorIds.LoraConversionNotSupported] = "Write the adapter as LoKr, or merge it with Merge-LoKrAdapter and write the model with Export-LoKrModel.",
        [ErrorIds.AdapterLabelsMissing] = "Give the labels with -Label, in the order of the outputs.",
        [ErrorIds.LabelsMismatch] = "Leave -Label out to use the checkpoint's head, or start from an encoder without a head to train a new one.",

        // Training and running.
        [ErrorIds.ModelBusy] = "Wait until it is done, or use Import-LoKrModel in each runspace for a model of its own.",
        [ErrorIds.ModelDisposed] = "Import it again with Import-LoKrModel.",
        [ErrorIds.NoAdapter] = AddAdapter + ", or name the one to train with -AdapterName.",
        [ErrorIds.AdapterNotTrainable] =
            "Undo-LoKrMerge takes merged adapters out, Enable-LoKrAdapter switches them on, and Set-LoKrAdapter -Trainable lets one be trained.",
        [ErrorIds.AdapterNotCalled] =
            "In a model of your own call modules with call(), not forward(), so that the adapter's hook runs; leave out layers that the loss does not use with -ExcludeModules.",
        [ErrorIds.TaskUnknown] = "Import the model with -Label to classify texts, with -Task TokenClassification too to tag words, with -Pooling for vectors and searches, or train with a loss of your own: -Loss, and -Batch for the data.",
        [ErrorIds.LabelUnknown] = "Correct the row, or import the model with -Label and every label of the data.",
        [ErrorIds.DataWithoutLoss] = "Allow longer sequences with -MaxLength, or shorten the prompts.",
        [ErrorIds.LogitsNotFinite] =
            "Check the weights and the adapters; in float16 a value may have overflowed: import the model with -DType float32 or bfloat16.",
        [ErrorIds.ImageNotReadable] = "Correct or remove the file, or leave such files out of training with -UnreadableImage Skip.",
        [ErrorIds.PictureNotFinite] =
            "An adapter has diverged, or the element type is too narrow: import the pipeline with -DType float32 or bfloat16.",
        [ModuleErrorIds.JobNotAvailable] = "Run the command in pwsh or in LoKr.Shell, or leave -AsJob out; Start-ThreadJob runs it beside the prompt in this process.",
        [ModuleErrorIds.OutOfMemory] =
            "Use a smaller -BatchSize or -MaxLength (with -GradientAccumulation the result is the same), -GradientCheckpointing, a smaller -R, or -DType bfloat16 on a GPU.",
    }.ToFrozenDictionary(StringComparer.Ordinal);

    /// <summary>All texts that do not depend on the error, by error id.</summary>
    public static IReadOnlyDictionary<string, string> Texts => s_texts;

    /// <summary>The advice for an error; null where the library's own stays.</summary>
    /// <param name="exception">The error.</param>
    /// <param name="command">Name of the cmdlet that failed.</param>
    public static string? For(LoKrException exception, string command) => exception switch
    {
        // One id, several situations: kind, target and cmdlet tell them apart.
        { ErrorId: ErrorIds.TargetModuleNotFound, Target: nameof(LoKrConfig.TrainNorm) } => "Leave -TrainNorm out, or check -ExcludeModules, -ModulesToSave and -LayersToTransform.",
        { ErrorId: ErrorIds.TargetModuleNotFound } => ListModules,
        { ErrorId: ErrorIds.TargetModulesRequired, Target: nameof(IAdaptable.Models) } =>
            "Name modules of the components with -TargetModules (to_q, to_k, to_v, to_out.0 for a UNet; q_proj, k_proj, v_proj, out_proj for a text encoder), or adapt a component by itself: Add-LoKrAdapter $sd.UNet, or $sd.TextEncoder. " + ListModules,
        { ErrorId: ErrorIds.LoraConversionNotSupported, Kind: LoKrErrorKind.InvalidData } => null,
        { ErrorId: ErrorIds.TaskUnknown, Kind: LoKrErrorKind.NotSupported } => null,
        { ErrorId: ErrorIds.InvalidArgument, Target: "MaxShardBytes" } => "Give a positive number of bytes with -MaxShardSize, for example 2GB.",
        { ErrorId: ErrorIds.NothingToMerge, Kind: LoKrErrorKind.InvalidOperation } =>
            "Get-LoKrAdapter -Model shows which adapters are active and which are merged; name those to merge with -Name. " + AddAdapter + ".",
        { ErrorId: ModuleErrorIds.JobNeedsPath } when command == "Start-LoKrTraining" =>
            "Give the folder of the model with -Path and the configuration of the adapter with -Config; or train this model beside the prompt with Start-ThreadJob.",
        { ErrorId: ModuleErrorIds.JobNeedsPath } =>
            "Give the folder of the model with -Path, the folder of the adapter with -Adapter, and a -Destination; or use Start-ThreadJob.",
        { ErrorId: ErrorIds.AdapterAmbiguous } when command == "Start-LoKrTraining" => "Name the adapter to train with -AdapterName, or make one active with Set-LoKrAdapter -Active.",
        { ErrorId: ErrorIds.AdapterAmbiguous } => "Name the adapter with -Name, or make one active with Set-LoKrAdapter -Active; Add-LoKrAdapter adds one.",
        { ErrorId: ErrorIds.AdapterTypeNotSupported } when command == "Import-LoKrAdapter" =>
            "Merge-LoKrAdapter -Adapter merges LoRA, LoHa and differences into a model in memory. -SkipUnsupported loads the LoKr beside them.",
        { ErrorId: ErrorIds.AdapterModulesUnknown } when command == "Convert-LoKrAdapter" =>
            Extend(exception, "-BasePath or -Model names the base model, -Component a component."),
        { ErrorId: ErrorIds.AdapterModulesUnknown } when command == "Import-LoKrAdapter" => Extend(exception, "-Component names a component."),
        { ErrorId: ErrorIds.DivisionInexact } when command == "Import-LoKrAdapter" => "Divide it with Convert-LoKrAdapter -Division Split -Inexact Full, or Fused for a model of fused weights, and import the result; or merge it into the model's files with Merge-LoKrAdapter -Path.",
        { ErrorId: ErrorIds.DivisionInexact } => "Choose what they become: -Inexact Lora for LoRA of the exact rank, where the program reads it, or -Inexact Full for whole matrices.",
        { ErrorId: ErrorIds.ConversionUnsupported } when command == "Convert-LoKrAdapter" => Extend(exception, "-For names a program, -Format a layout, -Component a component; -Inexact Lora or Full lets weights be divided otherwise; -LoraRank and -LoraEnergy write LoRA."),
        { ErrorId: ErrorIds.ConversionUnsupported } when command == "Export-LoKrAdapter" => Extend(exception, "-For names a program, -Format a layout; -LoraRank and -LoraEnergy write LoRA."),
        { ErrorId: ErrorIds.FileNotWritable } when command == "Start-LoKrTraining" =>
            "Check the permissions and the free space, or choose another folder: -LatentCache for latents, -SampleDestination for sample images. Nothing that was there before has changed.",
        { ErrorId: ErrorIds.LabelsMismatch } when command == "Import-LoKrAdapter" => "Import the model with the labels of the adapter: Import-LoKrModel -LabelFrom and this path.",
        { ErrorId: ErrorIds.CaptionMissing } => Extend(exception, "-MissingCaption Allow trains such images with an empty caption."),
        { ErrorId: ErrorIds.DeviceNotFound } => Extend(exception, "Get-LoKrRuntime lists the devices; -Device auto uses a GPU only if there is one."),
        { ErrorId: ErrorIds.RuntimeVersionMismatch, Target: not null } => Extend(exception, "Install-LoKrRuntime installs the right one; -AllowVersionMismatch allows this one."),
        { ErrorId: ErrorIds.RuntimeNotFound, Kind: LoKrErrorKind.Unavailable, Target: null } =>
            "Run Install-LoKrRuntime. A libtorch or PyTorch of that version that is there already can be named with -RuntimePath or LOKR_RUNTIME; in a source tree, run 'dotnet restore'.",
        { ErrorId: ErrorIds.RuntimeNotFound, Kind: LoKrErrorKind.Unavailable } => Extend(exception, "Install-LoKrRuntime installs one that is found without being named."),
        { ErrorId: ErrorIds.RuntimeDamaged } when command != "Install-LoKrRuntime" => "Run Install-LoKrRuntime -Force, which installs it again.",
        { ErrorId: ErrorIds.RuntimePackageNotFound or ErrorIds.RuntimeDownloadFailed } => Extend(exception, "-Source names it."),
        { ErrorId: ErrorIds.ImageSizeInvalid, Target: string parameter } => $"Give a size with -{parameter}.",
        { ErrorId: ErrorIds.ModelTypeUnknown } when command == "Import-LoKrModel" =>
            Extend(exception, "Merge-LoKrAdapter -Path merges on disk; Convert-LoKrAdapter, Compare-LoKrAdapter and Get-LoKrAdapter -Path take files."),
        { ErrorId: ErrorIds.ModelConfigUnsupported } when command == "Invoke-LoKrModel" => "Choose another scheduler with -Scheduler.",
        { ErrorId: string id } => s_texts.GetValueOrDefault(id),
    };

    // Where the library's advice depends on more than the id, it stays, and the parameters are named after it.
    private static string Extend(LoKrException exception, string parameters) => exception.Advice is null ? parameters : $"{exception.Advice} {parameters}";
}
