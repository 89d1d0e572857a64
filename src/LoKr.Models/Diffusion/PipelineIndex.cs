using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Models.Diffusion;

/// <summary>
/// <c>model_index.json</c> of a diffusers folder: the class of the pipeline and of its components, each in a folder of its name.
/// </summary>
internal sealed class PipelineIndex
{
    /// <summary>Name of the file.</summary>
    public const string FileName = "model_index.json";

    private const string Plain = "StableDiffusionPipeline";
    private const string Large = "StableDiffusionXLPipeline";

    private static readonly Dictionary<string, string[]> s_needed = new(StringComparer.Ordinal)
    {
        ["text_encoder"] = ["CLIPTextModel"],
        ["tokenizer"] = ["CLIPTokenizer", "CLIPTokenizerFast"],
        ["unet"] = [nameof(UNet2DConditionModel)],
        ["vae"] = [nameof(AutoencoderKL)],
        ["scheduler"] = [],
    };

    private static readonly Dictionary<string, string[]> s_neededByLarge = new(StringComparer.Ordinal)
    {
        ["text_encoder_2"] = ["CLIPTextModelWithProjection"],
        ["tokenizer_2"] = ["CLIPTokenizer", "CLIPTokenizerFast"],
    };

    // Components that classify or embed images; adapters and training do not need them.
    private static readonly string[] s_unused = ["safety_checker", "feature_extractor", "image_encoder"];

    private readonly Dictionary<string, string?> _classes = new(StringComparer.Ordinal);

    private PipelineIndex(string folder, ModelConfig config)
    {
        Folder = folder;
        Config = config;
        ClassName = config.GetString(ModelConfig.ClassNameKey);
        if (ClassName is not (Plain or Large))
        {
            throw Unsupported(ModelConfig.ClassNameKey, $"The pipeline in '{folder}' is a {ClassName}.", $"{Plain} and {Large} are supported.");
        }

        foreach ((string name, JsonElement value) in config.Members)
        {
            if (value.ValueKind == JsonValueKind.Array)
            {
                _classes.Add(name, ReadClass(name, value));
            }
        }

        Check();
    }

    /// <summary>Full path of the folder.</summary>
    public string Folder { get; }

    /// <summary>The file.</summary>
    public ModelConfig Config { get; }

    /// <summary>Class of the pipeline.</summary>
    public string ClassName { get; }

    /// <summary>Whether there are two text encoders.</summary>
    public bool IsLarge => ClassName == Large;

    /// <summary>Components that are in the folder.</summary>
    public IReadOnlyList<string> Components => [.. _classes.Where(item => item.Value is not null && Directory.Exists(PathOf(item.Key))).Select(item => item.Key)];

    /// <summary>Components in the folder that are not used.</summary>
    public IReadOnlyList<string> Unused => [.. s_unused.Where(Components.Contains)];

    /// <summary>Whether a folder is a pipeline.</summary>
    public static bool Exists(string folder) => File.Exists(Path.Combine(folder, FileName));

    /// <summary>Reads and checks the file of a folder.</summary>
    public static PipelineIndex Read(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        string full = Path.GetFullPath(folder);
        if (!Directory.Exists(full))
        {
            throw new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound, $"The folder '{full}' does not exist.", $"Name the folder that contains {FileName}.") { Target = full };
        }

        return Exists(full)
            ? new PipelineIndex(full, ModelConfig.Read(ModelLinks.Check(full, Path.Combine(full, FileName))))
            : throw new LoKrException(ErrorIds.PipelineNotFound, LoKrErrorKind.NotFound, $"'{full}' has no {FileName} and is therefore not a diffusers pipeline.",
                "Name the folder that contains unet, vae, text_encoder, tokenizer and scheduler, as save_pretrained of a pipeline writes it.") { Target = full };
    }

    /// <summary>Full path of a component's folder.</summary>
    public string PathOf(string name) => Path.Combine(Folder, name);

    /// <summary>Bytes of the weights of all components that are loaded.</summary>
    public long WeightBytes => Components.Except(s_unused, StringComparer.Ordinal).Sum(WeightBytesOf);

    /// <summary>Bytes of the weights in a component's folder, in every type that lies there.</summary>
    public long WeightBytesOf(string name) => new DirectoryInfo(PathOf(name)).EnumerateFiles("*.safetensors").Sum(static file => file.Length);

    /// <summary>Class of a component in the folder.</summary>
    public string ClassOf(string name) => _classes[name]!;

    // [library, class], or [null, null] for a component that is left out.
    private string? ReadClass(string name, JsonElement component)
    {
        if (component.GetArrayLength() == 2 && component.EnumerateArray().All(static part => part.ValueKind == JsonValueKind.Null))
        {
            return null;
        }

        return component.GetArrayLength() == 2 && component[1].ValueKind == JsonValueKind.String
            ? Config.AsString(component[1], name)
            : throw new LoKrException(ErrorIds.PipelineInvalid, LoKrErrorKind.InvalidData,
                $"'{name}' of '{Config.Source}' is {component.GetRawText()}, not the library and the class of a component.", "Get the pipeline again.") { Target = name };
    }

    private void Check()
    {
        Dictionary<string, string[]> needed = IsLarge ? s_needed.Concat(s_neededByLarge).ToDictionary(StringComparer.Ordinal) : s_needed;
        foreach ((string name, string[] built) in needed)
        {
            if (_classes.GetValueOrDefault(name) is not string className)
            {
                throw Missing(name, $"A {ClassName} needs the component '{name}', which '{Config.Source}' does not list.");
            }

            if (!Directory.Exists(PathOf(name)))
            {
                throw Missing(name, $"'{Config.Source}' lists the component '{name}', but the folder '{PathOf(name)}' does not exist.");
            }

            ModelLinks.Check(Folder, PathOf(name));
            if (built.Length > 0 && !built.Contains(className, StringComparer.Ordinal))
            {
                throw Unsupported(name, $"The component '{name}' of '{Folder}' is a {className}.", $"Supported is {string.Join(" or ", built)}.");
            }
        }

        foreach ((string name, string? className) in _classes)
        {
            if (className is not null && !needed.ContainsKey(name) && !s_unused.Contains(name, StringComparer.Ordinal))
            {
                throw Unsupported(name, $"The component '{name}' of '{Folder}' ({className}) has no place in a {ClassName}.", $"Known are {string.Join(", ", needed.Keys.Concat(s_unused))}.");
            }
        }
    }

    private static LoKrException Missing(string name, string message) => new(
        ErrorIds.PipelineComponentMissing, LoKrErrorKind.NotFound, message, "The download is incomplete; get the missing folder.") { Target = name };

    private static LoKrException Unsupported(string target, string message, string advice) => new(
        ErrorIds.PipelineUnsupported, LoKrErrorKind.NotSupported, message, advice) { Target = target };
}
