using LoKr.Core.Adapters;

namespace LoKr.Core.Formats.AdapterFiles;

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
