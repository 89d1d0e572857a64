using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes a job file with every key, commented.</summary>
[Cmdlet(VerbsCommon.New, "LoKrJob", SupportsShouldProcess = true)]
[OutputType(typeof(FileInfo))]
public sealed class NewLoKrJobCommand : LoKrCommand
{
    /// <summary>The file to write: a name that ends in .psd1, with comments, or in .json, for editors that know its schema.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Folder of the model. Relative paths are written as they are given, and are relative to the job file when it is read.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string BasePath { get; set; } = "./model";

    /// <summary>Data files, with * and ? in names and ** for any folders.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] Data { get; set; } = ["./data/*.jsonl"];

    /// <summary>Data files to evaluate and to compare on.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] ValidationData { get; set; } = ["./eval.jsonl"];

    /// <summary>Folder of the registry.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string Registry { get; set; } = "./registry";

    /// <summary>Name of the job, and of its adapter in the registry; the default is the name of the file up to its first period.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Name { get; set; }

    /// <summary>Replaces an existing file.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => Path;

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process()
    {
        string path = Paths.New(Path);
        string extension = System.IO.Path.GetExtension(path).ToUpperInvariant();
        if (extension is not (".PSD1" or ".JSON"))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"'{Path}' is not the name of a job file.", "Let it end in .psd1 or .json.") { Target = Path };
        }

        JobTemplate template = new(Name ?? JobFile.DefaultName(path), BasePath, Data, ValidationData, Registry);
        FileSystem.CheckReplaceable(path, Force);
        if (ShouldProcess(path, "Write a job file"))
        {
            AtomicFile.WriteText(path, extension == ".PSD1" ? template.ToScript() : template.ToJson());
            WriteObject(new FileInfo(path));
        }
    }
}
