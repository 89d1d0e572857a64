using LoKr.Core.Errors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Converts adapter files between layouts, without changing what they do to a model.</summary>
public static class AdapterConverter
{
    /// <summary>Converts a file.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <param name="destination">Safetensors file to write; a folder for PEFT's and diffusers' layouts.</param>
    /// <param name="layout">Layout of the result.</param>
    /// <param name="options">What the file does not say.</param>
    /// <param name="warnings">What a person should know.</param>
    /// <returns>What was written.</returns>
    /// <exception cref="LoKrException">
    /// The file is not valid; <c>LoKr.AdapterModulesUnknown</c> where modules are not in the base model, or dots are needed and none is known;
    /// <c>LoKr.ConversionUnsupported</c> where the layout cannot hold the adapter without changing its meaning; <c>LoKr.DestinationExists</c> and
    /// the other errors of writing. Nothing is written then.
    /// </exception>
    public static LoKrAdapterInfo Convert(string path, string destination, AdapterLayout layout, AdapterConvertOptions options, out IReadOnlyList<string> warnings)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentException.ThrowIfNullOrEmpty(destination);
        string full = Path.GetFullPath(destination);
        using (DisposeScope scope = torch.NewDisposeScope())
        using (AdapterFile file = AdapterFile.Open(path, options.Read.Layout))
        {
            ModuleNameIndex? index = Names(options);

            // A component that the file does not name is what the caller calls its only one.
            AdapterComponent? component = options.Read.Component;
            bool filters = component is AdapterComponent wanted
                && (file.Modules.Any(module => AdapterContentReader.Matches(module.Component, wanted)) || file.Modules.Select(static module => module.Component).Distinct().Count() > 1);
            AdapterContent content = AdapterContentReader.Read(file, filters ? options.Read : options.Read with { Component = null }, index);
            warnings = [
                .. file.Findings.Where(static finding => finding.Severity == LoKrFindingSeverity.Warning).Select(static finding => finding.Message),
                .. AdapterWriter.Write(full, layout, content, new() { Component = component, Force = options.Force }),
            ];
        }

        return AdapterInspector.Inspect(full);
    }

    /// <summary>The module names of the base model, or null where none is given.</summary>
    internal static ModuleNameIndex? Names(AdapterConvertOptions options) => options.Model is not null ? ModuleNameIndex.FromModule(options.Model.Module, options.Model.Name)
        : options.BasePath is not null ? BaseModelNames.Read(Path.GetFullPath(options.BasePath))
        : null;
}

/// <summary>How an adapter file becomes another.</summary>
public sealed record AdapterConvertOptions
{
    /// <summary>What the caller says where the file is silent or misleads. A component chooses among several, and names the only one.</summary>
    public AdapterReadOptions Read { get; init; } = new();

    /// <summary>Folder or safetensors file of the base model, whose headers tell names and shapes of its modules; null without one.</summary>
    public string? BasePath { get; init; }

    /// <summary>A model in place of <see cref="BasePath"/>.</summary>
    public LoKrModel? Model { get; init; }

    /// <summary>Replace what is at the destination.</summary>
    public bool Force { get; init; }
}
