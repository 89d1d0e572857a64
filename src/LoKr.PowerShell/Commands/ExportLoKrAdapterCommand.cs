using System.Management.Automation;
using LoKr.Core.Conversion;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes an adapter as PEFT saves it, in the layout of another program, or as LoRA.</summary>
[Cmdlet(VerbsData.Export, "LoKrAdapter", DefaultParameterSetName = ModelSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel), typeof(StableDiffusionPipeline))]
public sealed class ExportLoKrAdapterCommand : PassThruCommand
{
    private const string ModelSet = "Model";
    private const string PipelineSet = "Pipeline";
    private const string ModelForSet = "ModelFor";
    private const string PipelineForSet = "PipelineFor";
    private const string RankSet = "LoraRank";
    private const string EnergySet = "LoraEnergy";
    private const string PipelineRankSet = "PipelineLoraRank";
    private const string PipelineEnergySet = "PipelineLoraEnergy";

    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ModelSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ModelForSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = RankSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = EnergySet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>A Stable Diffusion pipeline from Import-LoKrModel; the adapters of its text encoders and its UNet go into one file as Kohya, Comfy, Diffusers or OneTrainer, or into a PEFT folder for each.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = PipelineSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = PipelineForSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = PipelineRankSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = PipelineEnergySet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>Folder to write, or a safetensors file. It appears complete or not at all; other files of an existing folder stay.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Name of the adapter; without it the active one.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Name { get; set; }

    /// <summary>
    /// Layout; the default is Peft, as a folder. Kohya, Lycoris, Comfy, OneTrainer, Hcp and Bare need a destination that ends with .safetensors.
    /// Gguf writes LoRA for llama.cpp to a file that ends with .gguf, exact unless a rank or an energy is given. With these Peft or Gguf.
    /// </summary>
    [Parameter(ParameterSetName = ModelSet)]
    [Parameter(ParameterSetName = PipelineSet)]
    [Parameter(ParameterSetName = RankSet)]
    [Parameter(ParameterSetName = EnergySet)]
    public AdapterFormat Format { get; set; } = AdapterFormat.Peft;

    /// <summary>Program that is to read the adapter: names, scale and form of the factors are those that it reads for the model. For Vllm, and with LoraRank or LoraEnergy, it is LoRA.</summary>
    [Parameter(Mandatory = true, ParameterSetName = ModelForSet)]
    [Parameter(Mandatory = true, ParameterSetName = PipelineForSet)]
    [Parameter(ParameterSetName = RankSet)]
    [Parameter(ParameterSetName = EnergySet)]
    [Parameter(ParameterSetName = PipelineRankSet)]
    [Parameter(ParameterSetName = PipelineEnergySet)]
    public AdapterProgram For { get; set; }

    /// <summary>Component of a pipeline that the model is, for layouts that name it, if the names of its modules do not tell.</summary>
    [Parameter(ParameterSetName = ModelSet)]
    [Parameter(ParameterSetName = ModelForSet)]
    public AdapterComponent? Component { get; set; }

    /// <summary>Writes LoRA of this rank instead: a folder for PEFT, for diffusers where the adapter belongs to a pipeline, a safetensors file with kohya's names, or a GGUF file. It is exact from the product of the ranks of w1 and w2 on.</summary>
    [Parameter(Mandatory = true, ParameterSetName = RankSet)]
    [Parameter(Mandatory = true, ParameterSetName = PipelineRankSet)]
    public int LoraRank { get; set; }

    /// <summary>Writes LoRA instead, with the smallest rank that preserves this share of the squared norm of every layer, in (0, 1].</summary>
    [Parameter(Mandatory = true, ParameterSetName = EnergySet)]
    [Parameter(Mandatory = true, ParameterSetName = PipelineEnergySet)]
    public double LoraEnergy { get; set; }

    /// <summary>Gives every layer the rank that it needs, in the patterns of adapter_config.json. PEFT alone reads them; without this switch all layers have one rank, filled with zeros.</summary>
    [Parameter(ParameterSetName = RankSet)]
    [Parameter(ParameterSetName = EnergySet)]
    public SwitchParameter RankPattern { get; set; }

    /// <summary>Replaces an existing adapter. With For it also writes what the program will not read, with a warning that counts it.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => NameOf(Target);

    private IAdaptable Target => ParameterSetName.StartsWith(PipelineSet, StringComparison.Ordinal) ? Pipeline : Model;

    private AdapterProgram? Program => MyInvocation.BoundParameters.ContainsKey(nameof(For)) ? For : null;

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process()
    {
        string name = Name ?? Target.GetOnlyActiveAdapterName();
        string destination = Paths.Destination(Destination);
        LoraRank? rank = Rank();
        LoraTarget.Check(Format, rank, Program);
        if (Format == AdapterFormat.Gguf)
        {
            ExportGguf(name, destination, rank);
        }
        else if (rank is not null)
        {
            ExportLora(name, destination, rank);
        }
        else
        {
            Export(name, destination);
        }

        PassOn(Target);
    }

    // vLLM loads LoRA only; without a rank it gets the exact one.
    private LoraRank? Rank() => ParameterSetName is RankSet or PipelineRankSet ? Core.Conversion.LoraRank.OfSize(LoraRank) with { Patterned = RankPattern }
        : ParameterSetName is EnergySet or PipelineEnergySet ? Core.Conversion.LoraRank.OfEnergy(LoraEnergy) with { Patterned = RankPattern }
        : Program == AdapterProgram.Vllm ? Core.Conversion.LoraRank.OfEnergy(1)
        : null;

    private void Export(string name, string destination)
    {
        AdapterWriteOptions options = new() { Component = Component, Program = Program, Force = Force };
        if (IsRehearsal)
        {
            AdapterExporter.Export(Target, name, destination, (AdapterLayout)Format, options with { CheckOnly = true });
        }

        if (ShouldProcess(destination, $"Export LoKr adapter '{name}' {(Program is null ? $"as {Format}" : $"for {Program}")}"))
        {
            WriteWarnings(AdapterExporter.Export(Target, name, destination, (AdapterLayout)Format, options));
            WriteVerbose($"Adapter '{name}' written to {destination}.");
        }
    }

    private void ExportGguf(string name, string path, LoraRank? rank)
    {
        LoKrModel model = Target as LoKrModel ?? throw LoraTarget.NotLanguageModel(Target);
        LoKrAdapter adapter = model.GetAdapter(name);
        AdapterWriteOptions options = new() { Force = Force };
        if (IsRehearsal)
        {
            GgufLoraConverter.Export(adapter, model, path, rank, options with { CheckOnly = true }, out _, StopToken);
        }

        if (ShouldProcess(path, $"Export LoKr adapter '{name}' as {Format}{(rank is null ? "" : $" with {rank}")}"))
        {
            LoraConversionResult result = GgufLoraConverter.Export(adapter, model, path, rank, options, out IReadOnlyList<string> warnings, StopToken);
            WriteWarnings(warnings);
            WriteVerbose($"LoRA of rank {result.SmallestRank} to {result.LargestRank} on {result.ModuleCount} modules, {result.Energy:P2} of the squared norm, written to {path}.");
        }
    }

    private void ExportLora(string name, string destination, LoraRank rank)
    {
        LoraWriteOptions options = new() { Program = Program, Force = Force };
        if (IsRehearsal)
        {
            AdapterLoraConverter.Convert(Target, name, destination, rank, options with { CheckOnly = true }, StopToken);
        }

        if (ShouldProcess(destination, $"Export LoKr adapter '{name}' as LoRA with {rank}"))
        {
            LoraWriteResult written = AdapterLoraConverter.Convert(Target, name, destination, rank, options, StopToken);
            WriteWarnings(written.Warnings);
            LoraConversionResult result = written.Result;
            WriteVerbose($"LoRA of rank {result.Rank} (exact: {result.ExactRank}) on {result.ModuleCount} modules, {result.Energy:P2} of the squared norm, largest error {result.LargestError:P2} in {result.LargestErrorModule}, written to {destination}.");
            if (result.SuggestedRank is int suggested)
            {
                WriteVerbose($"With rank {suggested} no layer is off by more than 1%.");
            }
        }
    }
}
