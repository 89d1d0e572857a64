using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Models.Loading;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Adds the deltas of adapters into base weights: of a model in memory, or of a folder on disk into another folder.</summary>
[Cmdlet(VerbsData.Merge, "LoKrAdapter", DefaultParameterSetName = ModelSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), ParameterSetName = [ModelSet])]
[OutputType(typeof(LoKrMergeResult), ParameterSetName = [PathSet, LiteralPathSet])]
public sealed class MergeLoKrAdapterCommand : PathCommand
{
    private const string ModelSet = "Model";
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";

    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ModelSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>Names of the adapters; without it the active ones. Wildcards are allowed.</summary>
    [Parameter(Position = 0, ParameterSetName = ModelSet)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string[]? Name { get; set; }

    /// <summary>
    /// Folder of the base model: weights as safetensors in one file or in shards, of any architecture; or a component of a diffusers pipeline.
    /// Wildcards are allowed where they match one folder.
    /// </summary>
    [Parameter(Mandatory = true, ParameterSetName = PathSet)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Folder of the base model, taken as it is written.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet)]
    [Alias("PSPath")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>Folders of adapters that PEFT or Export-LoKrAdapter saved, in the order in which they are added. Wildcards are allowed.</summary>
    [Parameter(Mandatory = true, ParameterSetName = PathSet)]
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Adapter { get; set; } = [];

    /// <summary>Strength of each adapter, 1 as trained; one number for all, or one for each. Modules that were trained whole are not scaled.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    [ValidateNotNullOrEmpty]
    public double[] Weight { get; set; } = [1];

    /// <summary>Folder to write. It appears complete or not at all; an interrupted merge goes on when the command is repeated.</summary>
    [Parameter(Mandatory = true, ParameterSetName = PathSet)]
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Largest size of one weights file in bytes, for example 2GB; without it the files are those of the base.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public long MaxShardSize { get; set; }

    /// <summary>Replace a folder that is there.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public SwitchParameter Force { get; set; }

    /// <summary>Refuse a result that is not finite, and leave weights and destination alone.</summary>
    [Parameter]
    public SwitchParameter Safe { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        if (ParameterSetName == ModelSet)
        {
            MergeModel();
        }
        else
        {
            MergeFiles();
        }
    }

    private void MergeModel()
    {
        IReadOnlyList<string>? names = Name is null ? null : AdapterNames.Require(Model, Name);
        if (ShouldProcess(Model.Name, $"Merge LoKr adapters {string.Join(", ", names ?? Model.ActiveAdapters)}".TrimEnd()))
        {
            Report(Model.Merge(names, Safe));
        }

        WriteObject(Model);
    }

    private void MergeFiles()
    {
        bool literal = ParameterSetName == LiteralPathSet;
        string from = OnlyOne(literal ? LiteralPath : Path, literal);
        string[] adapters = [.. Adapter.SelectMany(path => ResolveOne(path, literal))];
        if (Weight.Length != 1 && Weight.Length != adapters.Length)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"-Weight has {Weight.Length} numbers for {adapters.Length} adapters: {string.Join(", ", adapters)}.", "Give one number for all, or one for each.") { Target = Weight };
        }

        using CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions
        {
            BasePath = from,
            Adapters = [.. adapters.Select((path, index) => new PeftMergeSource(path, Weight[Weight.Length == 1 ? 0 : index]))],
            Destination = ResolveNew(Destination),
            MaxShardBytes = MyInvocation.BoundParameters.ContainsKey(nameof(MaxShardSize)) ? MaxShardSize : null,
            Force = Force,
            Safe = Safe,
            Names = ModelNames.Find(from),
            HeadClass = ModelNames.FindHeadClass(from),
        });
        foreach (string warning in merge.Warnings)
        {
            WriteWarning(warning);
        }

        if (!ShouldProcess(merge.Destination, $"Merge {merge}"))
        {
            return;
        }

        EnsureRuntime();
        int told = merge.Warnings.Count;
        LoKrMergeResult result = Run(merge);
        foreach (string warning in result.Warnings.Skip(told))
        {
            WriteWarning(warning);
        }

        Report(result);
        WriteObject(result);
    }

    private LoKrMergeResult Run(CheckpointMerge merge)
    {
        MergeProgress progress = new(this, $"Merging into {merge.Destination}");
        try
        {
            // Ctrl+C cancels the work and waits for it; what is finished stays for the next time.
            using BackgroundRun<CheckpointMergeProgress, LoKrMergeResult> run = new((report, token) => merge.Run(progress.Thin(report), token), StopToken);
            foreach (CheckpointMergeProgress step in run.Reports)
            {
                progress.Show(step);
            }

            return run.Wait();
        }
        finally
        {
            progress.Complete();
        }
    }

    private void Report(LoKrMergeResult result) => WriteVerbose(
        $"Merged {string.Join(", ", result.Adapters)}: {result.ModuleCount} weights changed, {result.SavedModuleCount} modules replaced, {result.Elapsed.TotalSeconds:F2} s."
        + (result.Destination is null ? "" : $" {result.Files.Count} files, {result.ByteCount} bytes in {result.Destination}; {result.ResumedFileCount} of the files were there from an interrupted run."));
}
