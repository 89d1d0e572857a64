using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts;

/// <summary>
/// An adapter file of any layout, by its header: modules and their tensors, configuration, and what is wrong with it. Only alpha
/// tensors are read, one number each. Holds the file open until disposed; torch is not needed before tensors are read.
/// </summary>
public sealed class AdapterFile : IDisposable
{
    /// <summary>Name of the file of weights that diffusers writes.</summary>
    public const string DiffusersFile = "pytorch_lora_weights.safetensors";

    private readonly SafetensorsReader _reader;

    private AdapterFile(string path, SafetensorsReader reader, AdapterFileContent content, AdapterFileConfigs configs)
    {
        Path = path;
        _reader = reader;
        Layout = content.Layout;
        Modules = content.Modules;
        SavedTensors = content.SavedTensors;
        Findings = [.. configs.Findings, .. content.Findings];
        Configs = configs.ByComponent;
        OriginalNames = configs.OriginalNames;
        HasConfig = configs.ByComponent.Count > 0;
    }

    /// <summary>Full path of the file, or of the folder with the file and its adapter_config.json.</summary>
    public string Path { get; }

    /// <summary>Full path of the file with the tensors.</summary>
    public string WeightsPath => _reader.FilePath;

    /// <summary>How the tensors are named.</summary>
    public AdapterLayout Layout { get; }

    /// <summary>Modules in the order of the header.</summary>
    public IReadOnlyList<AdapterFileModule> Modules { get; }

    /// <summary>Tensors of modules that are saved whole (PEFT <c>modules_to_save</c>): the name without the layout's prefix, and the name in the file.</summary>
    public IReadOnlyDictionary<string, string> SavedTensors { get; }

    /// <summary>Whether a configuration came with the file, in adapter_config.json or in the header.</summary>
    public bool HasConfig { get; }

    /// <summary>Metadata of the header.</summary>
    public IReadOnlyDictionary<string, string> Metadata => _reader.Metadata;

    /// <summary>Every tensor by its name in the file.</summary>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries => _reader.Entries;

    /// <summary>What was found while the names were read. <see cref="AdapterValidator"/> adds what the shapes say.</summary>
    public IReadOnlyList<LoKrAdapterFinding> Findings { get; }

    /// <summary>Configurations by component.</summary>
    internal IReadOnlyDictionary<AdapterComponent, LoKrConfig> Configs { get; }

    /// <summary>Dotted names of modules that this library noted in the header of a file with underscores: prefix and underscored name to dotted name.</summary>
    internal IReadOnlyDictionary<string, string> OriginalNames { get; }

    /// <summary>The tensors, by their names in the file.</summary>
    internal ITensorSource Tensors => _reader;

    /// <summary>Opens a safetensors file, or a folder with one.</summary>
    /// <param name="path">A file; a folder that PEFT wrote; a folder with one safetensors file.</param>
    /// <param name="layout">The layout, where names alone would mislead; null to go by the names.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.PathNotFound</c>, <c>LoKr.AdapterFileNotFound</c>, <c>LoKr.PickleRefused</c>, and the errors of
    /// <see cref="SafetensorsReader.Open"/> and <see cref="LoKrConfigJson.Read"/>. What is wrong with names and shapes is in <see cref="Findings"/> instead.
    /// </exception>
    public static AdapterFile Open(string path, AdapterLayout? layout = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        (string weights, string? config) = AdapterFileLocator.Find(System.IO.Path.GetFullPath(path));
        SafetensorsReader reader = SafetensorsReader.Open(weights);
        try
        {
            AdapterFileConfigs configs = AdapterFileConfigs.Read(config, reader);
            AdapterFileContent content = AdapterFileContent.Read(reader, layout, configs);
            return new(config is null ? weights : System.IO.Path.GetDirectoryName(weights)!, reader, content, configs);
        }
        catch
        {
            reader.Dispose();
            throw;
        }
    }

    /// <summary>The configuration of a component: its own, or the one of the whole file; null without one.</summary>
    public LoKrConfig? ConfigOf(AdapterComponent component) =>
        Configs.GetValueOrDefault(component) ?? Configs.GetValueOrDefault(AdapterComponent.Model);

    /// <inheritdoc/>
    public void Dispose() => _reader.Dispose();
}

/// <summary>The tensors that an adapter file has for one module.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the module as the file has it, without the layout's prefix: with dots, or with underscores in their place.</param>
/// <param name="Tensors">Tensors by suffix (lokr_w1, …, alpha, dora_scale, scalar, w_norm, b_norm), each with its name in the file.</param>
/// <param name="Alpha">Value of the alpha tensor, or null without one.</param>
public sealed record AdapterFileModule(AdapterComponent Component, string Name, IReadOnlyDictionary<string, SafetensorsEntry> Tensors, double? Alpha)
{
    /// <summary>Whether the module is a norm with changes of its weight and bias.</summary>
    public bool IsNorm => Tensors.ContainsKey(AdapterSuffixes.NormWeight) || Tensors.ContainsKey(AdapterSuffixes.NormBias);

    /// <inheritdoc/>
    public override string ToString() => Component == AdapterComponent.Model ? Name : $"{Component} {Name}";
}

/// <summary>Finds the file of weights, and the configuration beside it, that a path stands for.</summary>
internal static class AdapterFileLocator
{
    /// <summary>The file of weights, and adapter_config.json where it belongs to it.</summary>
    public static (string Weights, string? Config) Find(string path)
    {
        if (!Directory.Exists(path))
        {
            string config = Path.Combine(Path.GetDirectoryName(path) ?? "", PeftAdapterFolder.ConfigFile);
            return (path, Path.GetFileName(path) == PeftAdapterFolder.WeightsFile && File.Exists(config) ? config : null);
        }

        string weights = Path.Combine(path, PeftAdapterFolder.WeightsFile);
        string peft = Path.Combine(path, PeftAdapterFolder.ConfigFile);
        if (File.Exists(peft))
        {
            if (!File.Exists(weights))
            {
                PickleGuard.ThrowIfOnlyPickles(path, "adapter_model");
                throw Missing(weights, "Name a folder that PEFT's save_pretrained or Export-LoKrAdapter wrote.");
            }

            return (weights, peft);
        }

        string diffusers = Path.Combine(path, AdapterFile.DiffusersFile);
        if (File.Exists(diffusers))
        {
            return (diffusers, null);
        }

        string[] files = Directory.GetFiles(path, "*.safetensors");
        if (files.Length == 1)
        {
            return (files[0], null);
        }

        if (files.Length == 0)
        {
            PickleGuard.ThrowIfOnlyPickles(path, "adapter_model", "pytorch_lora_weights");
        }

        string[] inside = [.. Directory.EnumerateDirectories(path)
            .Where(static folder => File.Exists(Path.Combine(folder, PeftAdapterFolder.ConfigFile)))
            .Select(static folder => Path.GetFileName(folder))
            .Order(StringComparer.Ordinal)];
        throw Missing(peft, files.Length > 1 ? $"The folder has {files.Length} safetensors files; name one of them."
            : inside.Length > 0 ? $"There are adapters in its folders: {string.Join(", ", inside)}."
            : "Name an adapter folder or a safetensors file.");
    }

    private static LoKrException Missing(string path, string advice) =>
        new(ErrorIds.AdapterFileNotFound, LoKrErrorKind.NotFound, $"There is no '{path}'.", advice) { Target = path };
}
