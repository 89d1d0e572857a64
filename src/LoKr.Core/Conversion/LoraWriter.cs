using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Conversion;

/// <summary>
/// Writes an adapter as LoRA under the names of a program: a folder of PEFT, a folder of diffusers for the parts of a pipeline, or one file of kohya's kind.
/// </summary>
internal static class LoraWriter
{
    /// <summary>Ranks that vLLM can be started with (<c>--max-lora-rank</c>).</summary>
    public static readonly IReadOnlyList<int> VllmRanks = [1, 8, 16, 32, 64, 128, 256, 320, 512];

    /// <summary>Converts and writes.</summary>
    /// <param name="destination">Full path of a folder, or of a file that ends with .safetensors.</param>
    /// <param name="content">The adapter.</param>
    /// <param name="layerOf">The layer of a module where the model is in memory, else null.</param>
    /// <param name="rank">Rank of the layers.</param>
    /// <param name="options">Program, and whether to replace.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException"><c>LoKr.LoraConversionNotSupported</c>, <c>LoKr.ConversionUnsupported</c>, <c>LoKr.RankInvalid</c>, and the errors of writing.</exception>
    public static LoraWriteResult Write(
        string destination, AdapterContent content, Func<AdapterModule, BaseLayer?> layerOf, LoraRank rank, LoraWriteOptions options, CancellationToken cancellation)
    {
        Check(content);
        LoraForm form = Form(destination, content, options.Program);
        if (form == LoraForm.File)
        {
            FileSystem.CheckReplaceable(destination, options.Force);
        }
        else if (options.CheckOnly)
        {
            StagedDirectory.Check(destination, options.Force, carryOver: true);
        }

        if (options.Program == AdapterProgram.Vllm)
        {
            CheckForVllm(content);
            rank = rank with { Accepted = VllmRanks, Patterned = false };
        }

        // Only a folder of PEFT has a place for the scale of matrices that are kept.
        rank = form == LoraForm.Peft ? rank : rank with { KeepsLora = false };
        Func<AdapterModule, string> nameOf = Names(form, content, options);
        Dictionary<AdapterModule, BaseLayer?> layers = content.Modules.ToDictionary(static module => module, layerOf);
        LoraSource[] sources = [.. content.Modules.Select(module => Source(module, nameOf(module), layers[module], form))];
        using LoraAdapter lora = LoraConverter.Convert(Config(content, isRenamed: content.Modules.Any(module => nameOf(module) != module.Name)), sources, content.Saved, rank, layers.Values.Any(static layer => layer is TransposedLinearBaseLayer), cancellation);
        lora.BaseModels = content.BaseModels;
        IReadOnlyList<string> warnings = options.CheckOnly ? [] : form switch
        {
            LoraForm.Peft => PeftLoraFolder.Write(destination, lora, options.Force),
            LoraForm.Diffusers => WriteDiffusers(destination, lora, options.Force),
            _ => WriteFile(destination, lora, options),
        };
        return new(LoraConversionResult.Of(destination, lora), warnings);
    }

    /// <summary>Converts an adapter for a file that has its own names: the matrices are float32, and each layer has its own rank.</summary>
    /// <param name="content">The adapter.</param>
    /// <param name="rank">Rank of the layers.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException"><c>LoKr.LoraConversionNotSupported</c>, <c>LoKr.AdapterModulesUnknown</c>, <c>LoKr.RankInvalid</c>.</exception>
    public static LoraAdapter Convert(AdapterContent content, LoraRank rank, CancellationToken cancellation)
    {
        Check(content);
        CheckDotted(content);
        LoraSource[] sources = [.. content.Modules.Select(static module => Source(module, module.Name, layer: null, LoraForm.Peft).In(torch.ScalarType.Float32))];
        return LoraConverter.Convert(Config(content, isRenamed: false), sources, content.Saved, rank with { Patterned = true }, cancellation: cancellation);
    }

    private static void Check(AdapterContent content)
    {
        if (content.Modules.Count == 0)
        {
            throw NotSupported("The adapter", "it has no module with factors");
        }

        if (content.Norms.Count > 0)
        {
            throw NotSupported($"'{content.Norms[0].Name}'", "LoRA does not support changes of norms");
        }

        if (content.Modules.FirstOrDefault(static module => module.DoraAxis is not null) is AdapterModule decomposed)
        {
            throw NotSupported($"'{decomposed.Name}'", "DoRA's magnitudes depend on the base weight, which LoRA's two matrices cannot express");
        }
    }

    private static void CheckForVllm(AdapterContent content)
    {
        if (content.Saved.Count > 0)
        {
            throw NotSupported("The adapter", $"vLLM refuses modules that are saved whole: {string.Join(", ", content.Saved.Keys.Order(StringComparer.Ordinal))}");
        }

        if (content.Modules.FirstOrDefault(static module => module.Kernel is { Count: > 0 }) is AdapterModule convolution)
        {
            throw NotSupported($"'{convolution.Name}'", "vLLM has LoRA on linear layers only");
        }
    }

    private static LoraForm Form(string destination, AdapterContent content, AdapterProgram? program)
    {
        bool isFile = destination.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase);
        bool isPipeline = content.Components.Any(static component => component != AdapterComponent.Model) || PublishedNames.Recognize(content) is not null;
        LoraForm form = program switch
        {
            AdapterProgram.Peft or AdapterProgram.Vllm => LoraForm.Peft,
            AdapterProgram.Diffusers => isFile ? LoraForm.File : LoraForm.Diffusers,
            null => isFile ? LoraForm.File : isPipeline ? LoraForm.Diffusers : LoraForm.Peft,
            _ => LoraForm.File,
        };
        if ((form == LoraForm.File) != isFile)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                form == LoraForm.File ? $"'{destination}' is not the name of a safetensors file, and {program} loads LoRA from one file." : $"'{destination}' is the name of a file, and {program} loads LoRA from a folder.",
                form == LoraForm.File ? "End the name with .safetensors." : "Give the name of a folder.") { Target = destination };
        }

        if (form == LoraForm.Peft && content.Components.Count > 1)
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"The adapter has modules of {string.Join(", ", content.Components)}, and a LoRA folder of PEFT holds one model.", "Name the component to convert.");
        }

        return form != LoraForm.Peft && content.Saved.Count > 0
            ? throw NotSupported("The adapter", $"only a LoRA folder of PEFT has modules that are saved whole: {string.Join(", ", content.Saved.Keys.Order(StringComparer.Ordinal))}")
            : form;
    }

    /// <summary>Name of a module in the file.</summary>
    private static Func<AdapterModule, string> Names(LoraForm form, AdapterContent content, LoraWriteOptions options)
    {
        if (form != LoraForm.File)
        {
            CheckDotted(content);
        }

        if (form == LoraForm.Peft)
        {
            PublishedNames published = new(content);
            return module => published.Of(AdapterLayout.Peft, module.Component, module.Name, module.IsDotted);
        }

        AdapterProgram program = options.Program ?? (form == LoraForm.Diffusers ? AdapterProgram.Diffusers : AdapterProgram.ComfyUI);
        ProgramNames names = new(program, content);
        if (names.Unknown.Count == 0)
        {
            return module => names.Of(module.Component, module.Name)!;
        }

        if (names.Model is not null || options.Program is not null)
        {
            throw ProgramSupport.Unreadable(program, names, content);
        }

        // A model that no table has: the names of the layout.
        AdapterKeyNames layout = new(form == LoraForm.Diffusers ? AdapterLayout.Diffusers : AdapterLayout.Kohya, content, options.Component);
        Dictionary<AdapterModule, string> written = content.Modules.ToDictionary(static module => module, module => layout.Of(module.Component, module.Name, module.IsDotted));
        return module => written[module];
    }

    private static void CheckDotted(AdapterContent content)
    {
        if (content.Modules.FirstOrDefault(static module => !module.IsDotted) is AdapterModule undotted)
        {
            throw new LoKrException(ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidData,
                $"The position of the dots in '{undotted.Name}' is unknown.", "Give the base model, by its files or in memory.") { Target = undotted.Name };
        }
    }

    private static LoraSource Source(AdapterModule module, string name, BaseLayer? layer, LoraForm form)
    {
        if (layer?.LoraObstacle is string obstacle)
        {
            throw NotSupported($"'{module.Name}'", obstacle);
        }

        bool isEmbedding = layer is EmbeddingBaseLayer;
        return isEmbedding && form != LoraForm.Peft ? throw NotSupported($"'{module.Name}'", "only PEFT has LoRA on embeddings")
            : new(name, new KroneckerFactors(module.Factors.ToDictionary(StringComparer.Ordinal), module.Kernel, module.IsReversed), module.Scale.Factor, isEmbedding);
    }

    private static LoKrConfig Config(AdapterContent content, bool isRenamed)
    {
        LoKrConfig? own = content.Configs.Count == 1 ? content.Configs.Values.First() : null;
        LoKrConfig? targets = isRenamed ? null : own;
        return AdapterConfigBuilder.Build(content.Modules, content, content.Modules[0].Scale.Convention) with
        {
            TargetModules = targets?.TargetModules,
            ExcludeModules = targets?.ExcludeModules,
            LayersPattern = targets?.LayersPattern,
            LayersToTransform = targets?.LayersToTransform,
            ModulesToSave = own?.ModulesToSave,
            TaskType = own?.TaskType,
            AutoMapping = own?.AutoMapping,
            BaseModelNameOrPath = own?.BaseModelNameOrPath,
            Revision = own?.Revision,
        };
    }

    private static string[] WriteDiffusers(string folder, LoraAdapter lora, bool force)
    {
        using StagedDirectory staged = new(folder, force, carryOver: true);
        SafetensorsWriter.Write(Path.Combine(staged.Path, AdapterFile.DiffusersFile), lora.Tensors, new Dictionary<string, string> { ["format"] = "pt" });
        staged.Commit();
        return [.. NonFinite.Warnings(lora.Tensors)];
    }

    /// <summary>Writes one file: names with underscores have kohya's suffixes, names with dots those of PEFT. diffusers takes alpha for the rank where there is none.</summary>
    private static string[] WriteFile(string path, LoraAdapter lora, LoraWriteOptions options)
    {
        using DisposeScope scope = torch.NewDisposeScope();
        Dictionary<string, torch.Tensor> tensors = new(StringComparer.Ordinal);
        foreach ((string name, torch.Tensor value) in lora.Tensors)
        {
            bool isUnderscored = name.IndexOf('.', StringComparison.Ordinal) == name.IndexOf(".lora_", StringComparison.Ordinal);
            tensors.Add(isUnderscored ? name.Replace(".lora_A.", ".lora_down.", StringComparison.Ordinal).Replace(".lora_B.", ".lora_up.", StringComparison.Ordinal) : name, value);
        }

        if (options.Program != AdapterProgram.Diffusers)
        {
            foreach (LoraLayer layer in lora.Layers)
            {
                tensors.Add($"{layer.Name}.{AdapterSuffixes.Alpha}", torch.tensor((float)(lora.Config.RankPattern.Count > 0 ? layer.Rank : lora.Rank)));
            }
        }

        string rank = lora.Rank.ToString(System.Globalization.CultureInfo.InvariantCulture);
        FileSystem.CreateFolder(Path.GetDirectoryName(path)!);
        SafetensorsWriter.Write(path, tensors, new Dictionary<string, string> { ["format"] = "pt", ["ss_network_module"] = "networks.lora", ["ss_network_dim"] = rank, ["ss_network_alpha"] = rank });
        return [.. NonFinite.Warnings(lora.Tensors)];
    }

    private static LoKrException NotSupported(string subject, string why) => new(
        ErrorIds.LoraConversionNotSupported, LoKrErrorKind.NotSupported, $"{subject} cannot be converted to LoRA: {why}.", "Keep the adapter as LoKr, or merge it into its model.") { Target = subject };

    private enum LoraForm
    {
        /// <summary>adapter_config.json and adapter_model.safetensors.</summary>
        Peft,

        /// <summary>pytorch_lora_weights.safetensors, the names with the folders of the pipeline.</summary>
        Diffusers,

        /// <summary>One file.</summary>
        File,
    }
}

/// <summary>Options of writing LoRA.</summary>
public sealed record LoraWriteOptions
{
    /// <summary>The program that is to read it; null for PEFT, for diffusers where the adapter belongs to a pipeline, and for ComfyUI where the destination is a file.</summary>
    public AdapterProgram? Program { get; init; }

    /// <summary>Part of the pipeline that the adapter is for, where neither its file nor the names of its modules tell.</summary>
    public AdapterComponent? Component { get; init; }

    /// <summary>Replace an existing destination.</summary>
    public bool Force { get; init; }

    /// <summary>Check everything and write nothing.</summary>
    public bool CheckOnly { get; init; }
}

/// <summary>Result of a conversion, with its warnings.</summary>
/// <param name="Result">The description.</param>
/// <param name="Warnings">Warnings for the user.</param>
public sealed record LoraWriteResult(LoraConversionResult Result, IReadOnlyList<string> Warnings);
