using System.ComponentModel;
using System.Diagnostics;
using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that work with submissions of jobs, or with some of their jobs.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class SubmissionCommand : PathCommand
{
    // A controller that many people ask every second has no time for its work.
    private static readonly TimeSpan s_schedulerInterval = TimeSpan.FromSeconds(5);

    private readonly OrderedDictionary<string, HashSet<int>?> _selected = new(StringComparer.Ordinal);
    private readonly Dictionary<string, (long Asked, IReadOnlyDictionary<(string Id, int Index), SubmissionTask> Tasks)> _tasks = new(StringComparer.Ordinal);

    /// <summary>Numbers of jobs in the list; all by default.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateRange(1, int.MaxValue)]
    public int[] Index { get; set; } = [];

    /// <inheritdoc/>
    private protected override bool MayBeNone => true;

    /// <inheritdoc/>
    protected sealed override void Process() => ForEachPath(path =>
    {
        // Objects of one submission are one question to its scheduler.
        SubmissionFolder folder = new(path);
        if (Index.Length == 0)
        {
            _selected[folder.Path] = null;
        }
        else if (!_selected.TryGetValue(folder.Path, out HashSet<int>? indexes))
        {
            _selected[folder.Path] = [.. Index];
        }
        else
        {
            indexes?.UnionWith(Index);
        }
    });

    /// <summary>Does something with each submission.</summary>
    /// <param name="action">Takes the submission.</param>
    protected void ForEachSubmission(Action<SubmissionFolder> action)
    {
        foreach (string path in _selected.Keys)
        {
            ForOne(path, () => action(new SubmissionFolder(path)));
        }
    }

    /// <summary>The jobs that were asked for, as they are now.</summary>
    /// <param name="folder">The submission.</param>
    protected IReadOnlyList<LoKrSubmissionJob> Read(SubmissionFolder folder)
    {
        ArgumentNullException.ThrowIfNull(folder);
        HashSet<int>? indexes = _selected[folder.Path];
        return [.. folder.Read(ids => Query(folder.Path, ids)).Where(job => indexes?.Contains(job.Index) ?? true)];
    }

    private IReadOnlyDictionary<(string Id, int Index), SubmissionTask> Query(string path, IReadOnlyList<string> ids)
    {
        if (!_tasks.TryGetValue(path, out var last) || Stopwatch.GetElapsedTime(last.Asked) > s_schedulerInterval)
        {
            _tasks[path] = last = (Stopwatch.GetTimestamp(), SlurmScheduler.Query(ids));
        }

        return last.Tasks;
    }
}
