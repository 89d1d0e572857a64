using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

public sealed partial class LoKrModel
{
    /// <summary>
    /// Moves the model and its adapters to a device, and converts floating-point weights to a type. Factors stay in single
    /// precision under a base of lower precision. Buffers of the adapters are new afterwards: an optimizer has to be made anew.
    /// </summary>
    /// <param name="device">Device; null leaves it.</param>
    /// <param name="dtype">Floating-point type of the base weights; null leaves it.</param>
    public void MoveTo(Device? device = null, ScalarType? dtype = null)
    {
        foreach (SavedModuleHost host in _saved.Values)
        {
            host.Show(null);
        }

        if (device is not null)
        {
            Module.to(device);
        }

        if (dtype is ScalarType type)
        {
            Module.to(type);
        }

        foreach (SavedModuleHost host in _saved.Values)
        {
            host.Renew();
        }

        Dictionary<string, nn.Module> modules = ModuleTree.Modules(Module).ToDictionary(static entry => entry.Name, static entry => entry.Module, StringComparer.Ordinal);
        foreach (LoKrAdapter adapter in _adapters)
        {
            TargetResolution resolution = new(
                adapter.Config,
                [.. adapter.Layers.Select(static layer => layer.BaseLayer)],
                [.. adapter.SavedModules.Select(name => (name, modules[name]))],
                [])
            { Norms = [.. adapter.Norms.Select(static norm => norm.Target)] };
            Dictionary<string, LoKrLayer> layers = adapter.Layers.ToDictionary(static layer => layer.ModuleName, StringComparer.Ordinal);
            adapter.TakeBuffers(new AdapterBuilder(adapter.Name, resolution, [], (layer, _) => (layers[layer.Name].Shapes, layers[layer.Name].Config)).Build(Originals));
            foreach (SavedModuleCopy copy in adapter.Copies)
            {
                _saved[copy.ModuleName].Add(adapter, copy);
            }
        }

        Apply();
    }
}
