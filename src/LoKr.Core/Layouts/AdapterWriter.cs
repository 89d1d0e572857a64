using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
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

    private bool IsPeft => _layout is AdapterLayout.Peft or AdapterLayout.PeftInMemory;

    /// <summary>Writes a file, or for PEFT and diffusers a folder where the destination has no extension. It appears complete or not at all.</summary>
    /// <param name="destination">Full path.</param>
    /// <param name="layout">Layout to write.</param>
    /// <param name="content">The adapter.</param>
    /// <param name="options">Component and whether to replace.</param>
    /// <returns>What a person should know.</returns>
    /// <exception cref="LoKrException">
    /// <c>LoKr.ConversionUnsupported</c>, <c>LoKr.AdapterModulesUnknown</c>, <c>LoKr.DestinationExists</c>, <c>LoKr.InvalidArgument</c>, <c>LoKr.FileNotWritable</c>.
    /// </exception>
    public static IReadOnlyList<string> Write(string destination, AdapterLayout layout, AdapterContent content, AdapterWriteOptions options)
    {
        bool isFile = destination.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase);
        if (!isFile && layout is not (AdapterLayout.Peft or AdapterLayout.Diffusers or AdapterLayout.DiffusersModel))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"'{destination}' is not the name of a safetensors file.", $"An adapter in the layout {layout} is one file; let its name end with .safetensors.") { Target = destination };
        }

        if (isFile && !options.Force && Path.Exists(destination))
        {
            throw new LoKrException(ErrorIds.DestinationExists, LoKrErrorKind.AlreadyExists, $"'{destination}' exists.", "Use -Force to replace it, or another destination.") { Target = destination };
        }

        using DisposeScope scope = torch.NewDisposeScope();
        using IDisposable noGrad = torch.no_grad();
        AdapterWriter writer = new(layout, content, options.Component);
        writer.Collect();
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
            using StagedDirectory staged = new(destination, options.Force, keepOthers: true);
            SafetensorsWriter.Write(Path.Combine(staged.Path, AdapterFile.DiffusersFile), writer._tensors, writer.Metadata());
            staged.Commit();
        }

        return writer._warnings;
    }

    private void Collect()
    {
        if (!IsPeft && _content.Saved.Count > 0)
        {
            throw Unsupported($"modules that are saved whole are kept by PEFT's layout only: {string.Join(", ", _content.Saved.Keys.Order(StringComparer.Ordinal))}", _content.Saved.Keys.First());
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
        }
        else
        {
            CollectForPeft();
        }

        _names.ThrowIfUndotted();
    }

    private void CollectForPeft()
    {
        if (_content.Norms.Count > 0 && !IsPeft)
        {
            throw Unsupported($"diffusers has no changes of norms: {string.Join(", ", _content.Norms.Select(static norm => norm.Name))}", _content.Norms[0].Name);
        }

        foreach (IGrouping<AdapterComponent, AdapterModule> part in _content.Modules.GroupBy(static module => module.Component))
        {
            LoKrConfig? own = _content.Configs.GetValueOrDefault(part.Key) ?? _content.Configs.GetValueOrDefault(AdapterComponent.Model)
                ?? (_content.Configs.Count == 1 && _content.Components.Count == 1 ? _content.Configs.Values.First() : null);
            AdapterModule[] modules = [.. part.Select(module => AdapterTensors.WithCore(Reversed(IsPeft ? module : AdapterTensors.FoldScalar(module)), peft: true)).Select(AdapterTensors.WithoutAlpha)];
            PeftConfigChoice choice = PeftConfigChoice.Of(modules, _content, own);
            if (!choice.IsPeft)
            {
                Explain(choice);
            }

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
            Dictionary<string, torch.Tensor> changes = norm.Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha).ToDictionary(static pair => pair.Key, static pair => pair.Value, StringComparer.Ordinal);
            Add(_names.Of(norm.Component, norm.Name, norm.IsDotted), changes);
        }

        if (_content.Norms.Count > 0)
        {
            LoKrConfig config = _configs.Values.FirstOrDefault() ?? new LoKrConfig { TargetModules = ModuleSelector.FromNames([]) };
            _configs.Clear();
            _configs[AdapterComponent.Model] = config with { TrainNorm = true };
            _warnings.Add("PEFT cannot apply this adapter: it has no changes of norms. Programs that read the key lokr_ps of adapter_config.json can.");
        }
    }

    /// <summary>PEFT folders keep what PEFT does not know, for readers that do; diffusers would stop at it.</summary>
    private void Explain(PeftConfigChoice choice)
    {
        LoKrConfig config = choice.Config;
        string why = config.WeightDecompose ? "it has no DoRA for LoKr"
            : config.UseScalar ? "it has no trained scalar"
            : choice.Modules.Any(static module => module.Kernel?.Count == 1 && !module.IsReversed && module.Geometry.InnerRank is null) ? "it reads a full w2 of a one-dimensional convolution as another product"
            : "no decompose factor of its own gives the shapes of the factors";
        if (!IsPeft)
        {
            throw Unsupported($"diffusers applies adapters through PEFT, and {why}", choice.Modules[0].Name);
        }

        _warnings.Add($"PEFT cannot apply this adapter: {why}. Programs that read the key lokr_ps of adapter_config.json can.");
    }

    /// <summary>The module with factors that mean w1 ⊗ w2.</summary>
    private AdapterModule Kronecker(AdapterModule module) => !module.IsReversed ? module : AdapterTensors.Swap(module) ?? throw Unsupported(
        $"PEFT means w2 ⊗ w1 by the factors of '{module.Name}', a one-dimensional convolution, and other programs w1 ⊗ w2; with a kernel of {module.Geometry.Kernel![0]} one cannot be written as the other", module.Name);

    /// <summary>The module with factors that PEFT takes for the same delta, where there are some.</summary>
    private AdapterModule Reversed(AdapterModule module)
    {
        bool differs = !module.IsReversed && module.Geometry.InnerRank is null && module.Geometry.Kernel!.Count == 1;
        return !differs ? module : AdapterTensors.Swap(module) ?? (IsPeft ? module : throw Unsupported(
            $"diffusers means w2 ⊗ w1 by the factors of '{module.Name}', a one-dimensional convolution, and the adapter w1 ⊗ w2; with a kernel of {module.Geometry.Kernel![0]} one cannot be written as the other", module.Name));
    }

    private void Add(AdapterModule module) => Add(_names.Of(module.Component, module.Name, module.IsDotted), module.Tensors);

    private void Add(string module, IReadOnlyDictionary<string, torch.Tensor> tensors)
    {
        foreach ((string suffix, torch.Tensor tensor) in tensors)
        {
            _tensors.Add($"{module}.{suffix}{(_layout == AdapterLayout.PeftInMemory ? ".default" : "")}", tensor);
        }
    }

    private void WriteFile(string path)
    {
        FileErrors.CreateFolder(Path.GetDirectoryName(path)!);

        SafetensorsWriter.Write(path, _tensors, Metadata());
        if (_layout == AdapterLayout.Peft)
        {
            _warnings.Add($"PEFT looks for {PeftAdapterFolder.ConfigFile} beside the file; name a folder to have it written.");
        }
    }

    private void WritePeftFolder(string folder, bool force) => PeftAdapterFolder.Write(
        folder,
        _configs.Values.FirstOrDefault() ?? new LoKrConfig { TargetModules = ModuleSelector.FromNames([]) },
        _tensors.ToDictionary(static pair => pair.Key[PeftAdapterFolder.Prefix.Length..], static pair => pair.Value, StringComparer.Ordinal),
        force);

    private Dictionary<string, string> Metadata() => AdapterHeader.Build(_layout, _content, _configs, _names.Originals);

    private LoKrException Unsupported(string why, string target) =>
        new(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, $"The adapter cannot be written in the layout {_layout}: {why}.", "Choose another layout.") { Target = target };
}

/// <summary>How an adapter is written.</summary>
public sealed record AdapterWriteOptions
{
    /// <summary>Part of the pipeline that the adapter is for, where neither its file nor the names of its modules say it.</summary>
    public AdapterComponent? Component { get; init; }

    /// <summary>Replace what is at the destination.</summary>
    public bool Force { get; init; }
}

/// <summary>Metadata of the header of an adapter file.</summary>
internal static class AdapterHeader
{
    private static readonly JsonSerializerOptions s_json = new() { WriteIndented = true };

    // What described the former file, or is written anew.
    private static readonly string[] s_replaced = ["format", AdapterLayouts.DiffusersMetadata, AdapterFileConfigs.OwnKey, "sshs_model_hash", "sshs_legacy_hash"];

    /// <summary>Metadata of a trainer is kept; configurations and dotted names are added where the layout has no other place for them.</summary>
    /// <param name="layout">Layout of the file.</param>
    /// <param name="content">The adapter.</param>
    /// <param name="configs">Configurations under which PEFT reads the file, by component.</param>
    /// <param name="originals">Dotted names behind those with underscores.</param>
    public static Dictionary<string, string> Build(
        AdapterLayout layout, AdapterContent content, IReadOnlyDictionary<AdapterComponent, LoKrConfig> configs, IReadOnlyDictionary<string, string> originals)
    {
        Dictionary<string, string> metadata = new(StringComparer.Ordinal) { ["format"] = "pt" };
        foreach ((string key, string value) in content.Metadata.Where(static pair => !s_replaced.Contains(pair.Key)))
        {
            metadata[key] = value;
        }

        if (layout is AdapterLayout.Diffusers or AdapterLayout.DiffusersModel)
        {
            metadata[AdapterLayouts.DiffusersMetadata] = layout == AdapterLayout.DiffusersModel ? LoKrConfigJson.Write(configs.Values.First()) : Prefixed(configs);
        }
        else
        {
            metadata[AdapterFileConfigs.OwnKey] = AdapterFileConfigs.Write(layout, AdapterLayouts.HasAlphaTensors(layout) ? content.Configs : configs, originals);
        }

        return metadata;
    }

    /// <summary>The form in which diffusers saves the configurations of a whole pipeline: a component's name before each key.</summary>
    private static string Prefixed(IReadOnlyDictionary<AdapterComponent, LoKrConfig> configs)
    {
        JsonObject root = [];
        foreach ((AdapterComponent component, LoKrConfig config) in configs)
        {
            string prefix = AdapterLayouts.Prefixes(AdapterLayout.Diffusers).First(entry => entry.Component == component).Prefix;
            foreach ((string key, JsonNode? value) in JsonNode.Parse(LoKrConfigJson.Write(config))!.AsObject())
            {
                root[prefix + key] = value?.DeepClone();
            }
        }

        return root.ToJsonString(s_json);
    }
}
