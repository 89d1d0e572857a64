using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Tokenization;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Loading;

/// <summary>Builds a model from a Hugging Face folder: config.json → module tree on <c>meta</c> → weights read straight into place, frozen.</summary>
public static class ModelLoader
{
    private static readonly string[] s_quantizations = ["fp8", "fbgemm_fp8", "bitsandbytes", "compressed-tensors"];

    /// <summary>Loads a folder; <see cref="LoadWithReport"/> also reports what was skipped or initialized.</summary>
    /// <param name="folder">Folder with config.json and safetensors.</param>
    /// <param name="options">Labels, type and device; null for the defaults.</param>
    public static LoKrModel Load(string folder, ModelLoadOptions? options = null) => LoadWithReport(folder, options).Model;

    /// <summary>Loads a folder and reports what was skipped or initialized. The model is in evaluation mode and takes no gradients.</summary>
    /// <param name="folder">Folder with config.json and safetensors.</param>
    /// <param name="options">Labels, type and device; null for the defaults.</param>
    /// <param name="cancellationToken">Checked before every tensor.</param>
    /// <exception cref="LoKrException">
    /// The folder, config.json or the weights are missing or damaged, the architecture is unknown, the weights do not fit it,
    /// or the labels are not those of the checkpoint's head; <see cref="LoKrException.ErrorId"/> says which.
    /// </exception>
    public static ModelLoadResult LoadWithReport(string folder, ModelLoadOptions? options = null, CancellationToken cancellationToken = default)
    {
        options ??= new ModelLoadOptions();
        using ModelFiles files = FolderVersion.Read(folder, () => Open(folder, CrossEncoderConfig.Complete(ModelConfig.Load(folder), folder), options), static opened => opened.Dispose());
        return Load(files, options, cancellationToken);
    }

    /// <summary>The same for a folder whose configuration has been read.</summary>
    internal static ModelLoadResult LoadConfigured(string folder, ModelConfig config, ModelLoadOptions options, CancellationToken cancellationToken = default)
    {
        using ModelFiles files = Open(folder, config, options);
        return Load(files, options, cancellationToken);
    }

    // Everything that is read by name; the weights stay open, so that they are those of this version of the folder however long they take.
    private static ModelFiles Open(string folder, ModelConfig config, ModelLoadOptions options)
    {
        ModelArchitecture architecture = Resolve(config, options.Task is TaskType.FeatureExtraction ? null : options.Task, options.Labels, options.Architectures);
        folder = Path.GetFullPath(folder);
        List<string> warnings = [];
        SentenceSettings? sentences = SentenceEncoders.FindSettings(folder, config, options, warnings);

        TorchRuntime.EnsureLoaded();
        CheckpointReader source = CheckpointReader.Open(folder, architecture.Layout.WeightsName);
        try
        {
            ConfigSizes.Check(config, source);
            architecture = sentences is null ? architecture : SentenceEncoders.Architect(config, source, sentences, options.Architectures);
            ScalarType dtype = ChooseDType(source, config, options, warnings);
            ITensorSource values = source;
            if (source.FindQuantized() is (ITensorSource dequantized, IReadOnlyDictionary<string, int> formats))
            {
                values = dequantized;
                warnings.Add($"{formats.Values.Sum()} weights of '{folder}' are quantized ({string.Join(", ", formats.Select(static format => $"{format.Value} {format.Key}"))}); their values are read as {dtype}, and the model takes the memory of one that is not quantized.");
            }

            IReadOnlyList<string>? labels = architecture.Layout.LabelWeight is null
                ? null
                : ClassificationLabels.Resolve(config, options.Labels, CheckpointMap.HeadRows(values, architecture, config));
            if (labels is { Count: 1 })
            {
                CrossEncoderConfig.Check(config);
            }

            ITextTokenizer? tokenizer = options.WithTokenizer && architecture.TakesTokens ? LoadTokenizer(folder, config, warnings) : null;
            return new ModelFiles(folder, config, architecture, source, values, dtype, labels, tokenizer, warnings);
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    private static ModelLoadResult Load(ModelFiles files, ModelLoadOptions options, CancellationToken cancellationToken)
    {
        (string folder, ModelConfig config, ModelArchitecture architecture, CheckpointReader source, ITensorSource values, ScalarType dtype, IReadOnlyList<string>? labels, ITextTokenizer? tokenizer, List<string> warnings) = files;
        nn.Module module = architecture.Build(config, new ModelBuildOptions { Labels = labels, PadId = tokenizer?.PadId, DType = dtype });
        try
        {
            CheckpointMap map = Fill(module, source, values, architecture, config, options, dtype, cancellationToken);
            Describe(map, architecture, labels, warnings);
            Finish(module);
            return new ModelLoadResult(new LoKrModel(module, folder, tokenizer, map.Fresh, CheckpointFingerprint.Compute(source)), map.Fresh, map.Skipped, warnings);
        }
        catch
        {
            module.Dispose();
            throw;
        }
    }

    /// <summary>Builds the module tree of a configuration without weights, on <c>meta</c> unless the options say otherwise.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="options">Labels, device and type.</param>
    /// <returns>The root module, an <see cref="IPretrainedModel"/>, frozen and in evaluation mode; its values are undefined.</returns>
    public static nn.Module Build(ModelConfig config, ModelBuildOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        ModelArchitecture architecture = Resolve(config, options?.Task, options?.Labels, ArchitectureRegistry.Default);
        ConfigSizes.Check(config, checkpoint: null);
        TorchRuntime.EnsureLoaded();
        nn.Module module = architecture.Build(config, options ?? new ModelBuildOptions());
        Finish(module);
        return module;
    }

    private static ModelArchitecture Resolve(ModelConfig config, TaskType? task, IReadOnlyList<string>? labels, ArchitectureRegistry architectures)
    {
        ModelArchitecture architecture = task is TaskType wanted ? architectures.GetForTask(config, wanted)
            : labels is null ? architectures.Get(config)
            : architectures.GetClassifier(config);
        if (labels is not null && architecture.Layout.LabelWeight is null)
        {
            throw ArchitectureRegistry.WithoutLabels(architecture, config);
        }

        return IsReadable(config) ? architecture
            : throw config.Unsupported(ModelConfig.QuantizationKey, $"says that the weights are quantized in a way that is not read ({string.Join(", ", s_quantizations)} are); use the model's float32, float16 or bfloat16 weights");
    }

    // Whether the weights are stored in formats whose values can be read; each weight is checked when it is.
    private static bool IsReadable(ModelConfig config) => config.Peek(ModelConfig.QuantizationKey) is not { } quantization
        || (quantization is { ValueKind: JsonValueKind.Object } && quantization.TryGetProperty("quant_method", out JsonElement method)
            && method.ValueKind == JsonValueKind.String && s_quantizations.Contains(method.GetString()));

    private static CheckpointMap Fill(
        nn.Module module,
        CheckpointReader source,
        ITensorSource values,
        ModelArchitecture architecture,
        ModelConfig config,
        ModelLoadOptions options,
        ScalarType dtype,
        CancellationToken cancellationToken)
    {
        IReadOnlyDictionary<string, string> tied = ((IPretrainedModel)module).TiedParameters;
        Dictionary<string, long[]> shapes = ModuleParameters.List(module, tied)
            .ToDictionary(item => item.Name, item => item.Parameter.shape, StringComparer.Ordinal);
        CheckpointMap map = CheckpointMap.Create(values, shapes, tied, architecture, config);

        if (module is IPublishedNames named && map.HasPublishedNames is bool published)
        {
            named.SavesPublishedNames = published;
        }

        WeightFiller filler = new(module, options.Device ?? CPU, dtype);
        filler.Read(source, values, map.Mapped, shapes, options.SharePages, options.OnProgress, cancellationToken);

        foreach ((string duplicate, string saved) in tied)
        {
            if (values.Entries.ContainsKey(duplicate))
            {
                filler.CheckSame(values, duplicate, saved);
            }
        }

        using Generator? generator = options.Seed is { } seed ? new Generator(unchecked((ulong)seed), CPU) : null;
        foreach (string name in map.Fresh)
        {
            filler.Initialize(name, shapes[name], config.GetDouble("initializer_range", 0.02), generator);
        }

        return map;
    }

    private sealed record ModelFiles(
        string Folder, ModelConfig Config, ModelArchitecture Architecture, CheckpointReader Source, ITensorSource Values, ScalarType DType, IReadOnlyList<string>? Labels, ITextTokenizer? Tokenizer, List<string> Warnings) : IDisposable
    {
        public void Dispose() => Source.Dispose();
    }

    // Ties come last: until then a duplicate holds a parameter of its own on meta, which takes no memory.
    private static void Finish(nn.Module module)
    {
        ModuleParameters.Tie(module, ((IPretrainedModel)module).TiedParameters);
        foreach (Parameter parameter in module.parameters())
        {
            parameter.requires_grad = false;
        }

        module.eval();
    }

    private static ScalarType ChooseDType(CheckpointReader source, ModelConfig config, ModelLoadOptions options, List<string> warnings)
    {
        bool onCpu = options.Device is null || options.Device.type == TorchSharp.DeviceType.CPU;
        if (options.DType is { } wanted)
        {
            if (wanted is not (ScalarType.Float32 or ScalarType.BFloat16 or ScalarType.Float16))
            {
                throw new LoKrException(ErrorIds.DTypeNotSupported, LoKrErrorKind.InvalidArgument,
                    $"Models do not run in {wanted}.", "Use float32, bfloat16 or float16.") { Target = wanted };
            }

            if (onCpu && wanted != ScalarType.Float32)
            {
                warnings.Add($"{wanted} on the CPU is many times slower than float32.");
            }

            return wanted;
        }

        if (onCpu)
        {
            return ScalarType.Float32;
        }

        ScalarType stored = config.DType ?? source.Entries.Values.Select(entry => entry.DType switch
        {
            SafetensorsDType.F16 => ScalarType.Float16,
            SafetensorsDType.BF16 => ScalarType.BFloat16,
            _ => ScalarType.Float32,
        }).FirstOrDefault(ScalarType.Float32);
        return stored == ScalarType.Float64 ? ScalarType.Float32 : stored;
    }

    // A folder without a tokenizer is a model for token ids; a damaged or unsupported tokenizer is an error.
    internal static ITextTokenizer? LoadTokenizer(string folder, ModelConfig config, List<string> warnings)
    {
        if (TokenizerLoader.Find(folder) is null)
        {
            warnings.Add($"'{folder}' has no tokenizer: the model takes token ids, not text.");
            return null;
        }

        ITextTokenizer tokenizer = TokenizerLoader.Load(folder);
        if (config.FindInt("vocab_size") is { } size && tokenizer.VocabularySize > size)
        {
            warnings.Add($"The tokenizer has {tokenizer.VocabularySize} ids, but the model has embeddings for {size} only: texts with the others will fail.");
        }

        return tokenizer;
    }

    private static void Describe(CheckpointMap map, ModelArchitecture architecture, IReadOnlyList<string>? labels, List<string> warnings)
    {
        string[] head = [.. map.Fresh.Where(name => architecture.Layout.HeadPrefixes.Any(prefix => name.StartsWith(prefix, StringComparison.Ordinal)))];
        if (head.Length > 0)
        {
            warnings.Add($"The checkpoint has no classification head: {string.Join(", ", head)} were initialized for "
                + $"{labels!.Count} labels ({string.Join(", ", labels)}). Train them before use.");
        }

        string[] other = [.. map.Fresh.Except(head, StringComparer.Ordinal)];
        if (other.Length > 0)
        {
            warnings.Add($"The checkpoint lacks {string.Join(", ", other)}: they were initialized. Train them before use.");
        }

        if (map.Skipped.Count > 0)
        {
            warnings.Add($"{architecture.Name} has no place for {map.Skipped.Count} tensors of the checkpoint, which were skipped: {string.Join(", ", map.Skipped)}.");
        }
    }
}

/// <summary>Options of loading a model.</summary>
public sealed record ModelLoadOptions
{
    /// <summary>Task of the head; null takes the class that config.json names, or with labels one that classifies texts.</summary>
    public TaskType? Task { get; init; }

    /// <summary>Labels of the classification head in the order of the logits; null takes those of the checkpoint.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>
    /// Float32, BFloat16 or Float16; null takes the checkpoint's type on a GPU and float32 on the CPU, where half precision is many times slower.
    /// </summary>
    public ScalarType? DType { get; init; }

    /// <summary>Device of the model; null for the CPU.</summary>
    public Device? Device { get; init; }

    /// <summary>
    /// How the vectors of tokens become that of a text, which makes the model a sentence encoder. Null takes what the folder says
    /// (<c>modules.json</c>); without that and without labels an encoder whose configuration names no head takes the mean, as sentence-transformers.
    /// </summary>
    public IReadOnlyList<SentencePooling>? Pooling { get; init; }

    /// <summary>Whether vectors of a sentence encoder are scaled to length one; null for what the folder says, else not.</summary>
    public bool? Normalize { get; init; }

    /// <summary>Whether the folder's tokenizer is read too.</summary>
    public bool WithTokenizer { get; init; } = true;

    /// <summary>Seed of weights that the checkpoint lacks (a new head); null draws from torch's global generator.</summary>
    public long? Seed { get; init; }

    /// <summary>
    /// Whether weights on the CPU that need no conversion stay in the pages of the file, which all processes that load the folder share, until something
    /// writes to them. The files must then be replaced by renaming, not overwritten, while the model lives.
    /// </summary>
    public bool SharePages { get; init; }

    /// <summary>Called after every tensor with the share of the bytes that are read, on any thread; null for no reports.</summary>
    public Action<double>? OnProgress { get; init; }

    /// <summary>The known architectures; those of this library unless a program adds its own.</summary>
    public ArchitectureRegistry Architectures { get; init; } = ArchitectureRegistry.Default;
}

/// <summary>A loaded model and a report on its checkpoint.</summary>
/// <param name="Model">The model; the caller owns it.</param>
/// <param name="FreshParameters">Parameters that the checkpoint lacks and that were initialized.</param>
/// <param name="SkippedKeys">Keys of the checkpoint without a parameter in the model.</param>
/// <param name="Warnings">The same, and what else the user should know, in sentences.</param>
public sealed record ModelLoadResult(
    LoKrModel Model,
    IReadOnlyList<string> FreshParameters,
    IReadOnlyList<string> SkippedKeys,
    IReadOnlyList<string> Warnings);
