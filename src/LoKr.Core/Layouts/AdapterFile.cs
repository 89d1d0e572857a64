using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts;

/// <summary>
/// The header of an adapter file of any layout: modules and their tensors, configuration, and problems with the names. Only alpha
/// tensors are read, one number each. Holds the file open until disposed; torch is not needed before tensors are read.
/// </summary>
public sealed class AdapterFile : IDisposable
{
    /// <summary>Name of the file of weights that diffusers writes.</summary>
    public const string DiffusersFile = "pytorch_lora_weights.safetensors";

    private readonly SafetensorsReader _reader;
    private readonly Lazy<RecognizedModel?> _model;
    private readonly Lazy<IReadOnlyList<AdapterFileModule>> _others;

    private AdapterFile(string path, SafetensorsReader reader, AdapterFileParser parser, AdapterFileConfigs configs)
    {
        Path = path;
        _reader = reader;
        Layout = parser.Layout;
        Modules = parser.Modules;
        SavedTensors = parser.SavedTensors;
        Foreign = parser.Foreign;
        Findings = [.. configs.Findings, .. parser.Findings];
        Configs = configs.ByComponent;
        LowRank = configs.LowRank;
        BaseModels = configs.BaseModels;
        OriginalNames = configs.OriginalNames;
        FactorHint = configs.FactorHint;
        _others = new(ReadOthers);
        _model = new(() => ModelRecognizer.OfAdapter(Modules.Select(static module => module.Tensors.Values.First()).Concat(Foreign.Select(static tensor => tensor.Entry)).Select(static entry => AdapterKey.Split(entry.Name).Module)));
    }

    /// <summary>Full path of the file, or of the folder with the file and its adapter_config.json.</summary>
    public string Path { get; }

    /// <summary>Full path of adapter_config.json, where it belongs to the file.</summary>
    internal string? ConfigPath { get; private init; }

    /// <summary>Full path of the file with the tensors.</summary>
    public string WeightsPath => _reader.FilePath;

    /// <summary>How the tensors are named.</summary>
    public AdapterLayout Layout { get; }

    /// <summary>Modules in the order of the header.</summary>
    public IReadOnlyList<AdapterFileModule> Modules { get; }

    /// <summary>Tensors of modules that are saved whole (PEFT <c>modules_to_save</c>): the name without the layout's prefix → the name in the file.</summary>
    public IReadOnlyDictionary<string, string> SavedTensors { get; }

    /// <summary>Tensors of other kinds of adapters beside LoKr's factors: LoCon, LoHa, full differences.</summary>
    public IReadOnlyList<AdapterForeignTensor> Foreign { get; }

    /// <summary>The modules with tensors of other kinds of adapters; alpha is their own, or that of LoKr beside them.</summary>
    internal IReadOnlyList<AdapterFileModule> Others => _others.Value;

    /// <summary>Whether a configuration came with the file, in adapter_config.json or in the header.</summary>
    public bool HasConfig => Configs.Count + LowRank.Count > 0;

    /// <summary>Whether PEFT's conventions apply. Other programs put PEFT's prefix before names too; their files have alpha tensors, and no configuration.</summary>
    internal bool FollowsPeft => AdapterLayouts.IsPeft(Layout) && (HasConfig || Modules.All(static module => module.Alpha is null));

    /// <summary>Metadata of the header.</summary>
    public IReadOnlyDictionary<string, string> Metadata => _reader.Metadata;

    /// <summary>Every tensor by its name in the file.</summary>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries => _reader.Entries;

    /// <summary>
    /// Names of the labels of the classifier that the adapter was made for, in the order of its outputs; null where the file does not say.
    /// </summary>
    public IReadOnlyList<string>? Labels => BaseModels.Values.Select(static model => model.Labels).FirstOrDefault(static labels => labels is not null);

    /// <summary>Problems with names and configurations. <see cref="AdapterValidator"/> adds those of shapes and scales.</summary>
    public IReadOnlyList<LoKrAdapterFinding> Findings { get; }

    /// <summary>Messages of the warnings among <see cref="Findings"/>.</summary>
    public IEnumerable<string> Warnings => Findings.Where(static finding => finding.Severity == LoKrFindingSeverity.Warning).Select(static finding => finding.Message);

    /// <summary>Configurations by component.</summary>
    internal IReadOnlyDictionary<AdapterComponent, LoKrConfig> Configs { get; }

    /// <summary>Configurations of LoRA or LoHa by component.</summary>
    internal IReadOnlyDictionary<AdapterComponent, LowRankConfig> LowRank { get; }

    /// <summary>Identities of the models that the adapter was made for, by component, as far as this library wrote it into the header.</summary>
    internal IReadOnlyDictionary<AdapterComponent, ModelIdentity> BaseModels { get; }

    /// <summary>Dotted names of modules that this library stored in the header of a file with underscores: prefix and underscored name → dotted name.</summary>
    internal IReadOnlyDictionary<string, string> OriginalNames { get; }

    /// <summary>The decompose factor that a configuration or a trainer's metadata names, or null.</summary>
    internal int? FactorHint { get; }

    /// <summary>The rank that kohya's trainers name in the header; null where there is none.</summary>
    internal long? NetworkRank => Metadata.TryGetValue("ss_network_dim", out string? text) && long.TryParse(text, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out long rank) && rank > 0 ? rank : null;

    /// <summary>The tensors, by their names in the file.</summary>
    internal ITensorSource Tensors => _reader;

    /// <summary>The model that the adapter was made for, by the names of its modules; null where no table has them.</summary>
    internal RecognizedModel? Model => _model.Value;

    /// <summary>Opens a safetensors file, or a folder with one.</summary>
    /// <param name="path">A file; a folder that PEFT wrote; a folder with one safetensors file.</param>
    /// <param name="layout">The layout, where names are misleading; null to detect it.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.PathNotFound</c>, <c>LoKr.AdapterFileNotFound</c>, <c>LoKr.PickleRefused</c>, and the errors of
    /// <see cref="SafetensorsReader.Open"/> and <see cref="LoKrConfigJson.Read"/>. Problems with names are <see cref="Findings"/> instead.
    /// </exception>
    public static AdapterFile Open(string path, AdapterLayout? layout = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string full = System.IO.Path.GetFullPath(path);

        // A file beside a configuration is of the version of its folder too.
        string folder = Directory.Exists(full) ? full : System.IO.Path.GetDirectoryName(full) ?? full;
        return FolderVersion.Read(folder, () => OpenVersion(full, layout), static opened => opened.Dispose());
    }

    private static AdapterFile OpenVersion(string path, AdapterLayout? layout)
    {
        (string weights, string? config) = AdapterFileLocator.Find(path);
        SafetensorsReader reader = SafetensorsReader.Open(weights);
        try
        {
            AdapterFileConfigs configs = AdapterFileConfigs.Read(config, reader);
            AdapterFileParser parser = AdapterFileParser.Parse(reader, layout, configs);
            return new(config is null ? weights : System.IO.Path.GetDirectoryName(weights)!, reader, parser, configs) { ConfigPath = config };
        }
        catch
        {
            reader.Dispose();
            throw;
        }
    }

    /// <summary>Every tensor under the name that it has in a PEFT folder without the prefix, with its name in the file.</summary>
    internal IEnumerable<KeyValuePair<string, string>> TensorNames => SavedTensors.Concat(Modules.SelectMany(static module =>
        module.Tensors.Select(tensor => KeyValuePair.Create(ModuleTree.Join(module.Name, tensor.Key), tensor.Value.Name))))
        .Concat(Foreign.Select(static tensor => KeyValuePair.Create(ModuleTree.Join(tensor.Module, tensor.Suffix), tensor.Entry.Name)));

    /// <summary>The configuration of a component: its own, or the one of the whole file; null without one.</summary>
    public LoKrConfig? ConfigOf(AdapterComponent component) =>
        Configs.GetValueOrDefault(component) ?? Configs.GetValueOrDefault(AdapterComponent.Model);

    /// <summary>The configuration of LoRA or LoHa of a component: its own, or the one of the whole file; null without one.</summary>
    internal LowRankConfig? LowRankOf(AdapterComponent component) => LowRank.GetValueOrDefault(component) ?? LowRank.GetValueOrDefault(AdapterComponent.Model);

    /// <inheritdoc/>
    public void Dispose() => _reader.Dispose();

    private IReadOnlyList<AdapterFileModule> ReadOthers()
    {
        Dictionary<(AdapterComponent, string), double?> alphas = Modules.ToDictionary(static module => (module.Component, module.Name), static module => module.Alpha);
        return [.. Foreign.GroupBy(static tensor => (tensor.Component, tensor.Module)).Select(group =>
        {
            Dictionary<string, SafetensorsEntry> tensors = group.ToDictionary(static tensor => tensor.Suffix, static tensor => tensor.Entry, StringComparer.Ordinal);
            double? alpha = tensors.TryGetValue(AdapterSuffixes.Alpha, out SafetensorsEntry? stored) ? _reader.ReadNumber(stored.Name) : alphas.GetValueOrDefault(group.Key);
            return new AdapterFileModule(group.Key.Component, group.Key.Module, tensors, alpha);
        })];
    }
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

/// <summary>A tensor of another kind of adapter beside the factors of a file.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Module">Name of the module as the file has it, without the layout's prefix.</param>
/// <param name="Suffix">The rest of the name: <c>lora_up.weight</c>, <c>diff</c>, <c>hada_w1_a</c>, alpha beside these, and so on.</param>
/// <param name="Kind">The kind, for people.</param>
/// <param name="Entry">Its entry in the header.</param>
public sealed record AdapterForeignTensor(AdapterComponent Component, string Module, string Suffix, string Kind, SafetensorsEntry Entry);

/// <summary>Finds the file of weights that a path stands for, and the configuration beside it.</summary>
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

        ModelLinks links = new(path);
        string peft = Path.Combine(path, PeftAdapterFolder.ConfigFile);
        if (File.Exists(peft))
        {
            return (PeftAdapterFolder.RequireWeights(path), links.Check(peft));
        }

        string diffusers = Path.Combine(path, AdapterFile.DiffusersFile);
        if (File.Exists(diffusers))
        {
            return (links.Check(diffusers), null);
        }

        string[] files = Directory.GetFiles(path, "*.safetensors");
        if (files.Length == 1)
        {
            return (links.Check(files[0]), null);
        }

        if (files.Length == 0)
        {
            PickleGuard.ThrowIfOnlyPickles(path, "adapter_model", "pytorch_lora_weights");
        }

        throw files.Length > 1 && !File.Exists(Path.Combine(path, "config.json"))
            ? PeftAdapterFolder.Missing(peft, $"The folder has {files.Length} safetensors files; name one of them.")
            : PeftAdapterFolder.NoAdapter(path, "Name an adapter folder or a safetensors file.");
    }
}
