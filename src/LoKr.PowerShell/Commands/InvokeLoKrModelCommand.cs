using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Runs a model on texts: a classifier labels them, a language model continues them, a Stable Diffusion pipeline generates images from them.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "LoKrModel", DefaultParameterSetName = TextSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrClassification), typeof(LoKrCompletion), typeof(LoKrPicture))]
public sealed class InvokeLoKrModelCommand : ImageGenerationCommand
{
    private const string TextSet = "Text";
    private readonly List<string> _waiting = [];
    private readonly List<CutText> _cut = [];

    // One for each destination, over all its prompts, so that every file has a number of its own.
    private readonly Dictionary<string, ImageSeries> _series = new(StringComparer.Ordinal);

    private ProgressBar? _bar;
    private int _done;

    /// <summary>The model.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = TextSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>The Stable Diffusion pipeline.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = ImageSet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>The texts, or hashtables or objects with a property Text or Prompt.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true)]
    [Alias("Text", "Prompt")]
    [ValidateNotNull]
    public object[] InputObject { get; set; } = [];

    /// <summary>Texts that a classifier takes at once, by default 16, or images that are generated at once, by default 1. It does not change the order of the results.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int BatchSize { get; set; } = 16;

    /// <summary>Longest text in tokens for a classifier, special tokens included; longer ones are cut on the right. The default is the most that the model allows.</summary>
    [Parameter(ParameterSetName = TextSet)]
    public int? MaxLength { get; set; }

    /// <summary>Maximum number of tokens that a language model generates.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [ValidateRange(1, int.MaxValue)]
    public int MaxNewTokens { get; set; } = 64;

    /// <summary>Divides the logits before sampling; 0 always takes the most likely token (greedy).</summary>
    [Parameter(ParameterSetName = TextSet)]
    [ValidateRange(0d, double.MaxValue)]
    public double Temperature { get; set; }

    /// <summary>Samples from this number of most likely tokens; 0 sets no limit.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [ValidateRange(0, int.MaxValue)]
    public int TopK { get; set; }

    /// <summary>Samples from the most likely tokens whose probabilities reach this sum; 1 sets no limit.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [ValidateRange(0d, 1d)]
    public double TopP { get; set; } = 1;

    /// <summary>Seed of the sampling, or of the noise of the first image; the images after it have the numbers that follow.</summary>
    [Parameter]
    public long? Seed { get; set; }

    /// <inheritdoc/>
    protected override void Begin() => WriteWarnings(IgnoredParameters());

    /// <inheritdoc/>
    protected override void Process()
    {
        int before = _done;
        foreach (object item in InputObject)
        {
            if (Read(item) is not string text)
            {
                continue;
            }

            if (ParameterSetName == ImageSet)
            {
                ForOne(text, () => Generate(text));
            }
            else if (Model.Pretrained is ICausalLanguageModel)
            {
                ForOne(text, () => WriteObject(TextGenerator.Complete(Model, text, ReadGenerationOptions(), StopToken)));
            }
            else
            {
                _waiting.Add(text);
                if (_waiting.Count >= BatchSize)
                {
                    Classify();
                }
            }

            StopToken.ThrowIfCancellationRequested();
            Show(++_done, InputObject.Length == 1 ? null : (double)(_done - before) / InputObject.Length);
        }
    }

    /// <inheritdoc/>
    protected override void End()
    {
        if (_waiting.Count > 0)
        {
            Classify();
        }

        _bar?.Hide();
        if (_cut.Count > 0)
        {
            string what = ParameterSetName == ImageSet ? "prompt" : "text";
            int used = _cut.Min(static text => text.Ids.Length);
            int longest = _cut.Max(static text => text.TokenCount);
            WriteWarning(_cut.Count == 1
                ? string.Create(CultureInfo.InvariantCulture, $"The {what} has {longest} tokens; the first {used} are used.")
                : string.Create(CultureInfo.InvariantCulture, $"{_cut.Count} {what}s are cut to {used} tokens; the longest has {longest}."));
        }
    }

    private IEnumerable<string> IgnoredParameters()
    {
        if (ParameterSetName == ImageSet)
        {
            return
            [
                .. Guidance > 1 ? [] : Ignored($"without guidance, which -{nameof(Guidance)} of 1 or less turns off", nameof(NegativePrompt)),
                .. Pipeline.GetActiveAdapters().Count > 0 ? [] : Ignored("without an active adapter", nameof(AdapterScale)),
            ];
        }

        return Model.Pretrained is ICausalLanguageModel
            ? [
                .. Ignored("for a language model, which continues one whole text at a time", nameof(MaxLength), nameof(BatchSize)),
                .. Temperature > 0 ? [] : Ignored($"at a temperature of 0, which always takes the most likely token; give -{nameof(Temperature)} to sample", nameof(TopK), nameof(TopP), nameof(Seed)),
            ]
            : Ignored("for a classifier, which generates no text", nameof(MaxNewTokens), nameof(Temperature), nameof(TopK), nameof(TopP), nameof(Seed));
    }

    // Images have bars of their own. How many objects will come through the pipeline is not known.
    private void Show(int done, double? share)
    {
        if (ParameterSetName == TextSet)
        {
            _bar ??= new ProgressBar(this, $"Running {Model.Name}");
            _bar.ShowIfDue(share, $"{done} texts");
        }
    }

    private string? Read(object item)
    {
        string? text = null;
        ForOne(item, () => text = TextInputs.Read(item));
        return text;
    }

    private void Classify()
    {
        StopToken.ThrowIfCancellationRequested();
        string[] texts = [.. _waiting];
        _waiting.Clear();
        foreach (LoKrClassification result in TextClassifier.Classify(Model, texts, MaxLength, _cut.Add))
        {
            WriteObject(result);
        }
    }

    private void Generate(string prompt)
    {
        string destination = Paths.New(Destination);
        if (!_series.TryGetValue(destination, out ImageSeries? series))
        {
            _series.Add(destination, series = new ImageSeries(destination, Force));
        }

        IReadOnlyList<string> files = series.Reserve(Count);
        if (!ShouldProcess(string.Join(", ", files), $"Generate {(Count == 1 ? "an image" : $"{Count} images")} of '{prompt}'"))
        {
            return;
        }

        EnsureRuntime();
        _cut.AddRange(new[] { prompt, NegativePrompt is not null && _cut.Count == 0 ? NegativePrompt : "" }.Select(Pipeline.Measure).Where(static text => text.IsCut));
        ImageGenerationOptions options = ReadImageOptions(Seed, MyInvocation.BoundParameters.ContainsKey(nameof(BatchSize)) ? BatchSize : 1);
        using ProgressBar bar = new(this, $"Generating an image of '{prompt}'");
        foreach (LoKrPicture image in series.Generate(Pipeline, prompt, files, options, step => Show(step, bar), StopToken))
        {
            WriteObject(image);
        }
    }

    private static void Show(DenoisingStep step, ProgressBar bar)
    {
        string image = step.ImageCount == 1 ? "" : $"image {step.Image}/{step.ImageCount}, ";
        bar.ShowIfDue((step.Image - 1 + ((double)step.Step / step.StepCount)) / step.ImageCount, $"{image}step {step.Step}/{step.StepCount}");
    }

    private GenerationOptions ReadGenerationOptions() => new()
    {
        MaxNewTokens = MaxNewTokens,
        Temperature = Temperature,
        TopK = TopK,
        TopP = TopP,
        Seed = Seed,
    };
}
