using System.Management.Automation;
using LoKr.Core.Conversion;
using LoKr.Core.IO;
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
    private const string RankSet = "LoraRank";
    private const string EnergySet = "LoraEnergy";

    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ModelSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = RankSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = EnergySet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>A Stable Diffusion pipeline from Import-LoKrModel; the adapters of its text encoders and its UNet go into one file as Kohya, Comfy, Diffusers or OneTrainer, or into a PEFT folder for each.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = PipelineSet)]
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

    /// <summary>Layout; the default is Peft, as a folder. Kohya, Lycoris, Comfy, OneTrainer, Hcp and Bare need a destination that ends with .safetensors.</summary>
    [Parameter(ParameterSetName = ModelSet)]
    [Parameter(ParameterSetName = PipelineSet)]
    public AdapterLayout Format { get; set; } = AdapterLayout.Peft;

    /// <summary>Component of a pipeline that the model is, for layouts that name it, if the names of its modules do not tell.</summary>
    [Parameter(ParameterSetName = ModelSet)]
    public AdapterComponent? Component { get; set; }

    /// <summary>Writes LoRA of this rank instead, as a folder for PEFT. It is exact from the product of the ranks of w1 and w2 on.</summary>
    [Parameter(Mandatory = true, ParameterSetName = RankSet)]
    public int LoraRank { get; set; }

    /// <summary>Writes LoRA instead, each layer with the smallest rank that preserves this share of its squared norm, in (0, 1].</summary>
    [Parameter(Mandatory = true, ParameterSetName = EnergySet)]
    public double LoraEnergy { get; set; }

    /// <summary>Replaces an existing adapter.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => NameOf(ParameterSetName == PipelineSet ? Pipeline : Model);

    /// <inheritdoc/>
    protected override void Process()
    {
        IAdaptable target = ParameterSetName == PipelineSet ? Pipeline : Model;
        string name = Name ?? target.GetOnlyActiveAdapterName();
        string destination = Paths.New(Destination);
        if (ParameterSetName is RankSet or EnergySet)
        {
            ExportLora(Model.GetAdapter(name), destination);
        }
        else
        {
            Export(target, name, destination);
        }

        PassOn(target);
    }

    private void Export(IAdaptable target, string name, string destination)
    {
        AdapterWriteOptions options = new() { Component = Component, Force = Force };
        if (IsRehearsal)
        {
            AdapterExporter.Export(target, name, destination, Format, options with { CheckOnly = true });
        }

        if (ShouldProcess(destination, $"Export LoKr adapter '{name}' as {Format}"))
        {
            WriteWarnings(AdapterExporter.Export(target, name, destination, Format, options));
            WriteVerbose($"Adapter '{name}' written to {destination}.");
        }
    }

    private void ExportLora(LoKrAdapter adapter, string folder)
    {
        LoraRank rank = ParameterSetName == RankSet ? Core.Conversion.LoraRank.OfSize(LoraRank) : Core.Conversion.LoraRank.OfEnergy(LoraEnergy);
        if (IsRehearsal)
        {
            StagedDirectory.Check(folder, Force, carryOver: true);
            LoraConverter.Convert(adapter, rank, StopToken).Dispose();
        }

        if (ShouldProcess(folder, $"Export LoKr adapter '{adapter.Name}' as LoRA with {rank}"))
        {
            using LoraAdapter lora = LoraConverter.Convert(adapter, rank, StopToken);
            WriteWarnings(PeftLoraFolder.Write(folder, lora, Force));
            WriteWarnings(lora.Warnings);
            LoraConversionResult result = LoraConversionResult.Of(folder, lora);
            WriteVerbose($"LoRA of rank {result.SmallestRank} to {result.LargestRank} on {result.ModuleCount} modules, {result.Energy:P2} of the squared norm, written to {folder}.");
        }
    }
}
