using LoKr.Core.Adapters;

namespace LoKr.Models.StableDiffusion;

/// <summary>Multiplies the scale of every active adapter of a pipeline, and puts it back.</summary>
internal sealed class AdapterScaling : IDisposable
{
    private readonly List<(LoKrModel Model, string Adapter, double Scale)> _before = [];

    public AdapterScaling(IEnumerable<LoKrModel> models, double factor)
    {
        if (factor == 1)
        {
            return;
        }

        try
        {
            foreach (LoKrModel model in models)
            {
                foreach (string name in model.ActiveAdapters)
                {
                    double scale = model.GetAdapter(name).Scale;
                    model.SetAdapterScale([name], scale * factor);
                    _before.Add((model, name, scale));
                }
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        foreach ((LoKrModel model, string adapter, double scale) in _before)
        {
            model.SetAdapterScale([adapter], scale);
        }

        _before.Clear();
    }
}
