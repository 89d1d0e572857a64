using System.Management.Automation;
using LoKr.Core.Adapters;
using LoKr.Core.Inference;
using LoKr.Core.Modeling;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Runs a model on texts: a classifier labels them, a language model continues them.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "LoKrModel")]
[OutputType(typeof(LoKrClassification), typeof(LoKrCompletion))]
public sealed class InvokeLoKrModelCommand : LoKrCommand
{
    private readonly List<string> _waiting = [];

    /// <summary>The model.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>The texts, or objects with a property Text or Prompt.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("Text", "Prompt")]
    [AllowEmptyString]
    [ValidateNotNull]
    public string[] InputObject { get; set; } = [];

    /// <summary>Texts that a classifier takes at once; results come in the order of the texts whatever it is.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int BatchSize { get; set; } = 16;

    /// <summary>Longest text in tokens for a classifier, special tokens included; longer ones are cut on the right. Without it what the model allows.</summary>
    [Parameter]
    public int? MaxLength { get; set; }

    /// <summary>Most tokens that a language model generates.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int MaxNewTokens { get; set; } = 64;

    /// <summary>Divides the logits before sampling; 0 takes the most likely token every time (greedy).</summary>
    [Parameter]
    [ValidateRange(0d, double.MaxValue)]
    public double Temperature { get; set; }

    /// <summary>Samples among that many most likely tokens; 0 for no limit.</summary>
    [Parameter]
    [ValidateRange(0, int.MaxValue)]
    public int TopK { get; set; }

    /// <summary>Samples among the most likely tokens whose probabilities reach this sum; 1 for no limit.</summary>
    [Parameter]
    [ValidateRange(0d, 1d)]
    public double TopP { get; set; } = 1;

    /// <summary>Seed of the sampling.</summary>
    [Parameter]
    public long? Seed { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        foreach (string text in InputObject)
        {
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
