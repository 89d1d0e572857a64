using System.Collections;
using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Runs;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Errors;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// Runs a command of the module as a job of the session, as Start-Job does: in a process of its own, with its own libtorch and device
/// context. What a script writes there comes through Receive-Job, and Stop-Job stops it as Ctrl+C does.
/// </summary>
/// <param name="cmdlet">The cmdlet whose session gets the job.</param>
internal sealed class CommandJob(PSCmdlet cmdlet)
{
    /// <summary>Common parameters that name variables of this session, and what the job itself takes over.</summary>
    private static readonly HashSet<string> s_notCarried = new(StringComparer.OrdinalIgnoreCase)
    {
        "AsJob", "WhatIf", "Confirm", "PassThru", "OutVariable", "OutBuffer", "PipelineVariable", "ErrorVariable", "WarningVariable", "InformationVariable",
    };

    /// <summary>The error for an object that lives in this process and cannot go to another one.</summary>
    /// <param name="what">The object, in words.</param>
    /// <param name="target">The object.</param>
    public static LoKrException InMemory(string what, string? target) => new(ModuleErrorIds.JobNeedsPath, LoKrErrorKind.InvalidArgument,
        $"{what} is in the memory of this process, and a job is a process of its own.", null) { Target = target };

    /// <summary>The parameters of this call for the same command in the job.</summary>
    /// <param name="without">Names that the script of the job does something else with.</param>
    public Hashtable Parameters(params IReadOnlyCollection<string> without)
    {
        Hashtable parameters = new(StringComparer.OrdinalIgnoreCase);
        foreach ((string name, object value) in cmdlet.MyInvocation.BoundParameters)
        {
            if (!s_notCarried.Contains(name) && !without.Contains(name, StringComparer.OrdinalIgnoreCase))
            {
                parameters[name] = Portable(value);
            }
        }

        return parameters;
    }

    /// <summary>Starts the job.</summary>
    /// <param name="script">Gets the arguments, in a session in which the module is imported, the location is this one and every error ends it.</param>
    /// <param name="arguments">Values that survive serialization.</param>
    /// <exception cref="LoKrException"><see cref="ModuleErrorIds.JobNotAvailable"/>: PowerShell cannot start processes for jobs here.</exception>
    public Job Start(string script, params object?[] arguments)
    {
        using System.Management.Automation.PowerShell shell = System.Management.Automation.PowerShell.Create(RunspaceMode.CurrentRunspace);
        shell.AddCommand(@"Microsoft.PowerShell.Core\Start-Job")
            .AddParameter("ScriptBlock", ScriptBlock.Create(
                """
                param($LoKrModule, $LoKrRuntime, $LoKrScript, $LoKrArguments)
                $ErrorActionPreference = 'Stop'
                if ($LoKrRuntime) { $env:LOKR_RUNTIME = $LoKrRuntime }
                Import-Module -Name $LoKrModule
                & ([scriptblock]::Create($LoKrScript)) @LoKrArguments
                """))
            .AddParameter("WorkingDirectory", cmdlet.SessionState.Path.CurrentFileSystemLocation.ProviderPath)
            .AddParameter("ArgumentList", new object?[] { ShellProgram.Manifest, TorchRuntime.Current?.Path, script, arguments });
        try
        {
            return shell.Invoke<Job>().FirstOrDefault() ?? throw NotAvailable(shell.Streams.Error.FirstOrDefault()?.Exception);
        }
        catch (RuntimeException exception)
        {
            throw NotAvailable(exception);
        }
    }

    // Enumerations and types of the module come back from serialization as something that parameters do not take; their text does.
    private static object? Portable(object? value) => value switch
    {
        PSObject { BaseObject: not PSCustomObject } wrapped => Portable(wrapped.BaseObject),
        SwitchParameter given => given.IsPresent,
        RunInterval interval => interval.Steps ?? (object?)interval.Time,
        Enum or TorchSharp.torch.Device => value.ToString(),

        // A path of the parameter may hold wildcards; the name of a file that was found does not.
        FileSystemInfo file => WildcardPattern.Escape(file.FullName),
        object[] several => Array.ConvertAll(several, Portable),
        _ => value,
    };

    private static LoKrException NotAvailable(Exception? cause) => new(ModuleErrorIds.JobNotAvailable, LoKrErrorKind.Unavailable,
        $"PowerShell cannot start a process for the job: {cause?.Message ?? "Start-Job gave no job."}", null, cause);
}
