using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>The one hook on a base layer, and the adapters that stand on it.</summary>
internal sealed class LayerHost
{
    private readonly List<(LoKrAdapter Adapter, LoKrLayer Layer)> _layers = [];

    public LayerHost(BaseLayer baseLayer, ForwardHooks hooks)
    {
        BaseLayer = baseLayer;
        baseLayer.Attach(hooks, this);
    }

    public BaseLayer BaseLayer { get; }

    /// <summary>Adapters on this layer in the order they were added.</summary>
    public IReadOnlyList<(LoKrAdapter Adapter, LoKrLayer Layer)> Layers => _layers;

    /// <summary>Whether any adapter contributes at present.</summary>
    public bool IsRunning => _running.Length > 0;

    /// <summary>Those whose contribution is added, in the order in which they were made active.</summary>
    private (LoKrAdapter Adapter, LoKrLayer Layer)[] _running = [];

    /// <summary>Whether they can be applied in one pass.</summary>
    private bool _onePass;

    public void Add(LoKrAdapter adapter, LoKrLayer layer) => _layers.Add((adapter, layer));

    public void Remove(LoKrAdapter adapter) => _layers.RemoveAll(entry => ReferenceEquals(entry.Adapter, adapter));

    /// <summary>Decides who contributes from now on.</summary>
    public void SetRunning(IEnumerable<LoKrAdapter> adapters)
    {
        _running = [.. adapters.SelectMany(adapter => _layers.Where(entry => ReferenceEquals(entry.Adapter, adapter)))];
        _onePass = _running.Length > 1 && BaseLayer is LinearKindBaseLayer && _running.All(static entry => entry.Layer.IsPlain)
            && KroneckerFactors.AreAlike([.. _running.Select(static entry => entry.Layer.Factors)]);
    }

    public void Detach() => BaseLayer.Detach();

    /// <summary>The adapted output, or null where no adapter contributes; then, and only then, the base output lives on.</summary>
    public Tensor? Adapt(Tensor input, Tensor output)
    {
        if (_running.Length == 0)
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor sum = output;
        if (_onePass)
        {
            sum = LoKrLayer.AddAllTo(output, input, [.. _running.Select(static entry => entry.Layer)]);
        }
        else
        {
            foreach ((_, LoKrLayer layer) in _running)
            {
                sum = layer.AddTo(sum, input, output);
            }
        }

        // As in PEFT: sums are taken in the wider type, the result is in the type of the input.
        ScalarType type = BaseLayer.OutputType(input, output);
        if (sum.dtype != type)
        {
            sum = sum.to(type);
        }

        if (ReferenceEquals(sum, output))
        {
            return null;
        }

        // Nothing else holds the base output: the layer has just made it. Autograd keeps what it needs by itself.
        output.Dispose();
        return sum.MoveToOuterDisposeScope();
    }
}
