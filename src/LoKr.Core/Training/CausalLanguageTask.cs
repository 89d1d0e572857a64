using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// Prediction of the next token. Rows have <c>text</c> (loss on every token but the first), or <c>prompt</c> and <c>completion</c>
/// (loss on the completion only); the end-of-text token follows and has loss too. Or they have a <see cref="Conversation"/>, which the chat
/// template of the model renders (loss on what the assistant says only). The loss is the mean cross entropy over the tokens with loss, as
/// transformers computes it with labels of -100 elsewhere.
/// </summary>
public sealed class CausalLanguageTask : ITrainingTask
{
    private readonly List<EncodedText> _texts = [];
    private readonly List<string> _warnings = [];
    private readonly int _padId;
    private readonly int? _maxLength;
    private readonly bool _canPack;

    // The rows that share a line of a batch, and the length of each line.
    private readonly IReadOnlyList<int[]> _lines;
    private readonly int[] _lengths;

    /// <summary>
    /// Tokenizes rows on all cores. Longer sequences are cut on the right, so that a cut text has no end of text.
    /// Rows without a token with loss are left out and named in <see cref="Warnings"/>.
    /// </summary>
    /// <param name="model">A causal language model with a tokenizer.</param>
    /// <param name="rows">Rows with <c>text</c>, or <c>prompt</c> and <c>completion</c>, or a conversation.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="reading">Treatment of rows that do not fit, tokens with loss, and the day of chat templates; null for the defaults.</param>
    /// <param name="onProgress">Called now and then with the share of the rows that are tokenized, on any thread.</param>
    /// <param name="cancellationToken">Stops tokenizing.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.DataColumnMissing"/>,
    /// <see cref="ErrorIds.DataValueInvalid"/>, <see cref="ErrorIds.DataWithoutLoss"/> or <see cref="ErrorIds.MaxLengthTooLarge"/>; for conversations
    /// <see cref="ErrorIds.ChatTemplateMissing"/>, <see cref="ErrorIds.ChatTemplateInvalid"/> or <see cref="ErrorIds.ChatTemplateUnsupported"/>.
    /// </exception>
    public CausalLanguageTask(
        LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null, DataReading? reading = null, Action<double>? onProgress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        reading ??= new();
        ICausalLanguageModel languageModel = LanguageModel(model);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        int longest = TextEncoding.ResolveMaxLength(maxLength, languageModel.MaxSequenceLength, tokenizer);

        LanguageEncoder encoder = new(model, languageModel, reading);
        IReadOnlyList<(LanguageRow Row, EncodedText Text)> encoded = encoder.EncodeAll(reading.ReadFitting(rows, LanguageRow.Of), reading, onProgress, cancellationToken);
        bool hasChats = encoded.Any(static row => row.Row.Conversation is not null);
        Day = hasChats && ChatTemplates.Require(model).WritesDate ? reading.Day : null;
        Add(encoded, longest);
        _warnings.AddRange(reading.Warnings);
        if (encoder.EosId is null && encoded.Any(static row => row.Row.Conversation is null))
        {
            _warnings.Add("The tokenizer names no end-of-text token, so the model does not learn where to stop.");
        }

        _padId = tokenizer.PadId ?? encoder.EosId ?? 0;
        (_maxLength, _canPack) = (maxLength, languageModel is IPackedLanguageModel);
        _lines = [.. Enumerable.Range(0, _texts.Count).Select(static row => (int[])[row])];
        _lengths = [.. _texts.Select(static text => text.Ids.Length)];
    }

    private CausalLanguageTask(CausalLanguageTask rows, IReadOnlyList<int[]> lines)
    {
        (_texts, _warnings, _padId, _maxLength, _lines, Day) = (rows._texts, rows._warnings, rows._padId, rows._maxLength, lines, rows.Day);
        _lengths = [.. lines.Select(line => line.Sum(row => _texts[row].Ids.Length))];
    }

    /// <inheritdoc/>
    public string Unit => "tokens";

    /// <inheritdoc/>
    public int RowCount => _texts.Count;

    /// <inheritdoc/>
    public TrainingMetric Metric => TrainingMetric.Perplexity;

    /// <inheritdoc/>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <inheritdoc/>
    public DateTime? Day { get; }

    /// <inheritdoc/>
    public string DataHash => field ??= Hash();

    /// <inheritdoc/>
    public int LineCount => _lines.Count;

    /// <inheritdoc/>
    public int CountBatches(int batchSize) => (LineCount + batchSize - 1) / batchSize;

    /// <inheritdoc/>
    public long LargestBatch(int batchSize) => (long)Math.Min(batchSize, LineCount) * _lengths.Max();

    /// <inheritdoc/>
    public IEnumerable<TrainingBatch> Batches(BatchOrder order) =>
        LengthBuckets.Create(_lengths, order).Select(lines => new LanguageBatch([.. lines.Select(line => _lines[line].Select(row => _texts[row]).ToArray())], _padId));

    /// <summary>
    /// The task with several rows in a line: up to the longest sequence that was asked for, or else up to the longest row. The lines stay the same
    /// in every epoch; null for a model that cannot tell texts in a row apart.
    /// </summary>
    public ITrainingTask? Pack() =>
        _canPack ? new CausalLanguageTask(this, RowPacking.Pack(_lengths, _maxLength ?? _lengths.Max())) : null;

    /// <inheritdoc/>
    public Tensor Loss(LoKrModel model, TrainingBatch batch)
    {
        (ICausalLanguageModel languageModel, Tensor hidden, Tensor targets) = Forward(model, batch);
        return NextTokenLoss.Mean(languageModel, hidden, targets);
    }

    /// <inheritdoc/>
    public BatchScore Score(LoKrModel model, TrainingBatch batch)
    {
        var rows = (LanguageBatch)batch;
        (Tensor losses, Tensor? misses) = ScoreTokens(model, rows);
        return misses is null ? new BatchScore(losses.sum()) : new BatchScore(losses.sum(), Exact(rows, misses).sum());
    }

    /// <inheritdoc/>
    public IReadOnlyList<RowScore> ScoreRows(LoKrModel model, TrainingBatch batch)
    {
        var rows = (LanguageBatch)batch;
        (Tensor losses, Tensor? misses) = ScoreTokens(model, rows);
        RowScore[] scores = new RowScore[rows.RowCount];
        bool[] exact = misses is null ? [] : Exact(rows, misses).cpu().data<bool>().ToArray();
        foreach ((int answer, int row) in rows.AnswerRows.Index())
        {
            scores[row] = scores[row] with { IsExact = exact[answer] };
        }

        foreach ((int i, double loss) in RowScores.ToArray(losses).Index())
        {
            ref RowScore score = ref scores[rows.RowIndices[i]];
            score = score with { LossSum = score.LossSum + loss, LossCount = score.LossCount + 1 };
        }

        return scores;
    }

    /// <summary>Has nothing to release: the data are plain arrays.</summary>
    public void Dispose()
    {
    }

    private static (Tensor Losses, Tensor? Misses) ScoreTokens(LoKrModel model, LanguageBatch rows)
    {
        (ICausalLanguageModel languageModel, Tensor hidden, Tensor targets) = Forward(model, rows);
        return NextTokenLoss.Each(languageModel, hidden, targets, withMisses: rows.AnswerCount > 0);
    }

    /// <summary>Only positions that predict a token with loss are computed behind the last layer's attention, and get logits.</summary>
    private static (ICausalLanguageModel Model, Tensor Hidden, Tensor Targets) Forward(LoKrModel model, TrainingBatch batch)
    {
        ArgumentNullException.ThrowIfNull(model);
        var rows = (LanguageBatch)batch;
        Device device = model.Device;
        ICausalLanguageModel languageModel = LanguageModel(model);

        // Padding is on the right and attention only looks left, so no token sees padding and no mask is needed.
        Tensor ids = rows.Tokens.IdsOn(device);
        Tensor places = tensor(rows.Positions, device: device);
        Tensor hidden = rows.TextPositions is { } positions
            ? ((IPackedLanguageModel)languageModel).PackedHiddenStates(ids, positions.IdsOn(device), places)
            : languageModel.HiddenStates(ids, places: places);
        return (languageModel, hidden, tensor(rows.Targets, device: device));
    }

    // Rows whose answers greedy decoding would give as they are: each of their tokens is the most likely one behind those before it.
    private static Tensor Exact(LanguageBatch rows, Tensor misses) => zeros(rows.AnswerCount + 1, ScalarType.Int64, misses.device)
        .index_add(0, tensor(rows.Answers, device: misses.device), misses, 1).narrow(0, 0, rows.AnswerCount).eq(0);

    private static ICausalLanguageModel LanguageModel(LoKrModel model) => model.Pretrained as ICausalLanguageModel ?? throw new LoKrException(
        ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} is not a causal language model.", "Use another model, or train it with a loss of your own.");

    // Where the loss of every row begins; the spans too, unless each row has one that goes to its end.
    private string Hash()
    {
        RowHash hash = new RowHash().Add([.. _texts.Select(static text => text.Ids)]).Add([.. _texts.Select(static text => (long)text.Loss[0].Start)]);
        return (_texts.All(static text => text.Loss is [var only] && only.End == text.Ids.Length) ? hash
            : hash.Add([.. _texts.Select(static text => text.Loss.SelectMany(static span => (int[])[span.Start, span.End]).ToArray())])).Finish();
    }

    private void Add(IReadOnlyList<(LanguageRow Row, EncodedText Text)> encoded, int longest)
    {
        List<string> lost = [];
        List<int> cut = [];
        AnswerCounts answers = new();
        foreach ((LanguageRow row, EncodedText whole) in encoded)
        {
            EncodedText text = whole.Cut(longest);
            answers.Add(row, whole, longest);

            // Nothing predicts the first token.
            if (text.Loss.Length == 0 || text.Loss[^1].End <= 1)
            {
                lost.Add(row.Row.Origin);
                continue;
            }

            if (text.Ids.Length < whole.Ids.Length)
            {
                cut.Add(whole.Ids.Length);
            }

            _texts.Add(text);
        }

        if (_texts.Count == 0)
        {
            throw new LoKrException(
                ErrorIds.DataWithoutLoss,
                LoKrErrorKind.InvalidData,
                $"None of the {encoded.Count} rows has a token to learn from within {longest} tokens.",
                "Allow longer sequences, or shorten the prompts.");
        }

        if (lost.Count > 0)
        {
            string named = string.Join(", ", lost.Take(10)) + (lost.Count > 10 ? ", …" : "");
            _warnings.Add($"{lost.Count} of {encoded.Count} rows have no token to learn from within {longest} tokens and are left out: {named}.");
        }

        _warnings.AddRange(CutText.Describe(cut, encoded.Count, "rows", longest));
        _warnings.AddRange(answers.Describe(longest));
    }
}

/// <summary>Texts with, for every token with loss, the position that predicts it. Several texts may share a line.</summary>
public sealed class LanguageBatch : TokenBatch
{
    internal LanguageBatch(IReadOnlyList<EncodedText[]> lines, int padId)
        : base([.. lines.Select(static line => line.SelectMany(static text => text.Ids).ToArray())], padId)
    {
        List<long> positions = [];
        List<long> targets = [];
        List<int> rows = [];
        List<int> answerRows = [];
        List<long> answers = [];
        for (int l = 0; l < lines.Count; l++)
        {
            long offset = (long)l * Tokens.Length;
            foreach (EncodedText text in lines[l])
            {
                int answer = text.HasAnswers ? answerRows.Count : -1;
                if (answer >= 0)
                {
                    answerRows.Add(RowCount);
                }

                foreach (LossSpan span in text.Loss)
                {
                    // Token i is predicted from position i - 1; nothing predicts the first.
                    for (int i = Math.Max(span.Start, 1); i < span.End; i++)
                    {
                        positions.Add(offset + i - 1);
                        targets.Add(text.Ids[i]);
                        rows.Add(RowCount);
                        answers.Add(answer);
                    }
                }

                offset += text.Ids.Length;
                RowCount++;
            }
        }

        AnswerRows = [.. answerRows];
        Answers = [.. answers.Select(answer => answer < 0 ? answerRows.Count : answer)];

        (Positions, Targets, RowIndices) = ([.. positions], [.. targets], [.. rows]);
        if (RowCount > lines.Count)
        {
            TextPositions = new([.. lines.Select(static line => line.SelectMany(static text => Enumerable.Range(0, text.Ids.Length)).ToArray())], padId: 0);
        }
    }

    /// <summary>Number of texts.</summary>
    public override int RowCount { get; }

    /// <inheritdoc/>
    public override long LossCount => Positions.Length;

    /// <summary>Indices into the flattened [lines · length] whose hidden state predicts a target.</summary>
    internal long[] Positions { get; }

    internal long[] Targets { get; }

    /// <summary>Index of the text of each of them.</summary>
    internal int[] RowIndices { get; }

    /// <summary>Position of every token in its own text; null where each has a line of its own.</summary>
    internal TokenMatrix? TextPositions { get; }

    /// <inheritdoc/>
    public override long AnswerCount => AnswerRows.Length;

    /// <summary>The rows with answers.</summary>
    internal int[] AnswerRows { get; }

    /// <summary>Which of them each target belongs to; their number where it belongs to none.</summary>
    internal long[] Answers { get; }
}
