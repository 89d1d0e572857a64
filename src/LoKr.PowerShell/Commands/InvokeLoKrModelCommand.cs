using LoKr.PowerShell.Binding;
using System.Management.Automation;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Runs a model on texts: a classifier labels them, a language model continues them, a Stable Diffusion pipeline makes pictures of them.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "LoKrModel", DefaultParameterSetName = TextSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrClassification), typeof(LoKrCompletion), typeof(LoKrPicture))]
public sealed partial class InvokeLoKrModelCommand : PathCommand
{
    private const string TextSet = "Text";
    private const string PictureSet = "Picture";
    private readonly List<string> _waiting = [];

    /// <summary>The model.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = TextSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>The texts, or objects with a property Text or Prompt.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Text", "Prompt")]
    [AllowEmptyString]
    [ValidateNotNull]
    public string[] InputObject { get; set; } = [];

    /// <summary>Texts that a classifier takes at once, or pictures that are made at once (without it 1); results come in order whatever it is.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int BatchSize { get; set; } = 16;

    /// <summary>Longest text in tokens for a classifier, special tokens included; longer ones are cut on the right. Without it what the model allows.</summary>
    [Parameter(ParameterSetName = TextSet)]
    public int? MaxLength { get; set; }

    /// <summary>Most tokens that a language model generates.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [ValidateRange(1, int.MaxValue)]
    public int MaxNewTokens { get; set; } = 64;

    /// <summary>Divides the logits before sampling; 0 takes the most likely token every time (greedy).</summary>
    [Parameter(ParameterSetName = TextSet)]
    [ValidateRange(0d, double.MaxValue)]
    public double Temperature { get; set; }

    /// <summary>Samples among that many most likely tokens; 0 for no limit.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [ValidateRange(0, int.MaxValue)]
    public int TopK { get; set; }

    /// <summary>Samples among the most likely tokens whose probabilities reach this sum; 1 for no limit.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [ValidateRange(0d, 1d)]
    public double TopP { get; set; } = 1;

    /// <summary>Seed of the sampling, or of the noise of the first picture; the next ones have the numbers that follow.</summary>
    [Parameter]
    public long? Seed { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        foreach (string text in InputObject)
        {
            if (ParameterSetName == PictureSet)
            {
                ForOne(text, () => MakePictures(text));
                StopToken.ThrowIfCancellationRequested();
                continue;
            }

            if (Model.Pretrained is ICausalLanguageModel)
            {
                ForOne(text, () => WriteObject(TextGenerator.Complete(Model, text, Options(), StopToken)));
                StopToken.ThrowIfCancellationRequested();
                continue;
            }

            _waiting.Add(text);
            if (_waiting.Count >= BatchSize)
            {
                Classify();
            }
        }
    }

    /// <inheritdoc/>
    protected override void End()
    {
        if (_waiting.Count > 0)
        {
            Classify();
        }
    }

    private void Classify()
    {
        StopToken.ThrowIfCancellationRequested();
        string[] texts = [.. _waiting];
        _waiting.Clear();
        foreach (LoKrClassification result in TextClassifier.Classify(Model, texts, MaxLength))
        {
            WriteObject(result);
        }
    }

    private GenerationOptions Options() => new()
    {
        MaxNewTokens = MaxNewTokens,
        Temperature = Temperature,
        TopK = TopK,
        TopP = TopP,
        Seed = Seed,
    };
}
