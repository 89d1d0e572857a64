using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;

namespace LoKr.Core.Training;

/// <summary>
/// Adapters of a model tried one after the other, each alone. Those of files are loaded for it and removed at the end; then the same adapters
/// are active as before.
/// </summary>
internal sealed class AdapterTrials : IDisposable
{
    private readonly LoKrModel _model;
    private readonly IReadOnlyList<string> _active;
    private readonly bool _enabled;
    private readonly List<string> _loaded = [];

    /// <summary>Remembers the state of a model.</summary>
    /// <param name="model">A model without merged adapters.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterMerged"/>.</exception>
    public AdapterTrials(LoKrModel model)
    {
        if (model.MergedAdapters.Count > 0)
        {
            throw ModelErrors.Merged(model.MergedAdapters[0]);
        }

        (_model, _active, _enabled) = (model, model.ActiveAdapters, model.AdaptersEnabled);
    }

    /// <summary>Loads an adapter unless the model has it, and returns its name on the model.</summary>
    public string Add(AdapterReference reference)
    {
        if (reference.FindIn(_model) is string own)
        {
            return own;
        }

        string name = "compared-" + Guid.NewGuid().ToString("N");
        reference.LoadOnto(_model, name);
        _loaded.Add(name);
        return name;
    }

    /// <summary>Lets one adapter act alone; null for none.</summary>
    public void Use(string? name)
    {
        _model.SetAdaptersEnabled(name is not null);
        if (name is not null)
        {
            _model.SetActiveAdapters([name]);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (string name in _loaded)
        {
            _model.RemoveAdapter(name);
        }

        _model.SetActiveAdapters(_active);
        _model.SetAdaptersEnabled(_enabled);
    }
}
