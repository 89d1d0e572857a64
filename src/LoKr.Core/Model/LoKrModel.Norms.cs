using LoKr.Core.Layers;

namespace LoKr.Core.Model;

public sealed partial class LoKrModel
{
    private readonly Dictionary<string, NormHost> _norms = new(StringComparer.Ordinal);

    private void AttachNorms(LoKrAdapter adapter)
    {
        foreach (LoKrNorm norm in adapter.Norms)
        {
            if (!_norms.TryGetValue(norm.ModuleName, out NormHost? host))
            {
                _norms.Add(norm.ModuleName, host = new NormHost(norm.Target));
            }

            host.Add(adapter, norm);
        }
    }

    private void RunNorms(LoKrAdapter[] running)
    {
        foreach (NormHost host in _norms.Values)
        {
            host.SetRunning(host.Norms.Any(entry => _merger.Merged.Contains(entry.Adapter)) ? [] : running);
        }
    }

    private void DropUnusedNorms()
    {
        foreach (NormHost host in _norms.Values.Where(static host => host.Norms.Count == 0).ToArray())
        {
            host.Detach();
            _norms.Remove(host.Target.Name);
        }
    }
}
