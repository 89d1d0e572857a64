using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>Remembers which modules are in training mode and restores every one.</summary>
internal sealed class ModuleModes : IDisposable
{
    private readonly List<(nn.Module Module, bool Training)> _modes = [];

    public ModuleModes(nn.Module root)
    {
        Add(root);
        foreach (nn.Module module in root.modules())
        {
            Add(module);
        }
    }

    /// <summary>Restores parents before their children, since setting a module sets all below it.</summary>
    public void Dispose()
    {
        foreach ((nn.Module module, bool training) in _modes)
        {
            if (module.training != training)
            {
                module.train(training);
            }
        }
    }

    private void Add(nn.Module module) => _modes.Add((module, module.training));
}
