using LoKr.Core.Errors;

namespace LoKr.Core.Layouts.Names;

/// <summary>Names of tensors in a layout.</summary>
internal sealed class AdapterKeyNames
{
    private readonly AdapterLayout _layout;
    private readonly AdapterComponent? _given;
    private readonly AdapterComponent? _guess;
    private readonly bool _numbersTextEncoders;
    private readonly List<string> _undotted = [];
    private readonly Dictionary<string, string> _taken = new(StringComparer.Ordinal);

    /// <summary>Prepares the names of an adapter.</summary>
    /// <exception cref="LoKrException">The layout cannot hold several parts of a pipeline in one file (LoKr.ConversionUnsupported).</exception>
    public AdapterKeyNames(AdapterLayout layout, AdapterContent content, AdapterComponent? component)
    {
        _layout = layout;
        IReadOnlyList<AdapterComponent> components = content.Components;
        _given = components.Count == 1 ? component : null;
        _guess = AdapterComponentGuess.Of(content.Modules.Select(static module => module.Name).Concat(content.Norms.Select(static norm => norm.Name)));
        _numbersTextEncoders = components.Any(part => part is AdapterComponent.TextEncoder2 or AdapterComponent.TextEncoder3)
            || (layout == AdapterLayout.OneTrainer && components.Any(part => part is AdapterComponent.Transformer));
        if (components.Count > 1 && AdapterLayouts.Prefixes(layout).Count == 1)
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"The layout {layout} cannot hold several parts of a pipeline in one file, and the adapter has {string.Join(", ", components)}.",
                "Choose one of them with -Component, or another layout.");
        }
    }

    /// <summary>Dotted names behind those with underscores, by the name in the file without a suffix.</summary>
    public Dictionary<string, string> Originals { get; } = new(StringComparer.Ordinal);

    /// <summary>The component that a module is written as; in a layout without components that of the module.</summary>
    public AdapterComponent ComponentOf(AdapterComponent component)
    {
        if (AdapterLayouts.Prefixes(_layout).Count == 1)
        {
            return component;
        }

        AdapterComponent known = _given
            ?? (component == AdapterComponent.Model ? _guess ?? (_layout == AdapterLayout.OneTrainer ? AdapterComponent.Transformer : AdapterComponent.Unet)

            // kohya and ComfyUI call every denoiser a UNet.
            : component == AdapterComponent.Unet && _guess == AdapterComponent.Transformer ? AdapterComponent.Transformer
            : component);
        return known;
    }

    /// <summary>The name of a module's tensors without the suffix.</summary>
    public string Of(AdapterComponent component, string name, bool isDotted)
    {
        bool underscored = AdapterLayouts.IsUnderscored(_layout);
        if (!underscored && !isDotted)
        {
            _undotted.Add(name);
        }

        string written = Prefix(component) + (underscored ? name.Replace('.', '_') : name) + (_layout == AdapterLayout.Hcp ? AdapterLayouts.HcpMark : "");
        if (!_taken.TryAdd(written, name))
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"'{name}' and '{_taken[written]}' would both be called '{written}'.", "Choose a layout with dots.") { Target = name };
        }

        if (underscored && isDotted)
        {
            Originals[written] = name;
        }

        return written;
    }

    /// <summary>Throws if a name has to have dots and nothing tells where.</summary>
    /// <exception cref="LoKrException"><c>LoKr.AdapterModulesUnknown</c>, with the names.</exception>
    public void ThrowIfUndotted()
    {
        if (_undotted.Count > 0)
        {
            const int Most = 30;
            throw new LoKrException(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidArgument,
                $"The layout {_layout} needs dotted names, and where the dots of {_undotted.Count} modules belong only the base model tells: "
                + $"{string.Join(", ", _undotted.Take(Most))}{(_undotted.Count > Most ? " …" : "")}.",
                "Name the folder of the base model with -BasePath, or give a model with -Model.") { Target = _undotted[0] };
        }
    }

    private string Prefix(AdapterComponent component)
    {
        AdapterComponent known = ComponentOf(component);
        IReadOnlyList<(string Prefix, AdapterComponent Component)> prefixes = AdapterLayouts.Prefixes(_layout);
        if (prefixes.Count == 1)
        {
            return prefixes[0].Prefix;
        }

        string[] fitting = [.. prefixes.Where(entry => entry.Component == known).Select(static entry => entry.Prefix)];
        if (fitting.Length == 0)
        {
            fitting = [.. prefixes.Where(entry => AdapterContentReader.Matches(entry.Component, known)).Select(static entry => entry.Prefix)];
        }

        return fitting.Length == 0
            ? throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, $"The layout {_layout} has no name for {known}.", "Choose another layout.")
            : fitting.Length > 1 && _numbersTextEncoders ? fitting[1] : fitting[0];
    }
}
