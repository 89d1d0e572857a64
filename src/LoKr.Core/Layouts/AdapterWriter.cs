using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>Writes an adapter in any layout, so that the programs of that layout apply the same delta.</summary>
internal sealed class AdapterWriter
{
    private readonly AdapterLayout _layout;
    private readonly AdapterContent _content;
    private readonly AdapterKeyNames _names;
    private readonly List<string> _warnings = [];
    private readonly Dictionary<string, torch.Tensor> _tensors = new(StringComparer.Ordinal);
    private readonly Dictionary<AdapterComponent, LoKrConfig> _configs = [];

    private AdapterWriter(AdapterLayout layout, AdapterContent content, AdapterComponent? component)
    {
        (_layout, _content) = (layout, content);
        _names = new(layout, content, component);
    }

    private bool IsPeft => AdapterLayouts.IsPeft(_layout);

    /// <summary>Writes a file, or for PEFT and diffusers a folder where the destination does not end with .safetensors. It appears complete or not at all.</summary>
    /// <param name="destination">Full path.</param>
    /// <param name="layout">Layout to write.</param>
    /// <param name="content">The adapter.</param>
    /// <param name="options">Component and whether to replace.</param>
    /// <returns>Warnings.</returns>
    /// <exception cref="LoKrException">
    /// <c>LoKr.ConversionUnsupported</c>, <c>LoKr.AdapterModulesUnknown</c>, <c>LoKr.DestinationExists</c>, <c>LoKr.InvalidArgument</c>, <c>LoKr.FileNotWritable</c>.
    /// </exception>
    public static IReadOnlyList<string> Write(string destination, AdapterLayout layout, AdapterContent content, AdapterWriteOptions options)
    {
        bool isFile = IsFile(destination);
        if (isFile || options.CheckOnly)
        {
            CheckDestination(destination, layout, options.Force);
        }
        else
        {
            CheckForm(destination, layout);
        }

        using DisposeScope scope = torch.NewDisposeScope();
        using IDisposable noGrad = torch.no_grad();
        AdapterWriter writer = new(layout, content, options.Component);
        writer.Collect();
        writer._warnings.AddRange(NonFinite.Warnings(writer._tensors.Where(static pair => !pair.Key.EndsWith("." + AdapterSuffixes.Alpha, StringComparison.Ordinal))));
        if (options.CheckOnly)
        {
            return writer._warnings;
        }

        if (isFile)
        {
            writer.WriteFile(destination);
        }
        else if (layout == AdapterLayout.Peft)
        {
            writer.WritePeftFolder(destination, options.Force);
        }
        else
        {
            using StagedDirectory staged = new(destination, options.Force, carryOver: true);
            SafetensorsWriter.Write(Path.Combine(staged.Path, AdapterFile.DiffusersFile), writer._tensors, writer.Metadata());
            staged.Commit();
        }

        return writer._warnings;
    }

    /// <summary>Throws where an adapter cannot be written to a destination.</summary>
    /// <param name="destination">Full path.</param>
    /// <param name="layout">Layout to write.</param>
    /// <param name="force">Whether to replace.</param>
    /// <exception cref="LoKrException"><c>LoKr.DestinationExists</c>, <c>LoKr.InvalidArgument</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public static void CheckDestination(string destination, AdapterLayout layout, bool force)
    {
        CheckForm(destination, layout);
        if (IsFile(destination))
        {
            FileSystem.CheckReplaceable(destination, force);
        }
        else
        {
            StagedDirectory.Check(destination, force, carryOver: true);
        }
    }

    private static void CheckForm(string destination, AdapterLayout layout)
    {
        if (!IsFile(destination) && layout is not (AdapterLayout.Peft or AdapterLayout.Diffusers or AdapterLayout.DiffusersModel))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"'{destination}' is not the name of a safetensors file.", $"An adapter in the layout {layout} is a single file; end its name with .safetensors.") { Target = destination };
        }
    }

    private static bool IsFile(string destination) => destination.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase);

    private void Collect()
    {
        if (!IsPeft && _content.Saved.Count > 0)
        {
            throw Unsupported($"only PEFT's layout has modules that are saved whole: {string.Join(", ", _content.Saved.Keys.Order(StringComparer.Ordinal))}", _content.Saved.Keys.First());
        }

        if (AdapterLayouts.HasAlphaTensors(_layout))
        {
            foreach (AdapterModule module in _content.Modules)
            {
                Add(AdapterTensors.WithAlpha(AdapterTensors.WithCore(Kronecker(AdapterTensors.FoldScalar(module)), peft: false)));
            }

            foreach (AdapterNorm norm in _content.Norms)
            {
                Add(_names.Of(norm.Component, norm.Name, norm.IsDotted), norm.Tensors);
            }

            foreach (AdapterOther other in _content.Others)
            {
                string name = _names.OfOther(other.Component, other.Name, other.IsDotted);
                Add(name, other.As(name, readsBoth: true));
            }
        }
        else
        {
            CollectForPeft();
        }

        if (_names.UnknownToProgram is [string first, ..] unknown)
        {
            _warnings.Add($"ComfyUI does not know the names of {unknown.Count} modules, such as '{first}', and will leave them out.");
        }

        _names.ThrowIfUndotted();
    }

    private void CollectForPeft()
    {
        if (_content.Norms.Count > 0 && !IsPeft)
        {
            throw Unsupported($"diffusers does not support changes of norms: {string.Join(", ", _content.Norms.Select(static norm => norm.Name))}", _content.Norms[0].Name);
        }

        foreach (IGrouping<AdapterComponent, AdapterModule> part in _content.Modules.GroupBy(static module => module.Component))
        {
            LoKrConfig? own = _content.Configs.GetValueOrDefault(part.Key) ?? _content.Configs.GetValueOrDefault(AdapterComponent.Model)
                ?? (_content.Configs.Count == 1 && _content.Components.Count == 1 ? _content.Configs.Values.First() : null);

            // The names of the result, which its configuration has too.
            AdapterModule[] modules = [.. part.Select(module => module with { Name = _names.Local(module.Component, module.Name, module.IsDotted) })
                .Select(module => AdapterTensors.WithCore(Reversed(IsPeft ? module : AdapterTensors.FoldScalar(module)), peft: true)).Select(AdapterTensors.WithoutAlpha)];
            PeftConfigChoice choice = PeftConfigChoice.Of(modules, _content, own);
            if (!choice.IsPeft)
            {
                ExplainOptions(choice);
            }

            ExplainKinds(choice);

            _configs[_names.ComponentOf(part.Key)] = choice.Config;
            foreach (AdapterModule module in choice.Modules)
            {
                Add(module);
            }
        }

        if (_content.Modules.Count == 0 && _content.Configs.Count > 0)
        {
            _configs[AdapterComponent.Model] = _content.Configs.Values.First();
        }

        CollectNormsForPeft();

        foreach ((string name, torch.Tensor tensor) in _content.Saved)
        {
            int dot = name.LastIndexOf('.');
            _tensors.Add(PeftAdapterFolder.Prefix + (_layout == AdapterLayout.Peft ? name : $"{name[..Math.Max(dot, 0)]}.modules_to_save.default{name[Math.Max(dot, 0)..]}"), tensor);
        }
    }

    private void CollectNormsForPeft()
    {
        foreach (AdapterNorm norm in _content.Norms)
        {
            Add(_names.Of(norm.Component, norm.Name, norm.IsDotted), norm.Changes);
        }

        if (_content.Norms.Count > 0)
        {
            LoKrConfig config = _configs.Values.FirstOrDefault() ?? new LoKrConfig { TargetModules = ModuleSelector.FromNames([]) };
            _configs.Clear();
            _configs[AdapterComponent.Model] = config with { TrainNorm = true };
            Warn("it does not support changes of norms");
        }
    }

    /// <summary>Warns that PEFT does not know all options; its folders store them for readers that do. diffusers would refuse them.</summary>
    private void ExplainOptions(PeftConfigChoice choice)
    {
        LoKrConfig config = choice.Config;
        string why = config.WeightDecompose ? "it does not support DoRA for LoKr"
            : config.UseScalar ? "it does not support a trained scalar"
            : choice.Modules.Any(static module => module.Kernel?.Count == 1 && !module.IsReversed && module.Geometry.InnerRank is null) ? "it computes another product from a full w2 of a one-dimensional convolution"
            : "none of its decompose factors results in these shapes";
        if (!IsPeft)
        {
            throw Unsupported($"diffusers applies adapters through PEFT, and {why}", choice.Modules[0].Name);
        }

        Warn(why);
    }

    /// <summary>Warns that PEFT stops at layers for which it has LoRA only.</summary>
    private void ExplainKinds(PeftConfigChoice choice)
    {
        AdapterModule[] beyond = [.. choice.Modules.Where(static module => KindBeyondPeft(module) is not null)];
        if (beyond is not [AdapterModule first, ..])
        {
            return;
        }

        string why = $"it has LoKr for Linear, Conv1d and Conv2d only, and {beyond.Length} of {choice.Modules.Count} layers are others, such as '{first.Name}', {KindBeyondPeft(first)}";
        if (!IsPeft)
        {
            throw Unsupported($"diffusers applies adapters through PEFT, and {why}", first.Name);
        }

        _warnings.Add($"PEFT cannot apply this adapter: {why}. It applies the same adapter written as LoRA.");
    }

    // The factors of a file tell the dimensions of a kernel at least.
    private static string? KindBeyondPeft(AdapterModule module) => module.KindBeyondPeft ?? (module.Kernel is { Count: 3 } ? "Conv3d" : null);

    private void Warn(string why) => _warnings.Add($"PEFT cannot apply this adapter: {why}. Programs that read the key {LoKrConfigJson.ExtensionKey} of adapter_config.json can.");

    /// <summary>The module with factors that mean w1 ⊗ w2.</summary>
    private AdapterModule Kronecker(AdapterModule module) => !module.IsReversed ? module : AdapterTensors.Swap(module) ?? throw Unsupported(
        $"PEFT computes w2 ⊗ w1 from the factors of '{module.Name}', a one-dimensional convolution, and other programs w1 ⊗ w2; with a kernel of {module.Geometry.Kernel![0]} no factors mean the same to both", module.Name);

    /// <summary>The module with factors from which PEFT computes the same delta, where there are any.</summary>
    private AdapterModule Reversed(AdapterModule module)
    {
        bool differs = !module.IsReversed && module.Geometry.InnerRank is null && module.Geometry.Kernel!.Count == 1;
        return !differs ? module : AdapterTensors.Swap(module) ?? (IsPeft ? module : throw Unsupported(
            $"diffusers computes w2 ⊗ w1 from the factors of '{module.Name}', a one-dimensional convolution, and the adapter w1 ⊗ w2; with a kernel of {module.Geometry.Kernel![0]} no factors mean the same to both", module.Name));
    }

    private void Add(AdapterModule module) => Add(_names.Of(module.Component, module.Name, module.IsDotted), module.Tensors);

    private void Add(string module, IEnumerable<KeyValuePair<string, torch.Tensor>> tensors)
    {
        foreach ((string suffix, torch.Tensor tensor) in tensors)
        {
            _tensors.Add($"{module}.{suffix}{(_layout == AdapterLayout.PeftInMemory ? ".default" : "")}", tensor);
        }
    }

    private void WriteFile(string path)
    {
        FileSystem.CreateFolder(Path.GetDirectoryName(path)!);
        SafetensorsWriter.Write(path, _tensors, Metadata());
        if (_layout == AdapterLayout.Peft)
        {
            _warnings.Add($"PEFT needs {PeftAdapterFolder.ConfigFile} beside the file; it is written only for a folder.");
        }
    }

    private void WritePeftFolder(string folder, bool force) => PeftAdapterFolder.Write(
        folder,
        _configs.Values.FirstOrDefault() ?? new LoKrConfig { TargetModules = ModuleSelector.FromNames([]) },
        _tensors.ToDictionary(static pair => pair.Key[PeftAdapterFolder.Prefix.Length..], static pair => pair.Value, StringComparer.Ordinal),
        _content.BaseModels,
        force,
        _content.Metadata.GetValueOrDefault(AdapterHeader.FitKey));

    private Dictionary<string, string> Metadata() => AdapterHeader.Build(_layout, _content, _configs, _names.Originals);

    private LoKrException Unsupported(string why, string target) =>
        new(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, $"The adapter cannot be written in the layout {_layout}: {why}.", "Choose another layout.") { Target = target };
}

/// <summary>Options of writing an adapter.</summary>
public sealed record AdapterWriteOptions
{
    /// <summary>Part of the pipeline that the adapter is for, where neither its file nor the names of its modules tell.</summary>
    public AdapterComponent? Component { get; init; }

    /// <summary>The program that is to read the adapter: it decides names, scale and form in place of a layout. Null for a layout.</summary>
    public AdapterProgram? Program { get; init; }

    /// <summary>Replace an existing destination; for a program, also write what it will not read, with a warning.</summary>
    public bool Force { get; init; }

    /// <summary>Check everything and write nothing.</summary>
    public bool CheckOnly { get; init; }
}

/// <summary>Builds the metadata of the header of an adapter file.</summary>
internal static class AdapterHeader
{
    /// <summary>Key of the errors of an adapter that was fitted: a JSON object with <c>error</c> of the whole adapter and <c>layers</c> by name.</summary>
    public const string FitKey = "lokr_fit";

    // Entries that describe the source file, or are written again.
    private static readonly string[] s_replaced = ["format", AdapterLayouts.DiffusersMetadata, AdapterFileConfigs.OwnKey, "sshs_model_hash", "sshs_legacy_hash"];

    /// <summary>Copies the metadata of a trainer without the paths of its machine, and adds configurations and dotted names where the layout has no other place for them.</summary>
    /// <param name="layout">Layout of the file; null where its names alone tell.</param>
    /// <param name="content">The adapter.</param>
    /// <param name="configs">Configurations under which PEFT reads the file, by component.</param>
    /// <param name="originals">Names that the file does not give back, by the names in the file.</param>
    public static Dictionary<string, string> Build(
        AdapterLayout? layout, AdapterContent content, IReadOnlyDictionary<AdapterComponent, LoKrConfig> configs, IReadOnlyDictionary<string, string> originals)
    {
        Dictionary<string, string> metadata = new(StringComparer.Ordinal) { ["format"] = "pt" };
        foreach ((string key, string value) in content.Metadata.Where(static pair => !s_replaced.Contains(pair.Key)))
        {
            metadata[key] = MachinePaths.Remove(value);
        }

        if (layout is AdapterLayout.Diffusers or AdapterLayout.DiffusersModel)
        {
            metadata[AdapterLayouts.DiffusersMetadata] = layout == AdapterLayout.DiffusersModel ? LoKrConfigJson.Write(configs.Values.First()) : Prefixed(configs);
            if (AdapterFileConfigs.WriteBeside(originals, content.BaseModels) is string own)
            {
                metadata[AdapterFileConfigs.OwnKey] = own;
            }
        }
        else
        {
            metadata[AdapterFileConfigs.OwnKey] = AdapterFileConfigs.Write(layout, layout is AdapterLayout known && AdapterLayouts.HasAlphaTensors(known) ? content.Configs : configs, originals, content.BaseModels);
        }

        return metadata;
    }

    /// <summary>The form in which diffusers saves the configurations of a whole pipeline: a component's name before each key.</summary>
    private static string Prefixed(IReadOnlyDictionary<AdapterComponent, LoKrConfig> configs)
    {
        JsonObject root = [];
        foreach ((AdapterComponent component, LoKrConfig config) in configs)
        {
            string prefix = AdapterLayouts.Prefixes(AdapterLayout.Diffusers).First(entry => entry.Component == component).Text;
            foreach ((string key, JsonNode? value) in JsonNode.Parse(LoKrConfigJson.Write(config))!.AsObject())
            {
                root[prefix + key] = value?.DeepClone();
            }
        }

        return JsonRecords.ToEscapedLines(root);
    }
}
