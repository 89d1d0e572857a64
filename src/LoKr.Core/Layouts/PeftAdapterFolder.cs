using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>
/// An adapter as PEFT saves it: <c>adapter_config.json</c> and <c>adapter_model.safetensors</c>, whose names carry the prefix
/// <c>base_model.model.</c>. Holds the file open until disposed.
/// </summary>
public sealed class PeftAdapterFolder : IDisposable
{
    /// <summary>Name of the configuration file.</summary>
    public const string ConfigFile = "adapter_config.json";

    /// <summary>Name of the file of weights.</summary>
    public const string WeightsFile = "adapter_model.safetensors";

    /// <summary>Prefix of every name in the file.</summary>
    public const string Prefix = "base_model.model.";

    private const string NameFolder = "Name a folder that PEFT or this library saved an adapter in.";

    // What transformers and diffusers describe a model in.
    private static readonly string[] s_modelFiles = ["config.json", "model_index.json"];

    private PeftAdapterFolder(string path, LoKrConfig config, IReadOnlyList<string> warnings, ITensorSource tensors)
    {
        Path = path;
        Config = config;
        Warnings = warnings;
        Tensors = tensors;
    }

    /// <summary>Full path of the folder.</summary>
    public string Path { get; }

    /// <summary>The configuration.</summary>
    public LoKrConfig Config { get; }

    /// <summary>Notes about the configuration, such as keys that are not understood.</summary>
    public IReadOnlyList<string> Warnings { get; }

    /// <summary>The tensors, named without the prefix: <c>MODULE.lokr_w1</c>, <c>classifier.weight</c>.</summary>
    public ITensorSource Tensors { get; }

    /// <summary>Opens a folder.</summary>
    /// <exception cref="LoKrException">
    /// <c>LoKr.PathNotFound</c>, <c>LoKr.AdapterFileNotFound</c>, <c>LoKr.PickleRefused</c>, <c>LoKr.AdapterKeyInvalid</c>, and the errors of
    /// <see cref="LoKrConfigJson.Read"/> and <see cref="SafetensorsReader.Open"/>.
    /// </exception>
    public static PeftAdapterFolder Read(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        return FolderVersion.Read(folder, () => Open(folder), static opened => opened.Dispose());
    }

    private static PeftAdapterFolder Open(string folder)
    {
        LoKrConfig config = ReadConfig(folder, out IReadOnlyList<string> warnings);
        string full = System.IO.Path.GetFullPath(folder);
        string weights = RequireWeights(full);
        SafetensorsReader reader = SafetensorsReader.Open(weights);
        try
        {
            return new PeftAdapterFolder(full, config, warnings, new RenamedTensorSource(reader, weights, name => WrapperCopies.IsCopy(name, reader.Entries.ContainsKey) ? null : WithoutPrefix(name, weights)));
        }
        catch
        {
            reader.Dispose();
            throw;
        }
    }

    /// <summary>Reads the configuration only.</summary>
    /// <exception cref="LoKrException"><c>LoKr.PathNotFound</c>, <c>LoKr.AdapterFileNotFound</c>, and the errors of <see cref="LoKrConfigJson.Read"/>.</exception>
    public static LoKrConfig ReadConfig(string folder, out IReadOnlyList<string> warnings)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        string full = System.IO.Path.GetFullPath(folder);
        if (!Directory.Exists(full))
        {
            throw File.Exists(full) ? Missing(System.IO.Path.Combine(full, ConfigFile), "Name the folder of the adapter instead of a file in it.") : FileErrors.NotFound(full);
        }

        string path = System.IO.Path.Combine(full, ConfigFile);
        return File.Exists(path) ? LoKrConfigJson.Read(ModelLinks.Check(full, path), out warnings) : throw NoAdapter(full, NameFolder);
    }

    /// <summary>
    /// Writes a folder as PEFT does; it appears complete or not at all. Other files of an existing folder stay.
    /// </summary>
    /// <param name="folder">Where to write.</param>
    /// <param name="config">The configuration; PEFT saves with <see cref="LoKrConfig.InferenceMode"/> set.</param>
    /// <param name="tensors">Tensors by name without the prefix.</param>
    /// <param name="force">Replace an existing adapter.</param>
    /// <exception cref="LoKrException"><c>LoKr.DestinationExists</c>, <c>LoKr.FileNotWritable</c>, and the errors of <see cref="SafetensorsWriter.Write"/>.</exception>
    public static void Write(string folder, LoKrConfig config, IReadOnlyDictionary<string, torch.Tensor> tensors, bool force = false)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(tensors);
        Write(folder, config, tensors, new Dictionary<AdapterComponent, ModelIdentity>(), force);
    }

    /// <summary>The same with what is known about the base model.</summary>
    internal static void Write(
        string folder, LoKrConfig config, IReadOnlyDictionary<string, torch.Tensor> tensors, IReadOnlyDictionary<AdapterComponent, ModelIdentity> baseModels, bool force, string? fit = null) =>
        Write(folder, LoKrConfigJson.Write(config with { InferenceMode = true }), tensors, baseModels, force, fit);

    /// <summary>Writes a folder with a configuration of any kind of adapter.</summary>
    /// <param name="folder">Where to write.</param>
    /// <param name="config">Content of the configuration file.</param>
    /// <param name="tensors">Tensors by name without the prefix.</param>
    /// <param name="baseModels">What tells the base model apart from others. It goes into the header of the weights, which PEFT ignores; a key in the configuration that PEFT does not know is a warning there.</param>
    /// <param name="force">Replace an existing adapter.</param>
    /// <param name="fit">Errors of a fitted adapter for the header; null for none.</param>
    internal static void Write(
        string folder, string config, IReadOnlyDictionary<string, torch.Tensor> tensors, IReadOnlyDictionary<AdapterComponent, ModelIdentity> baseModels, bool force, string? fit = null)
    {
        Dictionary<string, string> metadata = new(StringComparer.Ordinal) { ["format"] = "pt" };
        if (AdapterFileConfigs.WriteBeside(new Dictionary<string, string>(), baseModels) is string own)
        {
            metadata[AdapterFileConfigs.OwnKey] = own;
        }

        if (fit is not null)
        {
            metadata[AdapterHeader.FitKey] = fit;
        }

        using StagedDirectory staged = new(folder, force, carryOver: true);
        Dictionary<string, torch.Tensor> named = tensors.ToDictionary(static pair => Prefix + pair.Key, static pair => pair.Value, StringComparer.Ordinal);
        SafetensorsWriter.Write(System.IO.Path.Combine(staged.Path, WeightsFile), named, metadata);
        AtomicFile.WriteText(System.IO.Path.Combine(staged.Path, ConfigFile), config);
        staged.Commit();
    }

    /// <inheritdoc/>
    public void Dispose() => Tensors.Dispose();

    /// <summary>The file of weights of a folder with a configuration.</summary>
    /// <exception cref="LoKrException">
    /// <c>LoKr.AdapterFileNotFound</c>; <c>LoKr.PickleRefused</c> where the weights are a pickle file; <c>LoKr.LinkOutsideFolder</c>.
    /// </exception>
    internal static string RequireWeights(string folder)
    {
        string weights = System.IO.Path.Combine(folder, WeightsFile);
        if (!File.Exists(weights))
        {
            PickleGuard.ThrowIfOnlyPickles(folder, "adapter_model");
            throw Missing(weights, NameFolder);
        }

        return ModelLinks.Check(folder, weights);
    }

    /// <summary>The error for a folder without a configuration.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="advice">Advice where the folders in it hold no adapters either.</param>
    internal static LoKrException NoAdapter(string folder, string advice)
    {
        // PEFT saves adapters that are not called "default" in folders of their own.
        string[] inside = [.. Directory.EnumerateDirectories(folder)
            .Where(static candidate => File.Exists(System.IO.Path.Combine(candidate, ConfigFile)))
            .Select(static candidate => System.IO.Path.GetFileName(candidate))
            .Order(StringComparer.Ordinal)];
        string? model = inside.Length > 0 ? null : Array.Find(s_modelFiles, file => File.Exists(System.IO.Path.Combine(folder, file)));
        return model is not null ? new(ErrorIds.AdapterFileNotFound, LoKrErrorKind.NotFound, $"'{folder}' is a model, not an adapter: it has {model} and no {ConfigFile}.", NameFolder) { Target = folder } : Missing(System.IO.Path.Combine(folder, ConfigFile), inside.Length > 0 ? $"There are adapters in its folders: {string.Join(", ", inside)}." : advice);
    }

    /// <summary>The error for a file of an adapter that does not exist.</summary>
    internal static LoKrException Missing(string path, string advice) =>
        new(ErrorIds.AdapterFileNotFound, LoKrErrorKind.NotFound, $"There is no '{path}'.", advice) { Target = path };

    /// <summary>The error for a tensor that PEFT has not named.</summary>
    internal static LoKrException NoPrefix(string name, string file) => new(
        ErrorIds.AdapterKeyInvalid, LoKrErrorKind.InvalidData, $"Tensor '{name}' in '{file}' does not start with '{Prefix}', as every tensor that PEFT saves does.",
        "The file may be from another program than PEFT.") { Target = name };

    private static string WithoutPrefix(string name, string file) => name.Length > Prefix.Length && name.StartsWith(Prefix, StringComparison.Ordinal)
        ? name[Prefix.Length..]
        : throw NoPrefix(name, file);
}
