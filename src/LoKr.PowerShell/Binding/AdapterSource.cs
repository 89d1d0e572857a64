using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runs;

namespace LoKr.PowerShell.Binding;

/// <summary>An adapter that a parameter names: one on the model of the call, a safetensors file or adapter folder, a finished run, or a version of a registry.</summary>
public sealed class AdapterSource
{
    private readonly string _text;
    private readonly string? _name;

    private AdapterSource(string text, string? name) => (_text, _name) = (text, name);

    /// <summary>A name or a path, as users write it.</summary>
    public static AdapterSource Of(string text) => new(text, null);

    /// <summary>A version of a registry.</summary>
    public static AdapterSource Of(LoKrAdapterVersion version)
    {
        ArgumentNullException.ThrowIfNull(version);
        return new(version.Path, FormattableString.Invariant($"{version.Name} {version.Version}"));
    }

    /// <summary>Finds the adapter. The name of one on the model overrides a path.</summary>
    /// <param name="model">The model or pipeline of the call; null without one.</param>
    /// <param name="paths">Resolves a path.</param>
    /// <param name="options">Information that is not in a file.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>, <see cref="ErrorIds.PathNotFound"/>; <see cref="ErrorIds.RunNotFound"/> for a run without a result.</exception>
    internal AdapterReference Find(IAdaptable? model, PathResolver paths, AdapterConvertOptions? options = null)
    {
        if (_name is null && model?.GetAdapterNames().Contains(_text, StringComparer.Ordinal) == true)
        {
            return AdapterReference.OfModel(model, _text);
        }

        string path = FindFile(model, paths);
        RunFolder run = new(path);
        return AdapterReference.OfFile(run.Exists ? run.RequireResult() : path, options, run.Exists ? run.Read().Id : _name);
    }

    /// <inheritdoc/>
    public override string ToString() => _name ?? _text;

    private string FindFile(IAdaptable? model, PathResolver paths)
    {
        try
        {
            return paths.ExistingOne(_text, _name is null ? null : true);
        }
        catch (LoKrException exception) when (exception.ErrorId == ErrorIds.PathNotFound && model is not null && _name is null)
        {
            // Throws for an unknown name, and lists the known ones.
            model.GetAdapters(_text);
            throw;
        }
    }
}

/// <summary>Accepts names, paths, files, adapters, runs and versions for an <see cref="AdapterSource"/>.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class AdapterSourceTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override bool TransformNullOptionalParameters => false;

    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        inputData.Unwrap() switch
        {
            LoKrAdapterVersion version => AdapterSource.Of(version),
            LoKrAdapter adapter => AdapterSource.Of(adapter.Name),
            LoKrRun run => AdapterSource.Of(run.ToString()),
            FileSystemInfo info => AdapterSource.Of(info.FullName),
            string { Length: > 0 } text => AdapterSource.Of(text),
            // The binder reports the type it expects.
            _ => inputData,
        };
}
