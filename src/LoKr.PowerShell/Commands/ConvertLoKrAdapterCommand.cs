using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Converts an adapter file for another program or to another layout without changing its effect on a model, or to LoRA.</summary>
[Cmdlet(VerbsData.Convert, "LoKrAdapter", DefaultParameterSetName = "Path", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrAdapterInfo), typeof(LoraConversionResult), ParameterSetName = ["Path", "LiteralPath", "PathFor", "LiteralPathFor"])]
[OutputType(typeof(LoraConversionResult), ParameterSetName = ["PathLoraRank", "LiteralPathLoraRank", "PathLoraEnergy", "LiteralPathLoraEnergy"])]
public sealed class ConvertLoKrAdapterCommand : LoKrCommand
{
    /// <summary>Safetensors file, or adapter folder. Wildcards are allowed if they match one item.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "Path")]
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "PathFor")]
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "PathLoraRank")]
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "PathLoraEnergy")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Safetensors file, or adapter folder, taken as it is written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPath")]
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPathFor")]
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPathLoraRank")]
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPathLoraEnergy")]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>Layout to write; Gguf writes LoRA for llama.cpp, exact unless a rank or an energy is given, and needs the base model. With a rank or an energy Peft (the default) or Gguf.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Path")]
    [Parameter(Mandatory = true, ParameterSetName = "LiteralPath")]
    [Parameter(ParameterSetName = "PathLoraRank")]
    [Parameter(ParameterSetName = "LiteralPathLoraRank")]
    [Parameter(ParameterSetName = "PathLoraEnergy")]
    [Parameter(ParameterSetName = "LiteralPathLoraEnergy")]
    public AdapterFormat Format { get; set; }

    /// <summary>Program that is to read the result: names, scale and form of the factors are those that it reads for the model. For Vllm, and with LoraRank or LoraEnergy, it is LoRA; for Peft it is where the source has LoRA alone.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "PathFor")]
    [Parameter(Mandatory = true, ParameterSetName = "LiteralPathFor")]
    [Parameter(ParameterSetName = "PathLoraRank")]
    [Parameter(ParameterSetName = "LiteralPathLoraRank")]
    [Parameter(ParameterSetName = "PathLoraEnergy")]
    [Parameter(ParameterSetName = "LiteralPathLoraEnergy")]
    public AdapterProgram For { get; set; }

    /// <summary>Writes LoRA of this rank instead: a folder for PEFT, for diffusers where the adapter belongs to a pipeline, a safetensors file with kohya's names, or a GGUF file. It is exact from the product of the ranks of w1 and w2 on.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "PathLoraRank")]
    [Parameter(Mandatory = true, ParameterSetName = "LiteralPathLoraRank")]
    public int LoraRank { get; set; }

    /// <summary>Writes LoRA instead, with the smallest rank that preserves this share of the squared norm of every layer, in (0, 1].</summary>
    [Parameter(Mandatory = true, ParameterSetName = "PathLoraEnergy")]
    [Parameter(Mandatory = true, ParameterSetName = "LiteralPathLoraEnergy")]
    public double LoraEnergy { get; set; }

    /// <summary>Gives every layer the rank that it needs, in the patterns of adapter_config.json. PEFT alone reads them; without this switch all layers have one rank, filled with zeros.</summary>
    [Parameter(ParameterSetName = "PathLoraRank")]
    [Parameter(ParameterSetName = "LiteralPathLoraRank")]
    [Parameter(ParameterSetName = "PathLoraEnergy")]
    [Parameter(ParameterSetName = "LiteralPathLoraEnergy")]
    public SwitchParameter RankPattern { get; set; }

    /// <summary>Safetensors file to write; for Gguf a file that ends with .gguf. For LoRA, Peft, Diffusers and DiffusersModel a name without that extension is a folder.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Folder, safetensors file or GGUF file of the base model. Its headers resolve names with underscores into dotted names, and give the shapes of layers.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>A model to use instead of the base model's files. It is not changed.</summary>
    [Parameter]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel? Model { get; set; }

    /// <summary>Component of a pipeline: the one to convert if the file has several, or the name of the only one in the result.</summary>
    [Parameter]
    public AdapterComponent? Component { get; set; }

    /// <summary>Alpha of every module; it overrides the file.</summary>
    [Parameter]
    public double? Alpha { get; set; }

    /// <summary>Convention by which alpha becomes a factor; it overrides that of the program that wrote the file: Peft, Lycoris, or None for 1.</summary>
    [Parameter]
    public ScalingConvention? Scaling { get; set; }

    /// <summary>Rank of modules whose factors are both whole, for a Scaling that depends on it; without it the one that kohya's trainers write into the header.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int? Rank { get; set; }

    /// <summary>Leaves out tensors of other kinds of adapters that the target does not take, with a warning, in place of an error.</summary>
    [Parameter]
    public SwitchParameter SkipUnsupported { get; set; }

    /// <summary>
    /// How the result divides the weights of its model. Split: q, k and v of their own, as published folders have them. Fused: one below the other, as
    /// single files have them. Without it the file's division stays, but where the program of For has names for the other one only.
    /// </summary>
    [Parameter]
    public ModuleDivision? Division { get; set; }

    /// <summary>The form of rows that are not one Kronecker product in another division; without it that is an error. Lora: LoRA of the exact rank, where the target takes it. Full: whole matrices, exact and as large as the weight.</summary>
    [Parameter]
    public InexactRows Inexact { get; set; }

    /// <summary>Layout of the file; it overrides the one that the names of its tensors suggest.</summary>
    [Parameter]
    public AdapterLayout? SourceFormat { get; set; }

    /// <summary>Replaces the destination if it exists. With For it also writes what the program will not read, with a warning that counts it.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => LiteralPath.Length > 0 ? LiteralPath : Path;

    private AdapterProgram? Program => MyInvocation.BoundParameters.ContainsKey(nameof(For)) ? For : null;

    /// <inheritdoc/>
    protected override void Begin() => WriteWarnings(
    [
        .. Model is null ? [] : Ignored($"beside -{nameof(Model)}", nameof(BasePath)),
        .. Scaling is ScalingConvention.None ? Ignored($"beside -{nameof(Scaling)} {Scaling}", nameof(Alpha)) : [],
    ]);

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process()
    {
        string path = Paths.ExistingOne(Path, LiteralPath);
        string destination = Paths.Destination(Destination);
        AdapterReadOptions read = new() { Layout = SourceFormat, Component = Component, Alpha = Alpha, Scaling = Scaling, Rank = Rank, Foreign = SkipUnsupported ? ForeignTensors.Skip : ForeignTensors.Refuse };
        LoraRank? rank = RankOfLora(path, read);
        LoraTarget.Check(Format, rank, Program);
        EnsureRuntime();
        AdapterConvertOptions options = new()
        {
            Read = read,
            BasePath = BasePath is null ? null : Paths.ExistingOne(BasePath),
            Model = Model,
            Program = Program,
            Division = Division,
            Inexact = Inexact,
            Force = Force,
        };
        LoraWriteOptions lora = new() { Program = Program, Force = Force };
        if (IsRehearsal)
        {
            Check(path, destination, rank, options, lora);
        }

        if (!ShouldProcess(destination, $"Convert LoKr adapter {path} {(rank is not null ? $"to LoRA with {rank}" : Program is null ? $"to {Format}" : $"for {Program}")}"))
        {
            return;
        }

        if (Format == AdapterFormat.Gguf)
        {
            LoraConversionResult written = GgufLoraConverter.Convert(path, destination, rank, options, out IReadOnlyList<string> warnings, StopToken);
            WriteWarnings(warnings);
            WriteObject(written);
        }
        else if (rank is null)
        {
            LoKrAdapterInfo written = AdapterConverter.Convert(path, destination, (AdapterLayout)Format, options, out IReadOnlyList<string> warnings);
            WriteWarnings(warnings);
            WriteObject(written);
        }
        else
        {
            LoraWriteResult written = AdapterLoraConverter.Convert(path, destination, rank, options, lora, StopToken);
            WriteWarnings(written.Warnings);
            WriteObject(written.Result);
        }
    }

    // vLLM loads LoRA only; without a rank it gets the exact one. A file of LoRA alone stays LoRA for PEFT.
    private LoraRank? RankOfLora(string path, AdapterReadOptions read) => ParameterSetName.EndsWith("LoraRank", StringComparison.Ordinal) ? Core.Conversion.LoraRank.OfSize(LoraRank) with { Patterned = RankPattern }
        : ParameterSetName.EndsWith("LoraEnergy", StringComparison.Ordinal) ? Core.Conversion.LoraRank.OfEnergy(LoraEnergy) with { Patterned = RankPattern }
        : Program == AdapterProgram.Vllm ? Core.Conversion.LoraRank.OfEnergy(1)
        : Program == AdapterProgram.Peft && AdapterLoraConverter.IsLora(path, read) ? Core.Conversion.LoraRank.Exact
        : null;

    private void Check(string path, string destination, LoraRank? rank, AdapterConvertOptions options, LoraWriteOptions lora)
    {
        if (Format == AdapterFormat.Gguf)
        {
            GgufLoraConverter.Check(path, destination, rank, options, StopToken);
        }
        else if (rank is null)
        {
            AdapterConverter.Check(path, destination, (AdapterLayout)Format, options);
        }
        else
        {
            AdapterLoraConverter.Convert(path, destination, rank, options, lora with { CheckOnly = true }, StopToken);
        }
    }
}
