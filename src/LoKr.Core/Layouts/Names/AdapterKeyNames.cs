using LoKr.Core.Errors;

namespace LoKr.Core.Layouts.Names;

/// <summary>Forms the names of tensors in a layout.</summary>
internal sealed class AdapterKeyNames
{
    private readonly AdapterLayout _layout;
    private readonly AdapterComponent? _given;
    private readonly AdapterComponent? _guess;
    private readonly string? _unknownBase;
    private readonly PublishedNames _published;
    private readonly bool _numbersTextEncoders;
    private readonly List<string> _undotted = [];
    private readonly List<string> _unknown = [];
    private readonly Dictionary<string, string> _taken = new(StringComparer.Ordinal);
    private readonly Dictionary<(AdapterComponent Component, string Name), string> _written = [];
    private readonly Dictionary<(AdapterComponent Component, string Name), string> _renamed = [];

    /// <summary>Prepares the names of an adapter.</summary>
    /// <exception cref="LoKrException">The layout cannot hold several parts of a pipeline in one file (LoKr.ConversionUnsupported).</exception>
    public AdapterKeyNames(AdapterLayout layout, AdapterContent content, AdapterComponent? component)
    {
        _layout = layout;
        IReadOnlyList<AdapterComponent> components = content.Components;
        _given = components.Count == 1 ? component : null;
        _unknownBase = content.UnknownBase;
        _published = new(content);
        _guess = _published.Component;
        _numbersTextEncoders = components.Any(part => part is AdapterComponent.TextEncoder2 or AdapterComponent.TextEncoder3)
            || (layout == AdapterLayout.OneTrainer && components.Any(part => part is AdapterComponent.Transformer));
        if (components.Count > 1 && !AdapterLayouts.NamesComponents(layout))
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"The layout {layout} cannot hold several parts of a pipeline in one file, and the adapter has {string.Join(", ", components)}.",
                "Choose one of these components, or another layout.");
        }
    }

    /// <summary>Names that the file does not give back, because they have underscores or another beginning there, by the name in the file without a suffix.</summary>
    public Dictionary<string, string> Originals { get; } = new(StringComparer.Ordinal);

    /// <summary>Modules that got a name which the layout's program does not know, though it knows the model.</summary>
    public IReadOnlyList<string> UnknownToProgram => _unknown;

    /// <summary>The component under which a module is written; in a layout without components that of the module.</summary>
    public AdapterComponent ComponentOf(AdapterComponent component)
    {
        if (!AdapterLayouts.NamesComponents(_layout))
        {
            return component;
        }

        // Names that every denoiser may have say nothing; a layout that tells UNets from transformers would be a guess.
        bool isGuess = _given is null && _guess is null && (component == AdapterComponent.Model || (component == AdapterComponent.Unet && _layout is AdapterLayout.Diffusers or AdapterLayout.OneTrainer));
        if (isGuess && _unknownBase is not null)
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"No table of models has the names of '{_unknownBase}', so nothing tells whether it is a UNet, a transformer or a text encoder, which the layout {_layout} writes into names.", "Say which component it is.") { Target = _unknownBase };
        }

        return _given
            ?? (component == AdapterComponent.Model ? _guess ?? (_layout == AdapterLayout.OneTrainer ? AdapterComponent.Transformer : AdapterComponent.Unet)

            // kohya and ComfyUI call every denoiser a UNet.
            : component == AdapterComponent.Unet && _guess == AdapterComponent.Transformer ? AdapterComponent.Transformer
            : component);
    }

    /// <summary>The name of a module without the layout's prefix, as configurations of the layout have it.</summary>
    public string Local(AdapterComponent component, string name, bool isDotted)
    {
        string local = _published.Of(_layout, ComponentOf(component), name, isDotted);
        if (local != name)
        {
            _renamed[(component, local)] = name;
        }

        return local;
    }

    /// <summary>The name of a module's tensors without the suffix.</summary>
    public string Of(AdapterComponent component, string name, bool isDotted)
    {
        bool underscored = AdapterLayouts.IsUnderscored(_layout);
        if (!underscored && !isDotted)
        {
            _undotted.Add(name);
        }

        string published = Local(component, name, isDotted);
        string written = Prefix(component) + (underscored ? published.Replace('.', '_') : published) + (_layout == AdapterLayout.Hcp ? AdapterLayouts.HcpMark : "");
        if (_layout == AdapterLayout.Comfy && isDotted && _published.IsKnown)
        {
            if (_published.ForComfyUI(ComponentOf(component), name) is string known)
            {
                written = known;
            }
            else
            {
                _unknown.Add(name);
            }
        }

        if (!_taken.TryAdd(written, name))
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"'{name}' and '{_taken[written]}' would both be called '{written}'.", "Choose a layout with dots.") { Target = name };
        }

        // A configuration of PEFT's form has published names, and so have its modules.
        string before = _renamed.GetValueOrDefault((component, name)) ?? name;
        if (isDotted && (underscored || (written != Prefix(component) + before && AdapterFileConfigs.IsOriginal(written, before))))
        {
            Originals[written] = before;
        }

        return _written[(component, name)] = written;
    }

    /// <summary>The name of a module with another kind of adapter, which may have a name already.</summary>
    public string OfOther(AdapterComponent component, string name, bool isDotted) => _written.GetValueOrDefault((component, name)) ?? Of(component, name, isDotted);

    /// <summary>Throws if names need dots whose places are not known.</summary>
    /// <exception cref="LoKrException"><c>LoKr.AdapterModulesUnknown</c>, with the names.</exception>
    public void ThrowIfUndotted()
    {
        if (_undotted.Count > 0)
        {
            const int Most = 30;
            throw new LoKrException(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidArgument,
                $"The layout {_layout} needs dotted names, and only the base model tells where the dots of {_undotted.Count} modules belong: "
                + $"{string.Join(", ", _undotted.Take(Most))}{(_undotted.Count > Most ? " …" : "")}.",
                "Give the base model, by its files or in memory.") { Target = _undotted[0] };
        }
    }

    private string Prefix(AdapterComponent component)
    {
        IReadOnlyList<LayoutPrefix> prefixes = AdapterLayouts.Prefixes(_layout);
        if (prefixes is [LayoutPrefix only])
        {
            return only.Text;
        }

        AdapterComponent known = ComponentOf(component);
        string[] fitting = [.. prefixes.Where(prefix => prefix.Component == known).Select(static prefix => prefix.Text)];
        if (fitting.Length == 0)
        {
            fitting = [.. prefixes.Where(prefix => AdapterComponents.Matches(prefix.Component, known)).Select(static prefix => prefix.Text)];
        }

        return fitting.Length == 0
            ? throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, $"The layout {_layout} has no name for {known}.", "Choose another layout.")
            : fitting.Length > 1 && _numbersTextEncoders ? fitting[1] : fitting[0];
    }
}
