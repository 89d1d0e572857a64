using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// Texts with labels, or pairs of texts. Rows have <c>text</c>, <c>text_pair</c> for a pair, and <c>label</c>: the name of a label of the model, or its index where the model's labels are
/// <c>LABEL_0</c>, <c>LABEL_1</c> and so on; a list of names, or of one number for each label, where several apply at once; a number, or as many as
/// the model has labels, for a regression. The configuration's <c>problem_type</c> says which; without it one label means a regression, and lists
/// mean several labels, which the first loss writes into the configuration, as in transformers. One label and pairs with numbers from 0 to 1 are a
/// reranker, as a CrossEncoder of sentence-transformers; an evaluation then has the measures of its rankings where several pairs have one query,
/// the value of <c>query</c> or else the first text. The loss is the mean cross entropy, the mean binary cross entropy over rows and labels, or the
/// mean squared error.
/// </summary>
public sealed class TextClassificationTask : ITrainingTask
{
    private const string QueryColumn = "query";

    private readonly DataRow[] _rows;
    private readonly CutText[] _texts;
    private readonly int[] _lengths;
    private readonly ClassificationTargets _targets;
    private readonly RowTarget[] _labels;
    private readonly int[]? _queries;
    private readonly ISequenceClassifier _classifier;
    private readonly int _padId;

    /// <summary>Tokenizes rows on all cores. Longer texts are cut on the right, of a pair the longer text first; special tokens are not.</summary>
    /// <param name="model">A sequence classifier with a tokenizer.</param>
    /// <param name="rows">Rows with <c>text</c>, perhaps <c>text_pair</c>, and <c>label</c>.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="reading">Treatment of rows that do not fit; null for an error.</param>
    /// <param name="onProgress">Called now and then with the share of the rows that are tokenized, on any thread.</param>
    /// <param name="cancellationToken">Stops tokenizing.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.DataColumnMissing"/>,
    /// <see cref="ErrorIds.DataValueInvalid"/>, <see cref="ErrorIds.LabelUnknown"/> or <see cref="ErrorIds.MaxLengthTooLarge"/>.
    /// </exception>
    public TextClassificationTask(
        LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null, DataReading? reading = null, Action<double>? onProgress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        reading ??= new();
        ISequenceClassifier classifier = _classifier = Classifier(model);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        int longest = TextEncoding.ResolveMaxLength(maxLength, classifier.MaxSequenceLength, tokenizer);

        ArgumentNullException.ThrowIfNull(rows);
        _targets = new ClassificationTargets(classifier, rows);
        IReadOnlyList<(DataRow Row, TextInput Text, RowTarget Label)> read =
            reading.ReadFitting(rows, row => (row, TextInput.Of(row, ClassificationTargets.Expected), _targets.Read(row)));
        CutText[] encoded = TextEncoding.EncodeAll(read.Count, i => CutText.Encode(tokenizer, read[i].Text, longest), onProgress, cancellationToken);
        IReadOnlyList<(DataRow Row, RowTarget Label, CutText Text)> kept = reading.ReadFitting(
            read.Zip(encoded, static (row, text) => (row.Row, row.Label, text)), static row => row.text.Ids.Length > 0 ? row : throw WithoutTokens(row.Row));
        _rows = [.. kept.Select(static row => row.Row)];
        _labels = [.. kept.Select(static row => row.Label)];
        _texts = [.. kept.Select(static row => row.Text)];
        _lengths = [.. _texts.Select(static text => text.Ids.Length)];
        _queries = Problem is ClassificationProblem.Relevance ? QueriesOf(_rows) : null;
        int[] cut = [.. kept.Where(static row => row.Text.IsCut).Select(static row => row.Text.TokenCount)];
        Warnings = [.. _targets.Warnings, .. CutText.Describe(cut, kept.Count, "texts", longest), .. reading.Warnings];
        _padId = classifier.PadId ?? tokenizer.PadId ?? 0;
    }

    /// <inheritdoc/>
    public string Unit => "tokens";

    /// <inheritdoc/>
    public int RowCount => _texts.Length;

    /// <inheritdoc/>
    public TrainingMetric Metric => Problem is ClassificationProblem.Regression ? TrainingMetric.None : TrainingMetric.Accuracy;

    /// <inheritdoc/>
    public AnswerKind AnswerKind => Problem is ClassificationProblem.SeveralLabels or ClassificationProblem.Relevance ? AnswerKind.SeveralLabels : AnswerKind.Labels;

    /// <summary>Meaning of the logits.</summary>
    public ClassificationProblem Problem => _targets.Problem;

    /// <inheritdoc/>
    public IReadOnlyList<string> Warnings { get; }

    /// <inheritdoc/>
    public string DataHash => field ??= new RowHash().Add([.. _texts.Select(static text => text.Ids)]).Add(RowTarget.Hashed(_labels)).Finish();

    /// <inheritdoc/>
    public int CountBatches(int batchSize) => (RowCount + batchSize - 1) / batchSize;

    /// <inheritdoc/>
    public long LargestBatch(int batchSize) => (long)Math.Min(batchSize, RowCount) * _lengths.Max();

    /// <inheritdoc/>
    public IEnumerable<TrainingBatch> Batches(BatchOrder order) =>
        LengthBuckets.Create(_lengths, order).Select(rows =>
            new ClassificationBatch(_classifier, rows, [.. rows.Select(row => _texts[row])], [.. rows.Select(row => _labels[row])], _padId));

    /// <inheritdoc/>
    public Tensor Loss(LoKrModel model, TrainingBatch batch)
    {
        (Tensor logits, Tensor targets) = Forward(model, batch);
        return _targets.MeanLoss(logits, targets);
    }

    /// <inheritdoc/>
    public BatchScore Score(LoKrModel model, TrainingBatch batch)
    {
        (Tensor logits, Tensor targets) = Forward(model, batch);
        switch (Problem)
        {
            case ClassificationProblem.SingleLabel:
                Tensor answers = logits.argmax(-1);
                return new BatchScore(nn.functional.cross_entropy(logits, targets, reduction: nn.Reduction.Sum), answers.eq(targets).sum(), stack([targets, answers]));
            case ClassificationProblem.SeveralLabels or ClassificationProblem.Relevance:
                // Right is a text of which every label is.
                (Tensor given, Tensor actual) = (logits.gt(0), targets.gt(0.5));
                Tensor decisions = (arange(logits.shape[1], ScalarType.Int64, logits.device) * 2) + actual.to(ScalarType.Int64);
                return new BatchScore(_targets.RowLosses(logits, targets).sum(), given.eq(actual).all(1).sum(), stack([decisions.flatten(), given.to(ScalarType.Int64).flatten()]))
                {
                    Ranked = _queries is null ? null : Rank((ClassificationBatch)batch, logits, actual),
                };
            default:
                return new BatchScore(_targets.RowLosses(logits, targets).sum());
        }
    }

    /// <inheritdoc/>
    public IReadOnlyList<RowScore> ScoreRows(LoKrModel model, TrainingBatch batch)
    {
        (Tensor logits, Tensor targets) = Forward(model, batch);
        double[] losses = RowScores.ToArray(_targets.RowLosses(logits, targets));
        int[] rows = ((ClassificationBatch)batch).Rows;
        switch (Problem)
        {
            case ClassificationProblem.SingleLabel:
                long[] answers = logits.argmax(-1).cpu().data<long>().ToArray();
                return [.. losses.Select((loss, place) => new RowScore(loss, 1, (int)_labels[rows[place]].Index, (int)answers[place]))];
            case ClassificationProblem.Regression:
                return [.. losses.Select(static loss => new RowScore(loss, 1))];
            default:
                double[][] scores = [.. RowScores.ToArray(logits).Chunk((int)logits.shape[1])];
                return [.. losses.Select((loss, place) => new RowScore(loss, 1)
                {
                    Decisions = [.. scores[place].Zip(_labels[rows[place]].Values!, static (score, actual) => new LabelDecision(actual > 0.5f, score > 0))],
                    Ranked = _queries is null ? null : new(_queries[rows[place]], _labels[rows[place]].Values![0] > 0.5f, scores[place][0]),
                })];
        }
    }

    /// <summary>A row as it was read, by its place among those that fit.</summary>
    internal DataRow Row(int row) => _rows[row];

    /// <summary>Index of the label of a row; null where a row has no single one.</summary>
    internal int? LabelOf(int row) => Problem is ClassificationProblem.SingleLabel ? (int)_labels[row].Index : null;

    /// <summary>Probabilities of every label for every row, in the order of the rows; in evaluation mode and without gradients.</summary>
    /// <param name="model">The model.</param>
    /// <param name="batchSize">Rows in a batch.</param>
    /// <param name="cancellation">Checked before every batch.</param>
    internal double[][] Probabilities(LoKrModel model, int batchSize, CancellationToken cancellation)
    {
        using EvaluationMode modes = new([model]);
        using var noGrad = no_grad();
        List<double[]> all = [];
        foreach (TrainingBatch batch in Batches(new BatchOrder(batchSize, Bucket: false)))
        {
            cancellation.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            Tensor scores = Forward(model, batch).Logits.to(ScalarType.Float64).softmax(-1).cpu();
            all.AddRange(scores.data<double>().ToArray().Chunk((int)scores.shape[1]));
        }

        return [.. all];
    }

    /// <summary>Has nothing to release: the data are plain arrays.</summary>
    public void Dispose()
    {
    }

    private (Tensor Logits, Tensor Targets) Forward(LoKrModel model, TrainingBatch batch)
    {
        ArgumentNullException.ThrowIfNull(model);
        var rows = (ClassificationBatch)batch;
        Device device = model.Device;
        ISequenceClassifier classifier = Classifier(model);
        if (_targets is { IsInferred: true, Problem: not ClassificationProblem.SingleLabel })
        {
            // An export, and whoever reads it, has to know what the logits mean.
            ClassificationProblems.Describe(classifier.Config, Problem);
        }

        Tensor logits = classifier.Classify(rows.Tokens.IdsOn(device), rows.Tokens.MaskOn(device), rows.Types?.IdsOn(device));
        return (logits.to(ScalarType.Float32), RowTarget.On(rows.Labels, device));
    }

    private Tensor Rank(ClassificationBatch batch, Tensor logits, Tensor actual)
    {
        double[] places = [.. batch.Rows.Select(static row => (double)row), .. batch.Rows.Select(row => (double)_queries![row])];
        return cat([tensor(places, [2, batch.RowCount], device: logits.device), actual.to(ScalarType.Float64).view(1, -1), logits.to(ScalarType.Float64).view(1, -1)]);
    }

    // Rows of one query have the same value in the column query or, without one, the same first text.
    private static int[] QueriesOf(DataRow[] rows)
    {
        Dictionary<string, int> known = new(StringComparer.Ordinal);
        return [.. rows.Select(row =>
        {
            string query = RowFields.Has(row, QueryColumn) && !RowFields.IsNull(row, QueryColumn) ? RowFields.Label(row, QueryColumn, QueryColumn) : TextInput.Of(row, ClassificationTargets.Expected).Text;
            known.TryAdd(query, known.Count);
            return known[query];
        })];
    }

    private static ISequenceClassifier Classifier(LoKrModel model) => model.Pretrained as ISequenceClassifier ?? throw new LoKrException(
        ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} is not a text classifier.", "Load the model with a list of labels, or train it with a loss of your own.");

    private static LoKrException WithoutTokens(DataRow row) =>
        new(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, $"The text of {row.Origin} has no tokens.", "Remove the row, or give it a text.") { Target = row.Origin };
}

/// <summary>Texts with the labels of each.</summary>
public sealed class ClassificationBatch : TokenBatch
{
    internal ClassificationBatch(ISequenceClassifier classifier, int[] rows, IReadOnlyList<CutText> texts, RowTarget[] labels, int padId)
        : base([.. texts.Select(static text => text.Ids)], padId) => (Rows, Labels, Types) = (rows, labels, CutText.TypesOf(classifier, texts, Tokens.Length));

    /// <summary>Segments of the tokens of pairs; null where all are 0.</summary>
    public TokenMatrix? Types { get; }

    /// <inheritdoc/>
    public override long LossCount => RowCount;

    /// <summary>Places of the rows among those of the task.</summary>
    internal int[] Rows { get; }

    internal RowTarget[] Labels { get; }
}
