namespace LoKr.Core.Layouts.Names;

/// <summary>The names under which the modules of an adapter in memory are written, by the tables of the model that its names belong to.</summary>
internal sealed class PublishedNames
{
    private readonly RecognizedModel? _model;

    // The fused weights of single files have no published name; then all modules keep theirs.
    private readonly bool _allArePublished;

    /// <summary>Recognizes the model of an adapter.</summary>
    public PublishedNames(AdapterContent content)
    {
        string[] names = [.. content.Names.Select(static module => module.Name)];
        AdapterModuleName[] denoiser = [.. Denoiser(content)];
        _model = Recognize(content);
        Component = denoiser.Length > 0 && _model is not null ? _model.Denoiser
            : names.Length > 0 && ModelRecognizer.PartOf(names) is ModelPart part && AdapterComponents.IsTextEncoder(part.Component) && part.IsPublishedAlone ? AdapterComponent.TextEncoder
            : null;
        _allArePublished = Array.TrueForAll(denoiser, module => Agreed(module.Component, module.Name, module.IsDotted, static match => match.Place.HasPublishedName && (match.IsPublished || !match.Place.Weight.IsSwapped) ? match.Place.Published : null) is not null);
    }

    /// <summary>The model that an adapter was made for: by its file or base model, else by the names of its modules; null where no table has them.</summary>
    public static RecognizedModel? Recognize(AdapterContent content)
    {
        string[] denoiser = [.. Denoiser(content).Select(static module => module.IsDotted ? module.Name : Underscored + module.Name)];

        // Adapters of text encoders alone are named by the families of the base model, or of all that have such an encoder.
        return content.Model ?? ModelRecognizer.OfAdapter(denoiser) ?? (denoiser.Length == 0 ? ModelRecognizer.OfAdapter(content.AllNames) : null);
    }

    /// <summary>The component that the names belong to; null where no table has them.</summary>
    public AdapterComponent? Component { get; }

    /// <summary>Whether the model is known.</summary>
    public bool IsKnown => _model is not null;

    // Any prefix of denoisers that ends with an underscore.
    private const string Underscored = "lycoris_";

    /// <summary>The name without prefix: that of the published model where the layout is read by programs that hold it, else the name as it is.</summary>
    public string Of(AdapterLayout layout, AdapterComponent component, string name, bool isDotted)
    {
        bool isWanted = AdapterComponents.IsTextEncoder(component)
            ? layout is AdapterLayout.Kohya or AdapterLayout.OneTrainer or AdapterLayout.Diffusers or AdapterLayout.Comfy or AdapterLayout.Lycoris
            : _allArePublished && (layout is AdapterLayout.Diffusers or AdapterLayout.DiffusersModel or AdapterLayout.Peft or AdapterLayout.PeftInMemory or AdapterLayout.Lycoris or AdapterLayout.OneTrainer
                || (layout == AdapterLayout.Kohya && Component == AdapterComponent.Unet));
        return isWanted ? Agreed(component, name, isDotted, static match => match.Place.Weight.IsSwapped && !match.IsPublished ? null : match.Place.Published) ?? name : name;
    }

    /// <summary>The whole name by which ComfyUI reads a module, with dots; null where it has none, or where it depends on which of several models it is.</summary>
    public string? ForComfyUI(AdapterComponent component, string name) =>
        Agreed(component, name, isDotted: true, static match => match.Spellings(AdapterProgram.ComfyUI, swaps: true).FirstOrDefault(static spelling => !spelling.Contains('_', StringComparison.Ordinal) || spelling.Contains('.', StringComparison.Ordinal)));

    // Norms belong to the model of the modules beside them.
    private static IEnumerable<AdapterModuleName> Denoiser(AdapterContent content) => (content with { Norms = [] }).Names.Where(static module => !AdapterComponents.IsTextEncoder(module.Component));

    /// <summary>The answer of all families in question about a module; null where they disagree or do not know it.</summary>
    private string? Agreed(AdapterComponent component, string name, bool isDotted, Func<NameMatch, string?> say)
    {
        IEnumerable<ModelFamily> families = _model?.Candidates ?? (AdapterComponents.IsTextEncoder(component) ? NameTables.All : []);
        return families.Select(family => new NameTranslator(family).Find(component, name, isDotted) is [NameMatch match, ..] ? say(match) : null)
            .OfType<string>().Distinct(StringComparer.Ordinal).ToArray() is [string only] ? only : null;
    }
}
