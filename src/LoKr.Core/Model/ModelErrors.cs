using LoKr.Core.Errors;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>Errors about a model and its adapters.</summary>
internal static class ModelErrors
{
    private const string AddFirst = "Add or load an adapter first.";

    public static LoKrException Busy(LoKrModel model, string purpose) => new(
        ErrorIds.ModelBusy, LoKrErrorKind.InvalidOperation, $"{model.Name} is being {purpose} by another thread.",
        "Wait until that is done, or load a model of its own for each thread.") { Target = model };

    public static LoKrException Disposed(string name, object target) => new(
        ErrorIds.ModelDisposed, LoKrErrorKind.InvalidOperation, $"{name} was disposed: its weights are released.", "Load the model again.") { Target = target };

    public static LoKrException NotFound(string name, IReadOnlyList<string> known) => new(
        ErrorIds.AdapterNotFound,
        LoKrErrorKind.NotFound,
        known.Count == 0 ? $"There is no adapter '{name}': the model has none." : $"There is no adapter '{name}'; the model has {string.Join(", ", known)}.",
        known.Count == 0 ? AddFirst : null)
    { Target = name };

    public static LoKrException NoAdapters(string model) => new(
        ErrorIds.AdapterNotFound, LoKrErrorKind.NotFound, $"{model} has no adapter, and so no adapted layers.", AddFirst);

    public static LoKrException NotOneActive(string model, IReadOnlyList<string> active, object target) => new(
        ErrorIds.AdapterAmbiguous,
        LoKrErrorKind.InvalidArgument,
        active.Count == 0 ? $"{model} has no active adapter." : $"Several adapters are active: {string.Join(", ", active)}.",
        "Choose one by its name.")
    { Target = target };

    public static LoKrException NameInvalid(string name) => new(
        ErrorIds.AdapterNameInvalid,
        LoKrErrorKind.InvalidArgument,
        $"'{name}' cannot be the name of an adapter.",
        "A name is not empty and holds no dot, slash or wildcard character (*, ?, [ and ]), because tensors and folders are named after it, and patterns select adapters by name.")
    { Target = name };

    public static LoKrException TargetsRequired(IAdaptable pipeline) => new(
        ErrorIds.TargetModulesRequired,
        LoKrErrorKind.InvalidArgument,
        $"The configuration names no target modules, and no component of {pipeline.Name} has default ones: {string.Join(", ", pipeline.Models.Keys)}.",
        "Name modules of its components, or adapt one component by itself.")
    { Target = nameof(IAdaptable.Models) };

    public static LoKrException Exists(string name) => new(
        ErrorIds.AdapterExists, LoKrErrorKind.AlreadyExists, $"An adapter '{name}' exists.", "Choose another name, or remove that adapter first.")
    { Target = name };

    public static LoKrException Merged(string name) => new(
        ErrorIds.AdapterMerged, LoKrErrorKind.InvalidOperation, $"Adapter '{name}' is merged into the weights.", "Undo the merge first.")
    { Target = name };

    public static LoKrException ScaleNotFinite(double scale) => new(
        ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"An adapter cannot be scaled by {scale}.", "Give a finite number; 1 is as trained.")
    { Target = scale };

    public static LoKrException NoDora(IEnumerable<string> adapters) => new(
        ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"The meaning of the strength for DoRA is given, but none of these adapters has DoRA: {string.Join(", ", adapters)}.",
        "Leave it out; the strength of an adapter without DoRA has one meaning.");

    public static LoKrException Disabled() => new(
        ErrorIds.AdaptersDisabled, LoKrErrorKind.InvalidOperation, "The adapters are disabled.", "Enable them before merging.");

    public static LoKrException NothingToMerge(bool hasAdapters, bool hasMerged) => new(
        ErrorIds.NothingToMerge,
        LoKrErrorKind.InvalidOperation,
        !hasAdapters ? "The model has no adapter to merge." : hasMerged ? "All these adapters are merged already." : "No adapter is active.",
        hasAdapters ? "Name the adapters to merge." : AddFirst);

    public static LoKrException NothingMerged() => new(ErrorIds.NothingToMerge, LoKrErrorKind.InvalidOperation, "No adapter is merged.");

    public static LoKrException TiedMerge(string module, string partner) => new(
        ErrorIds.TiedWeight,
        LoKrErrorKind.NotSupported,
        $"'{module}' shares its weight with '{partner}': merging the adapter would change both.",
        "Leave the adapter unmerged, or leave this module out of TargetModules.")
    { Target = module };

    public static LoKrException TiedSavedModule(string module, string partner) => new(
        ErrorIds.TiedWeight,
        LoKrErrorKind.NotSupported,
        $"'{module}' cannot be trained whole, because it shares its weight with '{partner}'.",
        "Leave it out of ModulesToSave; adapt it with TargetModules instead.")
    { Target = module };

    public static LoKrException TiedTables(string adapter, string input, string output) => new(
        ErrorIds.TiedWeight,
        LoKrErrorKind.NotSupported,
        $"'{output}' shares its weight with '{input}', but the adapter '{adapter}' has other values for each.",
        "Use the base model that the adapter was trained on, with input and output embeddings of their own.")
    { Target = output };

    public static LoKrException NestedSavedModules(string module, string other) => new(
        ErrorIds.SavedModuleConflict,
        LoKrErrorKind.InvalidArgument,
        $"'{module}' would be trained whole, but another adapter trains '{other}', and one contains the other.",
        "Give both adapters the same ModulesToSave.")
    { Target = module };

    public static LoKrException SeveralSavedCopies(string module, IEnumerable<LoKrAdapter> adapters) => new(
        ErrorIds.SavedModuleConflict,
        LoKrErrorKind.InvalidOperation,
        $"The adapters {string.Join(", ", adapters)} each have a trained copy of '{module}', and only one can be in place.",
        "Activate one of them at a time.")
    { Target = module };

    public static LoKrException NoWeights() => new(
        ErrorIds.ModelHasNoWeights, LoKrErrorKind.InvalidOperation, "The model was built without weights; there is nothing to merge into.", "Load it with its weights.");

    public static LoKrException MergeNotFinite(string adapter, string weight, ScalarType type, string unchanged) => new(
        ErrorIds.MergeNotFinite,
        LoKrErrorKind.InvalidData,
        $"Merging adapter '{adapter}' would put NaN or infinity into '{weight}'; {unchanged}.",
        NotFiniteAdvice(type))
    { Target = weight };

    /// <summary>The warning about a merged weight with numbers that are not finite.</summary>
    public static string NotFinite(string weight, long count, ScalarType type) =>
        $"{count} numbers of '{weight}' became NaN or infinity in the merge. {NotFiniteAdvice(type)} A safe merge refuses such a result.";

    private static string NotFiniteAdvice(ScalarType type) => type == ScalarType.Float16
        ? "float16 holds numbers up to 65504; bfloat16 or float32 would hold larger ones. If the adapter itself contains NaN or infinity, train it again with a lower learning rate."
        : "The adapter is probably broken; train it again with a lower learning rate.";
}
