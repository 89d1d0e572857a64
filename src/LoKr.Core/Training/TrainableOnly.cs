using LoKr.Core.Adapters;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>Gradients on for one adapter and off for the others while a run lasts; puts every tensor back.</summary>
internal sealed class TrainableOnly : IDisposable
{
    private readonly List<(torch.Tensor Tensor, bool RequiresGrad)> _changed = [];

    public TrainableOnly(LoKrModel model, LoKrAdapter trained)
    {
        foreach (LoKrAdapter adapter in model.Adapters)
        {
            bool wanted = ReferenceEquals(adapter, trained);
            foreach (torch.Tensor view in adapter.FlatParameters.SelectMany(flat => flat.Views))
            {
                if (view.requires_grad != wanted)
                {
                    _changed.Add((view, view.requires_grad));
                    view.requires_grad = wanted;
                }
            }
        }
    }

    public void Dispose()
    {
        foreach ((torch.Tensor tensor, bool requiresGrad) in _changed)
        {
            tensor.requires_grad = requiresGrad;
        }
    }
}
