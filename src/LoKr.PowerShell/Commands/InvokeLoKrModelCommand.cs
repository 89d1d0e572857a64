using System.Collections;
using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Errors;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Runs a model on texts: a classifier labels them or finds entities in them, a sentence encoder gives vectors or searches by them, a language model continues them or answers a conversation, a Stable Diffusion pipeline generates images from them.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "LoKrModel", DefaultParameterSetName = TextSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrClassification), typeof(LoKrEntity), typeof(LoKrEmbedding), typeof(LoKrSearchResult), typeof(LoKrCompletion), typeof(LoKrConversation), typeof(LoKrPicture))]
public sealed class InvokeLoKrModelCommand : ImageGenerationCommand
{
    private const string TextSet = "Text";
    private const string DataSet = "Data";
    private const string SearchSet = "Search";
    private const string ChatSet = "Message";
    private static readonly string[] s_toHost = ["PSHOST", "LoKr", "Text"];
    private readonly List<CutLength> _cut = [];
    private SharedResults? _shared;
    private TextBatches? _batches;
    private CorpusSearch? _search;
    private int _done;

    /// <summary>The model.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = TextSet)]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = DataSet)]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = SearchSet)]
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = ChatSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>The Stable Diffusion pipeline.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = ImageSet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>The texts, or hashtables or objects with a property Text or Prompt; to find entities also with Tokens or Words, a list of words.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = TextSet)]
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ParameterSetName = ImageSet)]
    [Alias("Text", "Prompt")]
    [ValidateNotNull]
    public object[] InputObject { get; set; } = [];

    /// <summary>Data files (.jsonl, .json, .csv, .tsv, .conll; wildcards are allowed) whose rows have a text, words or a prompt.</summary>
    [Parameter(Mandatory = true, ParameterSetName = DataSet)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Data { get; set; } = [];

    /// <summary>Messages that a language model with a chat template answers: hashtables or objects with role (system, user, assistant) and content; a text is one of the user.</summary>
    [Parameter(Mandatory = true, ParameterSetName = ChatSet)]
    [ValidateNotNullOrEmpty]
    public object[] Message { get; set; } = [];

    /// <summary>An earlier result, whose conversation -Message continues, or another object with the property Messages; null begins one.</summary>
    [Parameter(ValueFromPipeline = true, ParameterSetName = ChatSet)]
    public object? Conversation { get; set; }

    /// <summary>Variables of the chat template beside the messages: @{ enable_thinking = $false }.</summary>
    [Parameter(ParameterSetName = ChatSet)]
    [ValidateNotNull]
    public Hashtable TemplateVariable { get; set; } = [];

    /// <summary>The texts to search for, or hashtables or objects with a property Query, Text or Prompt.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = SearchSet)]
    [ValidateNotNull]
    public object[] Query { get; set; } = [];

    /// <summary>The texts that a sentence encoder searches or a reranker puts into order: texts, data files (a text with the name of one), or rows as hashtables or objects with text, document, passage or positive, and perhaps id.</summary>
    [Parameter(Mandatory = true, ParameterSetName = SearchSet)]
    [AllowEmptyCollection]
    [ValidateNotNull]
    public object[] Corpus { get; set; } = [];

    /// <summary>Number of results for each query.</summary>
    [Parameter(ParameterSetName = SearchSet)]
    [ValidateRange(1, int.MaxValue)]
    public int Top { get; set; } = 10;

    /// <summary>Name of the prompt that is put in front of every text, one of those that come with a sentence encoder. The default is the one that the model names, which is mostly none; -Query and -Corpus have those of queries and documents.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    [ValidateNotNullOrEmpty]
    public string? PromptName { get; set; }

    /// <summary>Texts that a classifier or a sentence encoder takes at once, by default 16, or images that are generated at once, by default 1. It does not change the order of the results.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int BatchSize { get; set; } = 16;

    /// <summary>Names of columns in the data, by the name that is expected: @{ text = 'subject' }.</summary>
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = SearchSet)]
    [ValidateNotNull]
    public Hashtable Column { get; set; } = [];

    /// <summary>Longest text in tokens for a classifier or a sentence encoder, special tokens included; longer ones are cut on the right. The default is the most that the model allows.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = SearchSet)]
    public int? MaxLength { get; set; }

    /// <summary>How the tokens of a word are one word where entities are found: First takes the tag of the first token, which is the one that is trained; Simple lets every token have its own; Average takes the highest mean probability, Max the highest one.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    public EntityAggregation Aggregation { get; set; }

    /// <summary>Maximum number of tokens that a language model generates: 64, and for -Message what generation_config.json says, or 256.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = ChatSet)]
    [ValidateRange(1, int.MaxValue)]
    public int MaxNewTokens { get; set; } = 64;

    /// <summary>Divides the logits before sampling; 0 always takes the most likely token (greedy). The default is 0, and for -Message what generation_config.json says.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = ChatSet)]
    [ValidateRange(0d, double.MaxValue)]
    public double Temperature { get; set; }

    /// <summary>Samples from this number of most likely tokens; 0 sets no limit. The default is 0, and for -Message what generation_config.json says.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = ChatSet)]
    [ValidateRange(0, int.MaxValue)]
    public int TopK { get; set; }

    /// <summary>Samples from the most likely tokens whose probabilities reach this sum; 1 sets no limit. The default is 1, and for -Message what generation_config.json says.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = ChatSet)]
    [ValidateRange(0d, 1d)]
    public double TopP { get; set; } = 1;

    /// <summary>Makes tokens that occurred already, also in the prompt, less likely: above 1; 1 means no penalty. The default is 1, and for -Message what generation_config.json says.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = ChatSet)]
    [ValidateRange(0.01d, 100d)]
    public double RepetitionPenalty { get; set; } = 1;

    /// <summary>Shows what a language model generates as it comes, on the information stream, in pieces of whole characters with the tag Text. The result follows as without it.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    [Parameter(ParameterSetName = ChatSet)]
    public SwitchParameter Stream { get; set; }

    /// <summary>Seed of the sampling, or of the noise of the first image; the images after it have the numbers that follow.</summary>
    [Parameter]
    public long? Seed { get; set; }

    /// <summary>Whether the texts are shared with other processes: Auto with those that mpirun or srun started beside this one, None with none, Mpi over MPI also where no launcher is seen. The first process writes the results of all, in order, which are those of one process.</summary>
    [Parameter(ParameterSetName = TextSet)]
    [Parameter(ParameterSetName = DataSet)]
    public DistributedMode Distributed { get; set; }

    /// <inheritdoc/>
    private protected override bool IsFollower => Distributed is not DistributedMode.None && base.IsFollower;

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => ParameterSetName is ImageSet or SearchSet or ChatSet;

    /// <inheritdoc/>
    protected override void Begin()
    {
        WriteWarnings(IgnoredParameters());
        if (ParameterSetName is TextSet or DataSet && WorkerGroup.Join(Distributed) is WorkerGroup workers)
        {
            _shared = new SharedResults(workers, Model);
            WriteWarnings(Ignored("where several processes share the texts", nameof(Stream)));
        }

        if (ParameterSetName is TextSet or DataSet)
        {
            _batches = new TextBatches(Model, BatchSize, new() { MaxLength = MaxLength, Aggregation = Aggregation, PromptName = PromptName }, WriteFailure);
        }
    }

    /// <inheritdoc/>
    protected override void Process()
    {
        if (ParameterSetName == ChatSet)
        {
            WriteObject(ChatGenerator.Answer(Model, [.. ChatMessages.Of(Conversation), .. Message.Select(ChatMessages.Read)], ReadChatOptions(), Streamed(), StopToken));
            EndStream();
            return;
        }

        if (ParameterSetName == DataSet)
        {
            IReadOnlyList<DataRow> rows = ReadRows(Data, DataRows.BeginReading(Column, skipInvalid: false));
            foreach (DataRow row in rows)
            {
                Take(Check(TextInputs.Of(row, IsTagger)), (double)(_done + 1) / rows.Count);
            }

            return;
        }

        if (ParameterSetName == SearchSet)
        {
            Search();
            return;
        }

        int before = _done;
        foreach (object item in InputObject)
        {
            if (Read(item) is TextInput text)
            {
                Take(text, InputObject.Length == 1 ? null : (double)(_done + 1 - before) / InputObject.Length);
            }
        }
    }

    /// <inheritdoc/>
    protected override void End()
    {
        Answer(_batches?.TakeRest());
        Write(_shared?.Complete<TextAnswers>());
        if (ParameterSetName is TextSet or DataSet)
        {
            Bar.Hide();
        }

        if (_cut.Count > 0)
        {
            WriteWarning(CutLength.Describe(_cut, ParameterSetName == ImageSet ? "prompt" : "text"));
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _search?.Dispose();
        }

        base.Dispose(disposing);
    }

    private void Search()
    {
        _search ??= new CorpusSearch(Model, ReadCorpus(), BatchSize, MaxLength);
        foreach (object item in Query)
        {
            ForOne(item, () => WriteObject(Find(_search, TextInputs.ReadQuery(item)), enumerateCollection: true));
            StopToken.ThrowIfCancellationRequested();
        }
    }

    private IReadOnlyList<SearchDocument> ReadCorpus()
    {
        DataReading reading = DataRows.BeginReading(Column, skipInvalid: false);
        return reading.ReadFitting(ReadRows(SearchInputs.ToRows(Corpus, Paths), reading), SearchDocument.Of);
    }

    private IReadOnlyList<LoKrSearchResult> Find(CorpusSearch search, string query)
    {
        List<CutLength> cut = [];
        IReadOnlyList<LoKrSearchResult> found = RunReported($"{(Reranker.Is(Model) ? "Scoring" : "Encoding")} the corpus", share => $"{share:P0} of {search.Count} texts",
            (report, token) => search.Find(query, Top, report, text => cut.Add(CutLength.Of(text)), token));
        _cut.AddRange(cut);
        return found;
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

        IEnumerable<string> ofEntities = IsTagger ? [] : Ignored("for a model that finds no entities", nameof(Aggregation));
        IEnumerable<string> ofEncoders = Model.Pretrained is ISentenceEncoder ? [] : Ignored("for a model that is not a sentence encoder", nameof(PromptName));
        return [.. ofEntities, .. ofEncoders, .. Model.Pretrained is ICausalLanguageModel language
            ? (string[])[
                .. Ignored("for a language model, which continues one whole text at a time", nameof(MaxLength), nameof(BatchSize)),
                .. ParameterSetName == ChatSet ? language.ReadGenerationSettings().Ignored.Select(static setting => $"generation_config.json of the model has {setting}, which has no effect.") : [],
                .. Temperature > 0 || (ParameterSetName == ChatSet && ReadChatOptions().Samples(language.ReadGenerationSettings())) ? [] : Ignored($"at a temperature of 0, which always takes the most likely token; give -{nameof(Temperature)} to sample", nameof(TopK), nameof(TopP), nameof(Seed)),
            ]
            : Ignored($"for a {(Model.Pretrained is ISentenceEncoder ? "sentence encoder" : "classifier")}, which generates no text", nameof(MaxNewTokens), nameof(Temperature), nameof(TopK), nameof(TopP), nameof(RepetitionPenalty), nameof(Seed), nameof(Stream))];
    }

    // Images have bars of their own. How many objects will come through the pipeline is not known.
    private void Show(int done, double? share)
    {
        if (ParameterSetName != ImageSet)
        {
            Bar.ShowIfDue(share, $"{done} texts");
        }
    }

    private ProgressBar Bar => LastingBar($"Running {Model.Name}");

    private bool IsTagger => ParameterSetName != ImageSet && Model.Pretrained is ITokenClassifier;

    private TextInput? Read(object item)
    {
        TextInput? text = null;
        ForOne(item, () => text = Check(TextInputs.ReadInput(item, IsTagger)));
        return text;
    }

    private TextInput Check(TextInput text) =>
        text.Pair is not null && (ParameterSetName == ImageSet || Model.Pretrained is not ISequenceClassifier) ? throw new LoKrException(
            ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidArgument, "A pair of texts is for a text classifier.", "Leave the second text out, or write both into one.") { Target = text.Pair }
        : text;

    private void Answer(Func<TextAnswers>? batch)
    {
        if (batch is not null)
        {
            StopToken.ThrowIfCancellationRequested();
            Write(_shared is null ? [batch()] : _shared.Add(batch, WriteFailure));
        }
    }

    private void Complete(string text)
    {
        if (_shared is null)
        {
            ForOne(text, () =>
            {
                TextAnswers answers = Compute(Streamed());
                EndStream();
                Write([answers]);
            });
        }
        else
        {
            Write(_shared.Add(() => Compute(null), WriteFailure));
        }

        TextAnswers Compute(Action<string>? onText) => new() { Completion = TextGenerator.Complete(Model, text, ReadGenerationOptions(), onText, StopToken) };
    }

    // The host shows it whatever $InformationPreference is, as what Write-Host writes.
    private Action<string>? Streamed() => !Stream ? null : text => WriteInformation(new HostInformationMessage { Message = text, NoNewLine = true }, s_toHost);

    private void EndStream()
    {
        if (Stream)
        {
            WriteInformation(new HostInformationMessage { Message = "" }, s_toHost);
        }
    }

    private void WriteFailure(TextInput text, Exception exception) => WriteError(ErrorFactory.Create(exception, MyInvocation.MyCommand.Name, text.Text));

    private void WriteFailure(Exception exception) => WriteError(ErrorFactory.Create(exception, MyInvocation.MyCommand.Name, Model.SourcePath ?? Model.Name));

    private void Write(IReadOnlyList<TextAnswers>? pieces)
    {
        foreach (TextAnswers answers in pieces ?? [])
        {
            _cut.AddRange(answers.Cut);
            WriteObject(answers.Results(), enumerateCollection: true);
        }
    }

    private void Take(TextInput text, double? share)
    {
        if (ParameterSetName == ImageSet)
        {
            ForOne(text.Text, () => GenerateImages(Pipeline, text.Text, Seed, Given(nameof(BatchSize)) ? BatchSize : 1, _cut));
        }
        else if (Model.Pretrained is ICausalLanguageModel)
        {
            Complete(text.Text);
        }
        else
        {
            Answer(_batches!.Add(text));
        }

        StopToken.ThrowIfCancellationRequested();
        Show(++_done, share);
    }

    private GenerationOptions ReadGenerationOptions() => new()
    {
        MaxNewTokens = MaxNewTokens,
        Temperature = Temperature,
        TopK = TopK,
        TopP = TopP,
        RepetitionPenalty = RepetitionPenalty,
        Seed = Seed,
    };

    private ChatOptions ReadChatOptions() => new()
    {
        MaxNewTokens = Given(nameof(MaxNewTokens)) ? MaxNewTokens : null,
        Temperature = Given(nameof(Temperature)) ? Temperature : null,
        TopK = Given(nameof(TopK)) ? TopK : null,
        TopP = Given(nameof(TopP)) ? TopP : null,
        RepetitionPenalty = Given(nameof(RepetitionPenalty)) ? RepetitionPenalty : null,
        Seed = Seed,
        Variables = DataRows.Plain(TemplateVariable) as IReadOnlyDictionary<string, object?>,
    };

    private bool Given(string parameter) => MyInvocation.BoundParameters.ContainsKey(parameter);
}
