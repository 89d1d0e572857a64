using LoKr.Core.Errors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Converts adapter files between layouts without changing their effect on a model.</summary>
public static class AdapterConverter
{
    /// <summary>Converts a file.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <param name="destination">Safetensors file to write; a folder for PEFT's and diffusers' layouts.</param>
    /// <param name="layout">Layout of the result, unless the options name a program.</param>
    /// <param name="options">Base model, overrides, and whether to replace.</param>
    /// <param name="warnings">Warnings about the file and the result.</param>
    /// <returns>A description of the result.</returns>
    /// <exception cref="LoKrException">
    /// The file is not valid; <c>LoKr.AdapterModulesUnknown</c> where modules are not in the base model, or dots are needed and no base model is
    /// given; <c>LoKr.ConversionUnsupported</c> where the layout cannot express the adapter; <c>LoKr.DestinationExists</c> and the other errors of
    /// writing. Nothing is written in these cases.
    /// </exception>
    public static LoKrAdapterInfo Convert(string path, string destination, AdapterLayout layout, AdapterConvertOptions options, out IReadOnlyList<string> warnings)
    {
        warnings = Write(path, destination, layout, options, checkOnly: false);
        return AdapterInspector.Inspect(Path.GetFullPath(destination));
    }

    /// <summary>Throws what <see cref="Convert"/> would throw before it writes. Nothing is written.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <param name="destination">File or folder that would be written.</param>
    /// <param name="layout">Layout of the result.</param>
    /// <param name="options">Base model, overrides, and whether to replace.</param>
    /// <exception cref="LoKrException">As for <see cref="Convert"/>.</exception>
    public static void Check(string path, string destination, AdapterLayout layout, AdapterConvertOptions options) =>
        Write(path, destination, layout, options, checkOnly: true);

    /// <summary>Where the file has one component under another name, the caller's component names the result, and selects nothing.</summary>
    internal static AdapterReadOptions Filter(AdapterFile file, AdapterReadOptions options) => options.Component is AdapterComponent wanted
        && file.Modules.Select(static module => module.Component).Concat(file.Foreign.Select(static tensor => tensor.Component)).Distinct().ToArray() is AdapterComponent[] components
        && (Array.Exists(components, component => AdapterComponents.Matches(component, wanted)) || components.Length > 1)
            ? options : options with { Component = null };

    private static IReadOnlyList<string> Write(string path, string destination, AdapterLayout layout, AdapterConvertOptions options, bool checkOnly)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentException.ThrowIfNullOrEmpty(destination);
        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = torch.NewDisposeScope();
        using AdapterFile file = AdapterFile.Open(path, options.Read.Layout);
        ModuleNameIndex? index = BaseModelNames.Find(options.Model, options.BasePath);

        // LoRA can only be beside LoKr where other kinds of adapters are read; alone, nearly every program reads it.
        bool carries = options.Program is not AdapterProgram target ? layout is AdapterLayout.Comfy or AdapterLayout.Kohya or AdapterLayout.Lycoris
            : ProgramForm.Of(target) is { ReadsOtherKinds: true } || (ProgramForm.Of(target).ReadsLoraFiles && file.Modules.Count == 0);
        AdapterReadOptions read = Filter(file, carries ? options.Read with { Foreign = ForeignTensors.Carry } : options.Read);
        AdapterContent content = AdapterContentReader.Read(file, read, index);
        content = options.Division is ModuleDivision division ? DividedContent.As(content, division, options.Inexact)
            : options.Program is AdapterProgram named ? DividedContent.For(content, named, options.Inexact)
            : content;
        if (!carries && options.Inexact == InexactRows.Lora && content.Others.Count > 0)
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"{content.Others.Count} modules would become LoRA, such as '{content.Others[0].Name}', which {options.Program?.ToString() ?? $"the layout {layout}"} does not take beside LoKr.", "Let them become whole matrices.") { Target = content.Others[0].Name };
        }

        AdapterWriteOptions write = new() { Component = options.Read.Component, Force = options.Force, CheckOnly = checkOnly };
        string full = Path.GetFullPath(destination);
        return [.. file.Warnings, .. AdapterReading.Left(file, read), .. options.Program is AdapterProgram program ? ProgramWriter.Write(full, program, content, write) : AdapterWriter.Write(full, layout, content, write)];
    }
}

/// <summary>Options of a conversion.</summary>
public sealed record AdapterConvertOptions
{
    /// <summary>Overrides for what the file does not say, or says wrongly. The component selects one of several, and names a single one.</summary>
    public AdapterReadOptions Read { get; init; } = new();

    /// <summary>Folder or safetensors file of the base model, whose headers have the names and shapes of its modules; null for none.</summary>
    public string? BasePath { get; init; }

    /// <summary>A model in memory; overrides <see cref="BasePath"/>.</summary>
    public LoKrModel? Model { get; init; }

    /// <summary>The program that is to read the result: it decides names, scale and form in place of a layout. Null for a layout.</summary>
    public AdapterProgram? Program { get; init; }

    /// <summary>The division of the model's weights that the result has; null for that of the program, or for the file's where there is none.</summary>
    public ModuleDivision? Division { get; init; }

    /// <summary>Form of rows that another division does not leave as one Kronecker product.</summary>
    public InexactRows Inexact { get; init; }

    /// <summary>Replace an existing destination; for a program, also write what it will not read, with a warning.</summary>
    public bool Force { get; init; }
}
