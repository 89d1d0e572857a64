using LoKr.Core.Adapters;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Keeps gradients off the other active adapters while one is trained on top of them, and gives them back.</summary>
internal sealed class TrainableOnly : IDisposable
{
    private readonly LoKrAdapter[] _frozen;

    public TrainableOnly(LoKrModel model, LoKrAdapter trained)
    {
        _frozen = [.. model.Adapters.Where(adapter => adapter.IsTrainable && !ReferenceEquals(adapter, trained) && model.ActiveAdapters.Contains(adapter.Name))];
        foreach (FlatParameter flat in _frozen.SelectMany(adapter => adapter.FlatParameters))
        {
            flat.SetRequiresGrad(false);
        }
    }

    public void Dispose()
    {
        using IDisposable noGrad = no_grad();
        foreach (FlatParameter flat in _frozen.SelectMany(adapter => adapter.FlatParameters))
        {
            flat.SetRequiresGrad(true);

            // Modules they save whole may have taken gradients all the same.
            flat.Gradient.zero_();
        }
    }
}
