using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Writes an adapter with the names, scale and form that a program reads for its model.</summary>
internal static class ProgramWriter
{
    /// <summary>Writes a file; for PEFT a folder, for diffusers a file or a folder.</summary>
    /// <param name="destination">Full path.</param>
    /// <param name="program">The program.</param>
    /// <param name="content">The adapter.</param>
    /// <param name="options">Whether to replace, and to write what the program will not read.</param>
    /// <returns>Warnings.</returns>
    /// <exception cref="LoKrException"><c>LoKr.ConversionUnsupported</c> where the program would not read all of it, and the errors of writing.</exception>
    public static IReadOnlyList<string> Write(string destination, AdapterProgram program, AdapterContent content, AdapterWriteOptions options)
    {
        ProgramForm form = ProgramForm.Of(program);
        if (program == AdapterProgram.Vllm)
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, "vLLM loads LoRA only.", "Convert the adapter to LoRA.");
        }

        if (program == AdapterProgram.Peft)
        {
            return AdapterWriter.Write(destination, AdapterLayout.Peft, content, options);
        }

        bool isFile = destination.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase);
        if (!isFile && program != AdapterProgram.Diffusers)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"'{destination}' is not the name of a safetensors file.", $"{program} reads a single file; end its name with .safetensors.") { Target = destination };
        }

        if (isFile)
        {
            FileSystem.CheckReplaceable(destination, options.Force);
        }
        else if (options.CheckOnly)
        {
            StagedDirectory.Check(destination, options.Force, carryOver: true);
        }

        using DisposeScope scope = torch.NewDisposeScope();
        using IDisposable noGrad = torch.no_grad();
        List<string> warnings = [];
        Dictionary<string, torch.Tensor> tensors = Collect(program, form, content, options, warnings, out IReadOnlyDictionary<string, string> originals);
        warnings.AddRange(NonFinite.Warnings(tensors.Where(static pair => !pair.Key.EndsWith("." + AdapterSuffixes.Alpha, StringComparison.Ordinal))));
        if (options.CheckOnly)
        {
            return warnings;
        }

        Dictionary<string, string> metadata = AdapterHeader.Build(null, content, form.HasAlpha ? content.Configs : new Dictionary<AdapterComponent, LoKrConfig>(), originals);
        if (isFile)
        {
            FileSystem.CreateFolder(Path.GetDirectoryName(destination)!);
            SafetensorsWriter.Write(destination, tensors, metadata);
        }
        else
        {
            using StagedDirectory staged = new(destination, options.Force, carryOver: true);
            SafetensorsWriter.Write(Path.Combine(staged.Path, AdapterFile.DiffusersFile), tensors, metadata);
            staged.Commit();
        }

        return warnings;
    }

    private static Dictionary<string, torch.Tensor> Collect(AdapterProgram program, ProgramForm form, AdapterContent content, AdapterWriteOptions options, List<string> warnings, out IReadOnlyDictionary<string, string> originals)
    {
        ProgramNames names = new(program, content);
        if (!options.Force && names.Unknown.Count > 0)
        {
            throw ProgramSupport.Unreadable(program, names, content);
        }

        List<string> losses = [.. ProgramSupport.Losses(program, form, names, content)];
        if (losses.Count > 0 && !options.Force)
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, $"{program} would not apply this adapter as it is: {string.Join("; ", losses)}.", ProgramSupport.Advice(program, names, content));
        }

        // What is written all the same is counted.
        warnings.AddRange(losses.Select(loss => $"{program} will not apply all of it: {loss}."));
        if (names.Unknown.Count > 0)
        {
            warnings.Add($"{program} has no name for {names.Unknown.Count} of {content.Names.Count} modules, such as '{names.Unknown[0]}', and will leave them out.");
        }

        AdapterKeyNames layout = new(form.Layout, content, options.Component);
        Dictionary<string, torch.Tensor> tensors = new(StringComparer.Ordinal);
        Dictionary<(AdapterComponent, string), string> written = [];
        Dictionary<string, string> taken = new(StringComparer.Ordinal);
        string NameOf(AdapterComponent component, string name, bool isDotted)
        {
            if (written.TryGetValue((component, name), out string? known))
            {
                return known;
            }

            string spelled = names.Of(component, name) ?? layout.Of(component, name, isDotted);
            return taken.TryAdd(spelled, name) ? written[(component, name)] = spelled : throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                $"'{name}' and '{taken[spelled]}' are two names of one module, which {program} calls '{spelled}'.", "The file mixes the names of two programs; keep one of the two modules.") { Target = name };
        }

        foreach (AdapterModule module in content.Modules)
        {
            Add(NameOf(module.Component, module.Name, module.IsDotted), form.Shape(module, program).Tensors);
        }

        foreach (AdapterNorm norm in content.Norms)
        {
            Add(NameOf(norm.Component, norm.Name, norm.IsDotted), norm.Changes);
        }

        foreach (AdapterOther other in content.Others)
        {
            string name = NameOf(other.Component, other.Name, other.IsDotted);
            Add(name, (form.HasAlpha ? other : other.WithoutAlpha()).As(name, form.ReadsOtherKinds));
        }

        void Add(string name, IEnumerable<KeyValuePair<string, torch.Tensor>> module)
        {
            foreach ((string suffix, torch.Tensor tensor) in module)
            {
                tensors.Add($"{name}.{suffix}", tensor);
            }
        }

        layout.ThrowIfUndotted();
        originals = layout.Originals;
        return tensors;
    }
}
