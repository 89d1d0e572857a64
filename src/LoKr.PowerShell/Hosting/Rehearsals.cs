using System.Management.Automation;
using System.Runtime.CompilerServices;
using LoKr.Core.Model;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// Changes rehearsed with -WhatIf on a model, so that the next command of a rehearsed script finds what it would find in the run: an adapter
/// that was added or imported, and a merge.
/// </summary>
internal static class Rehearsals
{
    // Not session state: a note beside the model, collected with it.
    private static readonly ConditionalWeakTable<IAdaptable, Rehearsal> s_rehearsals = [];

    /// <summary>Remembers an addition or an import.</summary>
    /// <param name="target">The model or the pipeline. It is not changed.</param>
    /// <param name="name">Name of the adapter.</param>
    /// <param name="add">Adds the adapter.</param>
    public static void Remember(IAdaptable target, string name, Action add) => s_rehearsals.AddOrUpdate(target, new(name, add));

    /// <summary>Remembers a merge.</summary>
    /// <param name="target">The model or the pipeline. It is not changed.</param>
    public static void RememberMerge(IAdaptable target) => s_rehearsals.GetOrAdd(target, static _ => new(null, null)).IsMerged = true;

    /// <summary>Whether a merge was rehearsed.</summary>
    public static bool IsMerged(IAdaptable target) => s_rehearsals.TryGetValue(target, out Rehearsal? rehearsal) && rehearsal.IsMerged;

    /// <summary>Adds the adapter that was rehearsed until the result is disposed; null where the command does not need it.</summary>
    /// <param name="target">The model or the pipeline.</param>
    /// <param name="names">Names of the adapters of the command, which may have wildcards; null for the active ones.</param>
    public static IDisposable? Adopt(IAdaptable target, IReadOnlyList<string>? names)
    {
        if (!s_rehearsals.TryGetValue(target, out Rehearsal? rehearsal) || rehearsal is not { Name: string name, Add: Action add })
        {
            return null;
        }

        IReadOnlyList<string> known = target.GetAdapterNames();
        bool needed = names is null ? known.Count == 0 : !known.Contains(name) && names.Any(wanted => WildcardPattern.Get(wanted, WildcardOptions.None).IsMatch(name));
        return needed ? new Adopted(target, name, add) : null;
    }

    private sealed class Rehearsal(string? name, Action? add)
    {
        public string? Name => name;

        public Action? Add => add;

        public bool IsMerged { get; set; }
    }

    private sealed class Adopted : IDisposable
    {
        private readonly IAdaptable _target;
        private readonly string _name;

        public Adopted(IAdaptable target, string name, Action add)
        {
            (_target, _name) = (target, name);
            add();
        }

        public void Dispose() => _target.RemoveAdapter(_name);
    }
}
