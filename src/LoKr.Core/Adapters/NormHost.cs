using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>The one hook on a norm, and the adapters that change its weights.</summary>
internal sealed class NormHost
{
    private readonly List<(LoKrAdapter Adapter, LoKrNorm Norm)> _norms = [];
    private readonly IDisposable _hook;
    private LoKrNorm[] _running = [];

    public NormHost(NormBase target)
    {
        Target = target;
        _hook = ForwardHooks.OnTensor(target.Module, Adapt);
    }

    public NormBase Target { get; }

    /// <summary>Adapters on this norm in the order they were added.</summary>
    public IReadOnlyList<(LoKrAdapter Adapter, LoKrNorm Norm)> Norms => _norms;

    public void Add(LoKrAdapter adapter, LoKrNorm norm) => _norms.Add((adapter, norm));

    public void Remove(LoKrAdapter adapter) => _norms.RemoveAll(entry => ReferenceEquals(entry.Adapter, adapter));

    /// <summary>Decides who contributes from now on.</summary>
    public void SetRunning(IEnumerable<LoKrAdapter> adapters) => _running = [.. adapters
        .SelectMany(adapter => _norms.Where(entry => ReferenceEquals(entry.Adapter, adapter)).Select(static entry => entry.Norm))];

    public void Detach() => _hook.Dispose();

    private Tensor? Adapt(Tensor input, Tensor output)
    {
        if (_running.Length == 0)
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor sum = _running.Aggregate(output, (sum, norm) => norm.AddTo(sum, input));
        Tensor result = sum.to(output.dtype).MoveToOuterDisposeScope();
        output.Dispose();
        return result;
    }
}
