using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Gguf;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>
/// Converts adapters to LoRA as a GGUF file, as llama.cpp and the programs around it load it beside a model. Without a rank the LoRA is exact:
/// each layer has the rank of its delta.
/// </summary>
public static class GgufLoraConverter
{
    /// <summary>Writes an adapter of a model.</summary>
    /// <param name="adapter">The adapter, at its current strength.</param>
    /// <param name="model">Its model, whose architecture llama.cpp has to know.</param>
    /// <param name="path">File to write; its name ends with <c>.gguf</c>.</param>
    /// <param name="rank">Rank of each layer; null for exact ones.</param>
    /// <param name="options">Whether to replace an existing file, and whether to write at all.</param>
    /// <param name="warnings">Warnings for the user.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.ConversionUnsupported</c>, <c>LoKr.LoraConversionNotSupported</c>: DoRA, norms, modules trained whole, a weight that is tied or
    /// that llama.cpp does not have; <c>LoKr.ModelTypeUnknown</c>, <c>LoKr.RankInvalid</c>; <c>LoKr.DestinationExists</c> and the other errors of writing.
    /// </exception>
    public static LoraConversionResult Export(LoKrAdapter adapter, LoKrModel model, string path, LoraRank? rank, AdapterWriteOptions options, out IReadOnlyList<string> warnings, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(options);
        string full = CheckPath(path, options.Force);
        GgufLoraBase target = BaseOf(model);
        using DisposeScope scope = NewDisposeScope();
        LoraSource[] sources = [.. LoraConverter.SourcesOf(adapter).Select(static source => source.In(ScalarType.Float32))];
        using LoraAdapter lora = LoraConverter.Convert(adapter.Config, sources, LoraConverter.SavedOf(adapter), (rank ?? Exact) with { Patterned = true }, cancellation: cancellation);
        warnings = [.. AdapterWarnings.Unsaved(adapter.Name, adapter.UnsavedModules), .. GgufLoraFile.Write(full, lora, target, adapter.Name, options.Force, options.CheckOnly)];
        return LoraConversionResult.Of(full, lora);
    }

    /// <summary>Converts an adapter file of any layout.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <param name="destination">File to write; its name ends with <c>.gguf</c>.</param>
    /// <param name="rank">Rank of each layer; null for exact ones.</param>
    /// <param name="options">The base model is needed: as a GGUF file, as a folder with config.json, or in memory.</param>
    /// <param name="warnings">Warnings for the user.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    /// <exception cref="LoKrException">As for <see cref="Export"/>, and the errors of reading the adapter and the base model.</exception>
    public static LoraConversionResult Convert(
        string path, string destination, LoraRank? rank, AdapterConvertOptions options, out IReadOnlyList<string> warnings, CancellationToken cancellation = default) =>
        Convert(path, destination, rank, options, checkOnly: false, out warnings, cancellation);

    /// <summary>Throws what <see cref="Convert(string, string, LoraRank?, AdapterConvertOptions, out IReadOnlyList{string}, CancellationToken)"/> would throw before it writes. Nothing is written.</summary>
    /// <param name="path">Safetensors file or adapter folder.</param>
    /// <param name="destination">File that would be written.</param>
    /// <param name="rank">Rank of each layer; null for exact ones.</param>
    /// <param name="options">The base model, and whether an existing file may be replaced.</param>
    /// <param name="cancellation">Checked before every layer.</param>
    public static void Check(string path, string destination, LoraRank? rank, AdapterConvertOptions options, CancellationToken cancellation = default) =>
        Convert(path, destination, rank, options, checkOnly: true, out _, cancellation);

    private static LoraConversionResult Convert(
        string path, string destination, LoraRank? rank, AdapterConvertOptions options, bool checkOnly, out IReadOnlyList<string> warnings, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(options);
        string full = CheckPath(destination, options.Force);
        GgufLoraBase target = BaseOf(path, options);
        using DisposeScope scope = NewDisposeScope();

        // config.json alone is enough; names without dots need the weights too.
        bool hasNames = options.BasePath is not string basePath || GgufReader.IsGguf(basePath) || CheckpointReader.FindBaseName(basePath) is not null;
        using AdapterFile file = AdapterFile.Open(path, options.Read.Layout);
        AdapterContent content = AdapterContentReader.ReadFactors(file, AdapterConverter.Filter(file, options.Read), BaseModelNames.Find(options.Model, hasNames ? options.BasePath : null));
        using LoraAdapter lora = LoraWriter.Convert(content, rank ?? Exact, cancellation);
        string name = Path.GetFileNameWithoutExtension(Path.TrimEndingDirectorySeparator(Path.GetFullPath(path)));
        warnings = [.. file.Warnings, .. GgufLoraFile.Write(full, lora, target, name, options.Force, checkOnly)];
        return LoraConversionResult.Of(full, lora);
    }

    private static string CheckPath(string destination, bool force)
    {
        ArgumentException.ThrowIfNullOrEmpty(destination);
        string full = Path.GetFullPath(destination);
        if (!GgufReader.IsGguf(full))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"'{destination}' does not end with {GgufReader.Extension}.", "A LoRA as GGUF is one file of that kind.") { Target = destination };
        }

        FileSystem.CheckReplaceable(full, force);
        return full;
    }

    // Singular values below a hundred-millionth of the largest no longer change the sum of squares.
    private static LoraRank Exact => LoraRank.OfEnergy(1);

    private static GgufLoraBase BaseOf(string path, AdapterConvertOptions options)
    {
        if (options.Model is not null)
        {
            return BaseOf(options.Model);
        }

        if (options.BasePath is not string basePath)
        {
            throw NeedsBase($"A LoRA for llama.cpp has the names and the order of rows of its base model, which '{path}' does not tell.", path);
        }

        if (!GgufReader.IsGguf(basePath))
        {
            return GgufLoraBase.Of(ModelConfig.Load(basePath));
        }

        using GgufModel model = GgufModel.Open(basePath);
        return GgufLoraBase.Of(model);
    }

    private static GgufLoraBase BaseOf(LoKrModel model) => model.Pretrained is { } pretrained
        ? GgufLoraBase.Of(new ModelConfig(pretrained.Config))
        : throw NeedsBase($"{model.Name} is not a model of transformers, so llama.cpp's names of its weights are unknown.", model);

    private static LoKrException NeedsBase(string message, object target) => new(
        ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, message, "Name the base model: its GGUF file, or its folder with config.json.") { Target = target };
}
