using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Runtime;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Installs libtorch, the native runtime, from a NuGet feed or without a network from files that are there.</summary>
[Cmdlet(VerbsLifecycle.Install, "LoKrRuntime", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrRuntimeInfo))]
public sealed class InstallLoKrRuntimeCommand : RuntimeStoreCommand
{
    /// <summary>
    /// Where it comes from: the address of a NuGet feed (the service index of version 3), the name of a source in NuGet's configuration, a folder with
    /// packages, one package, or the folder of an unpacked libtorch. By default the sources of NuGet's configuration are used.
    /// </summary>
    [Parameter(Position = 0)]
    [ValidateNotNullOrEmpty]
    public string? Source { get; set; }

    /// <summary>Installs again what is installed, for example after a library was damaged.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        RuntimeInstaller installer = new(new RuntimeInstallOptions(FlavorName, ResolveSource(), ForAllUsers, Force));
        if (installer.IsInstalled)
        {
            WriteVerbose($"libtorch {installer.Libtorch} ({installer.Flavor}) is installed in {installer.Folder}.");
            WriteObject(installer.Install(token: StopToken));
        }
        else if (ShouldProcess(installer.Folder, $"Install libtorch {installer.Libtorch} ({installer.Flavor}) for {installer.Platform} from {installer.Source}"))
        {
            WriteObject(Run(installer));
        }
    }

    // What exists as a path is one; anything else is an address or a name.
    private string? ResolveSource()
    {
        if (Source is null || (Uri.TryCreate(Source, UriKind.Absolute, out Uri? address) && address.Scheme is "http" or "https"))
        {
            return Source;
        }

        string path = Paths.New(Source);
        return Path.Exists(path) ? path : Source;
    }

    private LoKrRuntimeInfo Run(RuntimeInstaller installer)
    {
        using ProgressBar bar = new(this, string.Create(CultureInfo.InvariantCulture, $"Installing libtorch {installer.Libtorch} ({installer.Flavor})"));
        using BackgroundRun<RuntimeInstallProgress, LoKrRuntimeInfo> run = new((report, token) => installer.Install(bar.Throttle(report), token), StopToken);
        foreach (RuntimeInstallProgress step in run.Reports)
        {
            bar.Show(step.Total > 0 ? (double)step.Done / step.Total : 0, $"{step.Action} {step.Item}: {step.Done / 1e6:F0} of {step.Total / 1e6:F0} MB");
        }

        return run.Wait();
    }
}
