using System.Management.Automation;
using System.Reflection;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Commands;
using Xunit;

namespace LoKr.PowerShell.Tests.Commands;

/// <summary>A script that mpirun starts as several processes changes what is on disk once.</summary>
public sealed class FirstWorkerTests
{
    // They change a model in memory, which every process has; take part in the work themselves; or change what the machine has installed.
    private static readonly HashSet<Type> s_everyWorkers =
    [
        typeof(AddLoKrAdapterCommand), typeof(ImportLoKrAdapterCommand), typeof(SetLoKrAdapterCommand), typeof(RemoveLoKrAdapterCommand),
        typeof(EnableLoKrAdapterCommand), typeof(DisableLoKrAdapterCommand), typeof(UndoLoKrMergeCommand),
        typeof(StartLoKrTrainingCommand), typeof(InvokeLoKrJobCommand), typeof(InstallLoKrRuntimeCommand), typeof(UninstallLoKrRuntimeCommand),
    ];

    [Fact]
    public void Whatever_changes_files_is_done_by_the_first_worker()
    {
        string[] others =
        [
            .. typeof(LoKrCommand).Assembly.GetTypes()
                .Where(static type => type.GetCustomAttribute<CmdletAttribute>() is { SupportsShouldProcess: true } && !s_everyWorkers.Contains(type))
                .Where(static type => type.GetProperty("IsForFirstWorker", BindingFlags.Instance | BindingFlags.NonPublic)!.DeclaringType == typeof(LoKrCommand))
                .Select(static type => type.Name),
        ];
        Assert.Empty(others);
    }
}
