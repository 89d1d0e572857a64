namespace LoKr.Core;

public static partial class ErrorIds
{
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

    /// <summary>Every module was excluded.</summary>
    public const string AllModulesExcluded = "LoKr.AllModulesExcluded";

    /// <summary>What was targeted was excluded, and the rest was not targeted.</summary>
    public const string NoModuleTargeted = "LoKr.NoModuleTargeted";

    /// <summary>A targeted module is of a type that cannot take an adapter.</summary>
    public const string ModuleTypeNotSupported = "LoKr.ModuleTypeNotSupported";

    /// <summary>A module to save does not exist, or cannot be saved whole.</summary>
    public const string SavedModuleInvalid = "LoKr.SavedModuleInvalid";

    /// <summary>Two adapters would be in charge of the same module at once.</summary>
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

    /// <summary>Tensors of an adapter have other shapes than the configuration and the model ask for.</summary>
    public const string AdapterShapeMismatch = "LoKr.AdapterShapeMismatch";

    /// <summary>The adapter is merged, which the operation does not allow.</summary>
    public const string AdapterMerged = "LoKr.AdapterMerged";

    /// <summary>Adapters are switched off, which the operation does not allow.</summary>
    public const string AdaptersDisabled = "LoKr.AdaptersDisabled";

    /// <summary>There is nothing to merge, or nothing merged to take out.</summary>
    public const string NothingToMerge = "LoKr.NothingToMerge";

    /// <summary>A merged weight would hold NaN or infinity.</summary>
    public const string MergeNotFinite = "LoKr.MergeNotFinite";

    /// <summary>The model was built without weights.</summary>
    public const string ModelHasNoWeights = "LoKr.ModelHasNoWeights";

    /// <summary>The share of energy that a conversion to LoRA keeps is outside (0, 1].</summary>
    public const string EnergyInvalid = "LoKr.EnergyInvalid";

    /// <summary>A layer of the adapter cannot be written as LoRA.</summary>
    public const string LoraConversionNotSupported = "LoKr.LoraConversionNotSupported";
}
