using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>
/// Makes an adapter from a pair of models: for every weight the Kronecker product nearest to what fine-tuning changed. No model is built, and
/// every thread has one weight of each in memory.
/// </summary>
public static class AdapterExtraction
{
    // More numbers than this are fitted in float32, so that a large weight needs no more memory than reading it takes.
    private const long MostPrecise = 1 << 20;

    /// <summary>Extracts an adapter.</summary>
    /// <param name="options">The pair, the modules, the limits, where to write.</param>
    /// <param name="warnings">Warnings: tensors that changed and are left out, numbers that are not finite, what PEFT cannot apply.</param>
    /// <param name="onProgress">Told the share of the work that is done, from 0 to 1.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException">
    /// The models cannot be read or do not fit each other (<c>LoKr.TensorShapeMismatch</c>, <c>LoKr.CheckpointKeysMismatch</c>); nothing to
    /// adapt has changed (<c>LoKr.NoModuleTargeted</c>); the limits are invalid; the errors of writing. Nothing is written then.
    /// </exception>
    public static LoKrFitResult Extract(AdapterExtractionOptions options, out IReadOnlyList<string> warnings, Action<double>? onProgress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Fit.Check();
        TorchRuntime.EnsureLoaded();
        string destination = Path.GetFullPath(options.Destination);
        AdapterLayout layout = options.Fit.Layout ?? AdapterLayout.Peft;
        using DisposeScope scope = NewDisposeScope();
        using ModelPair pair = ModelPair.Open(options);
        ExtractionPlan plan = ExtractionPlan.Of(pair, options);
        AdapterWriteOptions write = new() { Force = options.Fit.Force };
        AdapterFitting fitting = new(plan.Layers, options.Fit with { R = options.Fit.HasNoLimit ? new LoKrConfig().R : options.Fit.R }, FittedAdapter.Conv1dOf(layout), onProgress);
        IReadOnlyList<LayerFit> fits = fitting.Run(options.Fit.DType ?? ScalarType.Float32, cancellation);
        if (fits.Count == 0)
        {
            throw new LoKrException(ErrorIds.NoModuleTargeted, LoKrErrorKind.InvalidArgument,
                $"None of the {plan.Layers.Count} weights that a LoKr adapter can change differs between '{options.BasePath}' and '{options.FineTunedPath}'{(options.Fit.MaxParameters is long most ? $", or {most} parameters are too few for any of them" : "")}.",
                "Check which two models are compared; name modules to save for what is not a linear or convolutional layer.") { Target = options.FineTunedPath };
        }

        HashSet<(AdapterComponent, string)> adapted = [.. fits.Select(static fit => (fit.Layer.Component, fit.Layer.Name + ".weight"))];
        HashSet<(AdapterComponent, string)> zero = [.. plan.Layers.Where(static layer => layer.IsZero).Select(static layer => (layer.Component, layer.Name + ".weight"))];
        string[] leftOut = [.. pair.Changed(name => adapted.Contains(name) || zero.Contains(name) || plan.Saved.ContainsKey(name.Name), cancellation)];
        AdapterContent rest = new()
        {
            Modules = [],
            Saved = plan.Saved,
            BaseModels = pair.Identities,
            AllNames = pair.ModuleNames,
        };
        LoKrConfig start = new() { BaseModelNameOrPath = MachinePaths.NameOf(options.BasePath), ModulesToSave = plan.SavedModules.Count == 0 ? null : [.. plan.SavedModules] };
        (LoKrFitResult result, IReadOnlyList<string> written) = FittedAdapter.Write(destination, layout, fits, rest, start, write);
        const int Most = 10;
        warnings = leftOut.Length == 0 ? written :
        [
            $"{leftOut.Length} tensors differ and are not in the adapter, so that they stay as in the base model: {string.Join(", ", leftOut.Take(Most))}{(leftOut.Length > Most ? " …" : "")}. Modules to save are kept whole.",
            .. written,
        ];
        return result with { UnchangedCount = zero.Count, LeftOut = leftOut };
    }

    /// <summary>Throws what <see cref="Extract"/> would throw before it fits anything. Nothing is written.</summary>
    /// <param name="options">The pair, the modules, the limits, where to write.</param>
    /// <returns>Number of layers that would be compared.</returns>
    /// <exception cref="LoKrException">As for <see cref="Extract"/>.</exception>
    public static int Check(AdapterExtractionOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Fit.Check();
        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = NewDisposeScope();
        using ModelPair pair = ModelPair.Open(options);
        AdapterWriter.CheckDestination(Path.GetFullPath(options.Destination), options.Fit.Layout ?? AdapterLayout.Peft, options.Fit.Force);
        return ExtractionPlan.Of(pair, options).Layers.Count;
    }

    /// <summary>One weight of both models.</summary>
    private sealed class PairLayer(AdapterComponent component, string name, IReadOnlyList<long> weightShape, bool transposed, ModelPair.Part part, string baseName)
        : FitLayer(component, name, weightShape)
    {
        /// <summary>Whether the weight was found to be the same in both.</summary>
        public bool IsZero { get; private set; }

        public override Func<FactorShapes, KroneckerTarget>? Open(FitMemory memory)
        {
            string key = Name + ".weight";
            ScalarType dtype = WeightShape.Product() > MostPrecise ? ScalarType.Float32 : ScalarType.Float64;
            (Tensor before, Tensor after) = part.ReadBoth(baseName, key, memory);
            IsZero = IsSame(before, after);
            if (IsZero)
            {
                return null;
            }

            (after, before) = transposed ? (after.t(), before.t()) : (after, before);
            Tensor difference = memory.Take(FitMemory.Part.Difference, dtype, after.numel());
            return shapes => KroneckerTarget.OfDifference(after, before, difference, shapes) is { SquaredNorm: double norm } target && double.IsFinite(norm) ? target
                : throw new LoKrException(ErrorIds.WeightNotFinite, LoKrErrorKind.InvalidData, $"'{key}' has NaN or infinity in one of the two models, or its change does.", "Check both models, or leave the module out.") { Target = key };
        }

        // Some rows at a time: most pairs differ in the first.
        private static bool IsSame(Tensor before, Tensor after)
        {
            const long block = 1 << 20;
            long step = Math.Max(1, block * before.shape[0] / Math.Max(1, before.numel()));
            for (long start = 0; start < before.shape[0]; start += step)
            {
                using DisposeScope scope = NewDisposeScope();
                long count = Math.Min(step, before.shape[0] - start);
                if (!after.narrow(0, start, count).eq(before.narrow(0, start, count)).all().ToBoolean())
                {
                    return false;
                }
            }

            return true;
        }
    }

    /// <summary>Weights of the pair that become factors, and modules that are saved whole.</summary>
    private sealed record ExtractionPlan(IReadOnlyList<PairLayer> Layers, IReadOnlyDictionary<string, Tensor> Saved, IReadOnlyList<string> SavedModules)
    {
        public static ExtractionPlan Of(ModelPair pair, AdapterExtractionOptions options)
        {
            // The word for all linear layers names the default.
            ModuleSelector? targets = options.TargetModules is { IsAllLinear: true } ? null : options.TargetModules;
            TargetMatcher matcher = new(new LoKrConfig { TargetModules = targets, ExcludeModules = options.ExcludeModules, ModulesToSave = [.. options.ModulesToSave] });
            List<PairLayer> layers = [];
            Dictionary<string, Tensor> saved = new(StringComparer.Ordinal);
            SortedSet<string> modules = new(StringComparer.Ordinal);
            foreach (ModelPair.Part part in pair.Parts)
            {
                TransposedWeights transposed = new(part.Tuned.Entries, part.ModelType);
                foreach (SafetensorsEntry entry in part.Tuned.Entries.Values)
                {
                    int dot = entry.Name.LastIndexOf('.');
                    string module = dot < 0 ? entry.Name : entry.Name[..dot];
                    TargetMatcher.Verdict verdict = matcher.Check(module);
                    if (verdict == TargetMatcher.Verdict.Saved)
                    {
                        saved.Add(entry.Name, part.Tuned.Read(entry.Name));
                        modules.UnionWith(options.ModulesToSave.Where(name => $".{module}.".Contains($".{name}.", StringComparison.Ordinal)));
                        continue;
                    }

                    bool usual = targets is null;
                    bool wanted = usual ? verdict == TargetMatcher.Verdict.None && ExtractionTargets.IsUsual(module) : verdict == TargetMatcher.Verdict.Target;
                    if (!wanted || entry.Shape.Count is < 2 or > 5 || entry.Name != module + ".weight" || !SafetensorsDTypes.IsFloatingPoint(entry.DType))
                    {
                        continue;
                    }

                    string? name = part.FindBase(entry.Name);
                    if (name is null && usual)
                    {
                        // A layer of a new head is left out, and counted as such.
                        continue;
                    }

                    SafetensorsEntry before = part.Base.Entries.GetValueOrDefault(name ?? "") ?? throw new LoKrException(ErrorIds.CheckpointKeysMismatch, LoKrErrorKind.InvalidData,
                        $"'{entry.Name}' of the fine-tuned model is not in the base model.", "Compare a model with its own fine-tuning, or leave the module out.") { Target = entry.Name };
                    if (!before.Shape.SequenceEqual(entry.Shape))
                    {
                        throw new LoKrException(ErrorIds.TensorShapeMismatch, LoKrErrorKind.InvalidData,
                            $"'{entry.Name}' is [{string.Join(", ", before.Shape)}] in the base model and [{string.Join(", ", entry.Shape)}] in the fine-tuned one.", "Compare a model with its own fine-tuning, or leave the module out.") { Target = entry.Name };
                    }

                    bool isTransposed = entry.Shape.Count == 2 && transposed.Contains(entry, entry.Shape[1], entry.Shape[0]);
                    layers.Add(new(part.Component, module, isTransposed ? [entry.Shape[1], entry.Shape[0]] : entry.Shape, isTransposed, part, before.Name));
                }
            }

            return layers.Count > 0 ? new(layers, saved, [.. modules]) : throw new LoKrException(ErrorIds.NoModuleTargeted, LoKrErrorKind.InvalidArgument,
                $"No weight of '{options.FineTunedPath}' can be compared with one of '{options.BasePath}': {options.TargetModules?.ToString() ?? "no linear or convolutional layer is in both"}.", "Compare a model with its own fine-tuning, or name other modules.") { Target = options.FineTunedPath };
        }
    }
}

/// <summary>Source of an extracted adapter.</summary>
public sealed record AdapterExtractionOptions
{
    /// <summary>The base model: folder of transformers, pipeline of diffusers, or one safetensors file.</summary>
    public required string BasePath { get; init; }

    /// <summary>The fine-tuned model, in the same form. The adapter gets its names.</summary>
    public required string FineTunedPath { get; init; }

    /// <summary>Folder or file of the adapter.</summary>
    public required string Destination { get; init; }

    /// <summary>Modules to adapt; null for every linear and convolutional layer but embeddings and output layers.</summary>
    public ModuleSelector? TargetModules { get; init; }

    /// <summary>Modules to leave out.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Modules that are kept whole, as they are in the fine-tuned model: names or endings, as in PEFT's <c>modules_to_save</c>.</summary>
    public IReadOnlyList<string> ModulesToSave { get; init; } = [];

    /// <summary>Limits and form.</summary>
    public AdapterFitOptions Fit { get; init; } = new();
}

/// <summary>Which modules are extracted where none are named.</summary>
internal static class ExtractionTargets
{
    private static readonly string[] s_tables = ["wpe", "relative_attention_bias"];
    private static readonly string[] s_heads = ["classifier", "score", "qa_outputs", "out_proj_head"];

    /// <summary>Whether a module with a weight of two or more dimensions is a linear or convolutional layer inside a model: no table of embeddings, and no output layer, as PEFT's <c>all-linear</c>.</summary>
    public static bool IsUsual(string module)
    {
        string last = module[(module.LastIndexOf('.') + 1)..];
        return !EmbeddingNames.IsInput(module) && !EmbeddingNames.IsOutput(module) && !s_tables.Contains(last) && !s_heads.Contains(last)
            && !last.Contains("embed", StringComparison.OrdinalIgnoreCase);
    }
}
