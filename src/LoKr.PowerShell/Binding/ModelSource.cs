using System.Management.Automation;
using LoKr.Core.Model;
using LoKr.Models.Loading;
using TorchSharp;

namespace LoKr.PowerShell.Binding;

/// <summary>A model whose shapes are wanted: one in memory, or a folder whose weights are not loaded.</summary>
public sealed class ModelSource
{
    private readonly IAdaptable? _model;
    private readonly string? _path;

    private ModelSource(IAdaptable? model, string? path) => (_model, _path) = (model, path);

    /// <summary>A model in memory.</summary>
    public static ModelSource Of(IAdaptable model) => new(model, null);

    /// <summary>A folder, by a path as users write it.</summary>
    public static ModelSource Of(string path) => new(null, path);

    /// <summary>The model, or the shapes of the folder, which the caller disposes when <see cref="IsFolder"/>.</summary>
    /// <param name="paths">Resolves the path.</param>
    internal IAdaptable Open(PathResolver paths) => _model ?? ModelShapes.Read(Find(paths));

    /// <summary>The model, or the shapes of the folder with its tokenizer, which the caller disposes when <see cref="IsFolder"/>.</summary>
    /// <param name="paths">Resolves the path.</param>
    internal IAdaptable OpenWithTokenizer(PathResolver paths) => _model ?? ModelShapes.ReadWithTokenizer(Find(paths));

    // A folder of that very name is meant before a pattern.
    private string Find(PathResolver paths) => paths.ExistingOne(_path!, literal: Path.Exists(paths.New(_path!)));

    /// <summary>Whether it is a folder.</summary>
    internal bool IsFolder => _path is not null;

    /// <inheritdoc/>
    public override string ToString() => _model?.ToString() ?? _path!;
}

/// <summary>Accepts models, any <c>torch.nn.Module</c>, and paths of folders for a <see cref="ModelSource"/>.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class ModelSourceTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        inputData.Unwrap() switch
        {
            IAdaptable model => ModelSource.Of(model),
            torch.nn.Module module => ModelSource.Of((IAdaptable)new LoKrModelTransformationAttribute().Transform(engineIntrinsics, module)!),
            string path => ModelSource.Of(path),
            FileSystemInfo info => ModelSource.Of(info.FullName),
            // The binder reports the type it expects, or tries another parameter set.
            _ => inputData,
        };
}
