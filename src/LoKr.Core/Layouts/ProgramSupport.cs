using LoKr.Core.Errors;
using LoKr.Core.Layouts.Names;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>Tells whether a program reads an adapter, and what would work where it does not.</summary>
internal static class ProgramSupport
{
    /// <summary>The error that a program has no name for modules of an adapter.</summary>
    public static LoKrException Unreadable(AdapterProgram program, ProgramNames names, AdapterContent content)
    {
        if (names.Model is not RecognizedModel model)
        {
            return new(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"No known model has modules such as '{names.Unknown[0]}', so nothing says what {program} calls them.", "Choose a layout, which keeps the names.") { Target = names.Unknown[0] };
        }

        return new(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
            ProgramNames.Knows(program, model)
                ? $"{program} has no name for {names.Unknown.Count} of {content.Names.Count} modules of {model}, such as '{names.Unknown[0]}'."
                : $"No adapters of {model} for {program} are known.",
            Advice(program, names, content)) { Target = names.Unknown[0] };
    }

    /// <summary>Alternatives to a program.</summary>
    public static string Advice(AdapterProgram program, ProgramNames names, AdapterContent content)
    {
        AdapterProgram[] others = [.. Enum.GetValues<AdapterProgram>().Where(other => other != program && other != AdapterProgram.Vllm && IsReadWhole(other, content))];
        string lora = names.Unknown.Count == 0 ? " Or convert the adapter to LoRA." : "";
        return others.Length == 0 ? $"Choose a layout, which keeps the names.{lora}" : $"Without loss: {string.Join(", ", others)}.{lora}";
    }

    /// <summary>Parts that a program would not apply as the adapter means them, whatever the form of its factors.</summary>
    public static IEnumerable<string> Losses(AdapterProgram program, ProgramForm form, ProgramNames names, AdapterContent content)
    {
        if (content.Saved.Count > 0 && program != AdapterProgram.Peft)
        {
            yield return $"{content.Saved.Count} tensors of modules that are saved whole have no place in its files";
        }

        if (!form.ReadsNorms && !form.ReadsOwnOptions && content.Norms.Count > 0)
        {
            yield return $"it does not read changes of norms, and there are {content.Norms.Count}";
        }

        foreach (IGrouping<string, AdapterModule> obstacle in content.Modules.Where(module => form.Obstacle(module) is not null).GroupBy(module => form.Obstacle(module)!))
        {
            yield return $"{obstacle.Key}, which concerns {obstacle.Count()} modules, such as '{obstacle.First().Name}'";
        }

        foreach (IGrouping<string, AdapterOther> obstacle in content.Others.Where(other => form.Obstacle(other.Kind) is not null).GroupBy(other => form.Obstacle(other.Kind)!))
        {
            yield return $"{obstacle.Key}, which concerns {obstacle.Count()} modules, such as '{obstacle.First().Name}'";
        }

        // LoRA is loaded for every model.
        if (program == AdapterProgram.Diffusers && content.Modules.Count > 0)
        {
            foreach (string loss in ForDiffusers(names, content))
            {
                yield return loss;
            }
        }
    }

    private static IEnumerable<string> ForDiffusers(ProgramNames names, AdapterContent content)
    {
        if (names.Model is not RecognizedModel model || model.Candidates.All(static family => family.DiffusersLoads.Count == 0))
        {
            yield return $"it loads LoKr for {string.Join(" and ", NameTables.All.Where(static family => family.DiffusersLoads.Count > 0))} only, and this is {names.Model?.ToString() ?? "another model"}";
            yield break;
        }

        if (content.Components.Any(AdapterComponents.IsTextEncoder))
        {
            yield return "it loads no LoKr of text encoders";
        }

        if (!IsGuessedByDiffusers(content.Modules.Select(static module => (module.Name, module.Geometry, module.Scale))))
        {
            yield return "no single decompose factor and ranks of PEFT result in the shapes of its factors";
        }
    }

    /// <summary>
    /// Whether diffusers arrives at the shapes of factors: it guesses one configuration of PEFT for the whole file. The models for which it loads
    /// LoKr have adapters on linear layers only.
    /// </summary>
    public static bool IsGuessedByDiffusers(IEnumerable<(string Name, FactorGeometry Geometry, ModuleScale Scale)> modules)
    {
        AdapterModule[] linear = [.. modules.Select(static module => new AdapterModule(AdapterComponent.Transformer, module.Name, true, module.Geometry, module.Scale, new Dictionary<string, Tensor>())
        {
            WeightShape = module.Geometry.Kernel is null ? [module.Geometry.Out, module.Geometry.M * module.Geometry.Columns] : null,
        })];
        return linear.Length == 0 || PeftConfigChoice.Of(linear, new() { Modules = linear }, null).IsPeft;
    }

    private static bool IsReadWhole(AdapterProgram program, AdapterContent content)
    {
        ProgramNames names = new(program, content);
        ProgramForm form = ProgramForm.Of(program);
        bool readsLora = form.ReadsLoraFiles || (program == AdapterProgram.Peft && content.Others.All(static other => other.Kind is { IsLora: true, HasMagnitude: false }));
        return names.Unknown.Count == 0 && (program != AdapterProgram.Peft || content.Components.Count < 2) && (content.Others.Count == 0 || form.ReadsOtherKinds || (readsLora && content.Modules.Count == 0)) && !Losses(program, form, names, content).Any();
    }
}
