using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts;

/// <summary>Says what a program will load of a file as it is, ignore, refuse, or scale otherwise.</summary>
internal static class ProgramCheck
{
    /// <summary>Checks a file.</summary>
    /// <param name="reading">The file.</param>
    /// <param name="program">The program.</param>
    /// <param name="baseModel">The base model where it is known; else the names of the file tell.</param>
    public static IReadOnlyList<LoKrAdapterFinding> Check(AdapterReading reading, AdapterProgram program, RecognizedModel? baseModel)
    {
        AdapterFile file = reading.File;
        ProgramForm form = ProgramForm.Of(program);
        Findings findings = new(program, file);
        if (program == AdapterProgram.Vllm)
        {
            ForVllm(file, findings);
            return findings.All;
        }

        if (program == AdapterProgram.Peft)
        {
            if (!file.FollowsPeft || !file.HasConfig)
            {
                findings.Error(ErrorIds.ProgramFileRefused, $"PEFT loads a folder with {PeftAdapterFolder.ConfigFile}; convert the file for it.");
            }

            return findings.All;
        }

        RecognizedModel? model = baseModel ?? file.Model;
        if (model is null)
        {
            findings.Error(ErrorIds.ProgramModelUnknown, $"No known program reads these names, such as '{Raw(All(file).First())}'. Give the base model, or ask the author which model and which trainer the file is of.");
        }
        else if (program == AdapterProgram.Diffusers && file.Modules.Count > 0)
        {
            ForDiffusers(file, reading, model, findings);
        }
        else
        {
            Names(file, program, model, findings);
        }

        Factors(reading, form, findings);
        Scales(reading, findings);
        return findings.All;
    }

    private static void Names(AdapterFile file, AdapterProgram program, RecognizedModel model, Findings findings)
    {
        if (!ProgramNames.Knows(program, model))
        {
            findings.Error(ErrorIds.ProgramNameUnread, $"no adapters of {model} for it are known.");
            return;
        }

        List<AdapterFileModule> unread = [];
        List<AdapterFileModule> broken = [];
        NameTranslator[] translators = [.. model.Candidates.Select(static family => new NameTranslator(family))];
        foreach (AdapterFileModule module in All(file))
        {
            NameMatch[] matches = [.. translators.Select(translator => translator.Read(program, Raw(module))).OfType<NameMatch>()];
            if (matches.Length == 0)
            {
                unread.Add(module);
            }
            else if (Array.TrueForAll(matches, static match => match.Place.Rows?.IsBroken == true))
            {
                broken.Add(module);
            }
        }

        findings.Error(ErrorIds.ProgramNameUnread, unread, "it has no weight under these names, and leaves them out");
        findings.Error(ErrorIds.ProgramFactorsUnread, broken, "it takes the wrong rows of the weight for these names");
    }

    // Names of other kinds of adapters are read as those of LoKr are.
    private static IEnumerable<AdapterFileModule> All(AdapterFile file) => file.Modules.Concat(file.Others);

    private static void ForDiffusers(AdapterFile file, AdapterReading reading, RecognizedModel model, Findings findings)
    {
        if (model.Candidates.All(static family => family.DiffusersLoads.Count == 0))
        {
            findings.Error(ErrorIds.ProgramFileRefused, $"it loads LoKr for {string.Join(" and ", NameTables.All.Where(static family => family.DiffusersLoads.Count > 0))} only.");
            return;
        }

        bool hasAlpha = file.Modules.Any(static module => module.Alpha is not null);
        if (!model.Candidates.Any(family => family.DiffusersLoads.Any(spelling => (spelling.Alpha ?? hasAlpha) == hasAlpha && file.Modules.All(module => IsSpelled(family, spelling, Raw(module))))))
        {
            findings.Error(ErrorIds.ProgramFileRefused, $"it does not load {model} under such names{(hasAlpha ? " with" : " without")} alpha tensors, for example '{Raw(file.Modules[0])}'.");
        }

        if (!ProgramSupport.IsGuessedByDiffusers(reading.Modules.Select(static entry => (entry.Module.Name, entry.Geometry, entry.Scale))))
        {
            findings.Error(ErrorIds.ProgramFileRefused, "it guesses one decompose factor and a rank for every module, and none results in the shapes of these factors.");
        }
    }

    private static bool IsSpelled(ModelFamily family, DiffusersSpelling spelling, string name) => name.StartsWith(spelling.Names.Prefix, StringComparison.Ordinal)
        && family.Parts.Where(static part => part.IsDenoiser)
            .SelectMany(part => part.Find(SplitName.Of(name[spelling.Names.Prefix.Length..]), spelling.Names.IsUnderscored))
            .Any(match => match.Set == spelling.Names.Set && (!spelling.BlocksOnly || match.Place.Numbers.I is not null));

    private static void Factors(AdapterReading reading, ProgramForm form, Findings findings)
    {
        AdapterFileModule[] Where(Func<ModuleReading, bool> matches) => [.. reading.Modules.Where(matches).Select(static entry => entry.Module)];
        static bool IsWhole(FactorGeometry geometry) => geometry.InnerRank is null;
        if (!form.ReadsTucker)
        {
            findings.Error(ErrorIds.ProgramFactorsUnread, Where(static entry => entry.Geometry.Tucker), "it drops or refuses convolutions with a core (lokr_t2)");
        }

        if (!form.ReadsLowRankW1)
        {
            findings.Error(ErrorIds.ProgramFactorsUnread, Where(static entry => entry.Geometry.OuterRank is not null), "it reads w1 whole only, and skips these without a word");
        }

        if (!form.ReadsOddKernels)
        {
            findings.Error(ErrorIds.ProgramFactorsUnread, Where(static entry => IsWhole(entry.Geometry) && entry.Geometry.Kernel is { Count: 1 or 3 }), "it multiplies the whole w2 of convolutions over one or three dimensions wrongly");
        }

        if (form.PointwiseIsMatrix)
        {
            findings.Error(ErrorIds.ProgramFactorsUnread, Where(static entry => IsWhole(entry.Geometry) && entry.Geometry.Kernel is { Count: > 0 } kernel && kernel.All(static size => size == 1)), "it expects the w2 of 1×1 convolutions in two dimensions, and stops");
        }

        if (form.LinearOnly)
        {
            findings.Error(ErrorIds.ProgramFactorsUnread, Where(static entry => entry.Geometry.Kernel is { Count: > 0 }), OtherObstacle.Kernel.Why);
        }

        if (!form.ReadsNorms)
        {
            findings.Error(ErrorIds.ProgramFactorsUnread, [.. reading.File.Modules.Where(static module => module.IsNorm)], "it does not read changes of norms");
        }

        if (reading.File.Modules.Count == 0)
        {
            Others(OtherModule.Of(reading.File, new()), form, findings);
        }
        else if (!form.ReadsOtherKinds && reading.File.Foreign.Count > 0)
        {
            findings.Error(ErrorIds.ProgramFactorsUnread, $"it does not read {string.Join(", ", reading.File.Foreign.Select(static tensor => tensor.Kind).Distinct())} beside LoKr, for example '{reading.File.Foreign[0].Entry.Name}'.");
        }

        AdapterFileModule[] dora = Where(static entry => entry.Module.Tensors.ContainsKey(FactorNames.DoraScale));
        findings.Warn(ErrorIds.ProgramDoraDiffers, dora, DoraDiffers(form));
    }

    /// <summary>A file with other kinds of adapters alone.</summary>
    private static void Others(IReadOnlyList<OtherModule> modules, ProgramForm form, Findings findings)
    {
        AdapterFileModule[] Where(Func<OtherModule, bool> matches) => Modules(modules, matches);
        foreach (OtherObstacle obstacle in (OtherObstacle[])[OtherObstacle.Kind, OtherObstacle.Kernel, OtherObstacle.Embedding])
        {
            findings.Error(ErrorIds.ProgramFactorsUnread, Where(other => form.Obstacles(other.Kind).Contains(obstacle)), obstacle.Why);
        }

        // Magnitudes that a program drops change what the rest means; a conversion refuses them.
        findings.Error(ErrorIds.ProgramFactorsUnread, Where(static other => other.Kind.HasPeftMagnitude), "it does not read DoRA's magnitudes under PEFT's name");
        findings.Warn(ErrorIds.ProgramDoraDiffers, Where(static other => other.Kind is { HasMagnitude: true, HasPeftMagnitude: false }), DoraDiffers(form));
        findings.Error(ErrorIds.ProgramScaleDiffers, Where(static other => other is { Kind.HasProduct: true, Scale: double scale } && Differs(other.Module.Alpha is double alpha ? alpha / other.Rank : 1, scale)), "it applies another scale: it knows no configuration, and takes alpha from tensors beside the matrices");
    }

    private static AdapterFileModule[] Modules(IReadOnlyList<OtherModule> modules, Func<OtherModule, bool> matches) => [.. modules.Where(matches).Select(static other => other.Module)];

    private static string DoraDiffers(ProgramForm form) => form.ReadsDora
        ? "it computes DoRA by rows from the norm of the base weight alone, and by columns as LyCORIS does"
        : "it drops DoRA's magnitudes and applies the rest, which is another result";

    private static bool Differs(double theirs, double ours) => double.IsFinite(ours) && Math.Abs(theirs - ours) > 1e-6 * Math.Abs(ours);

    // vLLM reads r and lora_alpha of the configuration.
    private static void ForVllm(AdapterFile file, Findings findings)
    {
        IReadOnlyList<OtherModule> modules = OtherModule.Of(file, new());
        if (!AdapterLayouts.IsPeft(file.Layout) || file.LowRank.Count == 0 || modules.Count == 0 || !modules.All(static other => other.Kind.IsLora))
        {
            findings.Error(ErrorIds.ProgramFileRefused, "vLLM loads LoRA only; convert the adapter to LoRA.");
            return;
        }

        LoKrConfig config = file.LowRank.Values.First().Shared;
        if (file.SavedTensors.Count > 0)
        {
            findings.Error(ErrorIds.ProgramFileRefused, $"it refuses modules that are saved whole: {string.Join(", ", file.SavedTensors.Keys.Order(StringComparer.Ordinal))}.");
        }

        AdapterFileModule[] Where(Func<OtherModule, bool> matches) => Modules(modules, matches);
        findings.Error(ErrorIds.ProgramFactorsUnread, Where(static other => other.Kind.HasMagnitude), "it refuses DoRA");
        findings.Error(ErrorIds.ProgramFactorsUnread, Where(static other => other.Kind.HasKernel), "it has LoRA on linear layers only");
        findings.Error(ErrorIds.ProgramScaleDiffers, Where(other => other is { Kind.HasProduct: true, Scale: double scale } && (other.Rank != config.R || Differs(LoKrScaling.Compute(config, config.R, config.Alpha, bothFull: false), scale))), "it reads one rank and one alpha for all layers");
    }

    /// <summary>Every program takes alpha over the rank of w2, or else of w1; 1 without alpha, and 1 where both factors are whole.</summary>
    private static void Scales(AdapterReading reading, Findings findings)
    {
        AdapterFileModule[] differing = [.. reading.Modules.Where(static entry =>
        {
            double theirs = entry.Geometry.Rank is long rank && entry.Module.Alpha is double alpha ? alpha / rank : 1;
            return Differs(theirs, entry.Scale.Factor);
        }).Select(static entry => entry.Module)];
        findings.Error(ErrorIds.ProgramScaleDiffers, differing, "it applies another scale: it knows no configuration, takes alpha from tensors beside the factors, and 1 where both factors are whole");
    }

    /// <summary>The name exactly as the program meets it.</summary>
    private static string Raw(AdapterFileModule module)
    {
        (string suffix, SafetensorsEntry entry) = module.Tensors.First();
        int end = entry.Name.LastIndexOf("." + suffix, StringComparison.Ordinal);
        return end > 0 ? entry.Name[..end] : entry.Name[..entry.Name.LastIndexOf('.')];
    }

    private sealed class Findings(AdapterProgram program, AdapterFile file)
    {
        private readonly List<LoKrAdapterFinding> _all = [];

        public IReadOnlyList<LoKrAdapterFinding> All => _all;

        public void Error(string id, string message) => _all.Add(new(LoKrFindingSeverity.Error, id, $"{program}: {message}", file.WeightsPath));

        public void Error(string id, IReadOnlyList<AdapterFileModule> modules, string why) => Add(LoKrFindingSeverity.Error, id, modules, why);

        public void Warn(string id, IReadOnlyList<AdapterFileModule> modules, string why) => Add(LoKrFindingSeverity.Warning, id, modules, why);

        private void Add(LoKrFindingSeverity severity, string id, IReadOnlyList<AdapterFileModule> modules, string why)
        {
            if (modules.Count > 0)
            {
                _all.Add(new(severity, id, $"{program}: {why}: {modules.Count} of {All(file).Select(static module => (module.Component, module.Name)).Distinct().Count()} modules, such as '{Raw(modules[0])}'.", modules[0].Name));
            }
        }
    }
}
