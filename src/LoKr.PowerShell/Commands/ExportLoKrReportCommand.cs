using System.Management.Automation;
using LoKr.Core.IO;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes the report of a run: how it ended, its loss, evaluations, gate and lineage, in one file.</summary>
[Cmdlet(VerbsData.Export, "LoKrReport", SupportsShouldProcess = true, DefaultParameterSetName = PathSet)]
[OutputType(typeof(FileInfo))]
public sealed class ExportLoKrReportCommand : RunCommand
{
    /// <summary>File to write, or an existing folder for a file named after the run. The default is report.html or report.md in the run folder, which is replaced.</summary>
    [Parameter(Position = 1)]
    [ValidateNotNullOrEmpty]
    public string? Destination { get; set; }

    /// <summary>Html for a page, Markdown for text; either holds the picture of the loss.</summary>
    [Parameter]
    public ReportFormat As { get; set; } = ReportFormat.Html;

    /// <summary>Folder of a registry: versions of the run, their aliases and ancestors are named.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Registry { get; set; }

    /// <summary>Replaces an existing file.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process() => ForEachRun(folder =>
    {
        string path = DestinationOf(folder);
        FileSystem.CheckReplaceable(path, Force || Destination is null);
        string report = RunReport.Create(folder, As, Registry is null ? null : new AdapterRegistry(Paths.New(Registry)));
        if (ShouldProcess(path, $"Export the report of '{folder.Path}' as {As}"))
        {
            AtomicFile.WriteText(path, report);
            WriteObject(new FileInfo(path));
        }
    });

    private string DestinationOf(RunFolder folder)
    {
        string extension = As is ReportFormat.Html ? ".html" : ".md";
        if (Destination is null)
        {
            return System.IO.Path.ChangeExtension(folder.ReportFile, extension);
        }

        string path = Paths.New(Destination);
        return Paths.Destination(Directory.Exists(path) ? System.IO.Path.Combine(path, System.IO.Path.GetFileName(folder.Path) + extension) : path);
    }
}
