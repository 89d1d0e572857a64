using System.Runtime.CompilerServices;
using LoKr.Core.Configuration;
using LoKr.Core.Model;

namespace LoKr.PowerShell.Hosting;

/// <summary>Adapters whose addition was rehearsed with -WhatIf, so that a training that is rehearsed after it has something to plan with.</summary>
internal static class Rehearsals
{
    // Not session state: a note beside the model, collected with it.
    private static readonly ConditionalWeakTable<IAdaptable, RehearsedAdapter> s_adapters = [];

    /// <summary>Remembers an addition.</summary>
    /// <param name="target">The model or the pipeline. It is not changed.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="name">Name of the adapter.</param>
    public static void Remember(IAdaptable target, LoKrConfig config, string name) => s_adapters.AddOrUpdate(target, new(config, name));

    /// <summary>Adds the adapter that was rehearsed until the result is disposed; null where the training has one without it.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="name">Name of the adapter to train, or null.</param>
    public static IDisposable? Adopt(IAdaptable target, string? name)
    {
        IReadOnlyList<string> known = target.GetAdapterNames();
        bool needed = s_adapters.TryGetValue(target, out RehearsedAdapter? adapter) && (name is null ? known.Count == 0 : name == adapter.Name && !known.Contains(name));
        return needed ? new Adopted(target, adapter!) : null;
    }

    private sealed record RehearsedAdapter(LoKrConfig Config, string Name);

    private sealed class Adopted : IDisposable
    {
        private readonly IAdaptable _target;
        private readonly string _name;

        public Adopted(IAdaptable target, RehearsedAdapter adapter)
        {
            (_target, _name) = (target, adapter.Name);

            // With a seed, torch's global generator stays as it is.
            target.AddAdapter(adapter.Config, adapter.Name, seed: 0);
        }

        public void Dispose() => _target.RemoveAdapter(_name);
    }
}
