using LoKr.Core.Adapters;

namespace LoKr.Core.Training;

/// <summary>Gradients on for one adapter, its trained copies of saved modules included, and off for the others while a run lasts.</summary>
internal sealed class TrainableOnly : IDisposable
{
    private readonly LoKrModel _model;
    private readonly (LoKrAdapter Adapter, bool Trainable)[] _before;

    public TrainableOnly(LoKrModel model, LoKrAdapter trained)
    {
        _model = model;
        _before = [.. model.Adapters.Select(static adapter => (adapter, adapter.IsTrainable))];
        foreach (LoKrAdapter adapter in model.Adapters)
        {
            Set(adapter, ReferenceEquals(adapter, trained));
        }
    }

    public void Dispose()
    {
        foreach ((LoKrAdapter adapter, bool trainable) in _before)
        {
            if (_model.Adapters.Contains(adapter))
            {
                Set(adapter, trainable);
            }
        }
    }

    private void Set(LoKrAdapter adapter, bool trainable)
    {
        if (adapter.IsTrainable != trainable)
        {
            _model.SetAdapterTrainable(adapter.Name, trainable);
        }
    }
}
