using System.Globalization;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// Texts that are near to each other or not, for a sentence encoder. Rows have <c>anchor</c> (or <c>query</c>), <c>positive</c> and perhaps
/// <c>negative</c>, <c>negative_1</c> and so on, or <c>sentence1</c>, <c>sentence2</c> and <c>score</c>. The columns say what the loss is
/// (multiple negatives ranking, or CoSENT for scores) unless the options do. A batch is what a loss compares: the wrong answers to a text are the
/// partners of the other rows of its batch, never those of another batch of the same step, whichever process has that. An evaluation searches
/// every positive, negative and document for every anchor and query; rows with <c>query</c> and <c>relevant</c>, and rows with <c>document</c>,
/// count only there.
/// </summary>
public sealed class EmbeddingTask : ITrainingTask
{
    private readonly EmbeddingExample[] _rows;
    private readonly EmbeddingTexts _texts;
    private readonly EmbeddingCorpus _corpus;
    private readonly TrainingOptions _options;
    private readonly int[] _lengths;

    /// <summary>Tokenizes rows on all cores. Longer texts are cut on the right; special tokens are not.</summary>
    /// <param name="model">A sentence encoder with a tokenizer.</param>
    /// <param name="rows">The rows; all that are trained on are of one kind.</param>
    /// <param name="options">The loss, its numbers, and the longest sequence; null for the defaults.</param>
    /// <param name="reading">Treatment of rows that do not fit; null for an error.</param>
    /// <param name="onProgress">Called now and then with the share of the texts that are tokenized, on any thread.</param>
    /// <param name="cancellationToken">Stops tokenizing.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.DataColumnMissing"/>,
    /// <see cref="ErrorIds.DataValueInvalid"/>, <see cref="ErrorIds.TrainingOptionInvalid"/> or <see cref="ErrorIds.MaxLengthTooLarge"/>.
    /// </exception>
    public EmbeddingTask(
        LoKrModel model, IReadOnlyList<DataRow> rows, TrainingOptions? options = null, DataReading? reading = null, Action<double>? onProgress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(rows);
        reading ??= new();
        _options = options ?? new();
        IReadOnlyList<EmbeddingRow> read = reading.ReadFitting(rows, EmbeddingRow.Of);
        EmbeddingRow[] trained = [.. read.Where(static row => row.Kind is EmbeddingRowKind.Pair or EmbeddingRowKind.Scored)];
        Loss = ChooseLoss(trained, _options.EmbeddingLoss);
        _texts = new EmbeddingTexts(model, read.Any(static row => row.IsSearch), _options.MaxLength);
        _rows = [.. trained.Select(row => new EmbeddingExample(_texts.Add(row.First, asQuery: true), [.. row.Others.Select(text => _texts.Add(text, asQuery: false))], row.Score))];
        _corpus = EmbeddingCorpus.Of(read, _texts);
        int[] cut = _texts.Encode(onProgress, cancellationToken);
        _lengths = [.. _rows.Select(row => row.Texts.Max(_texts.LengthOf))];
        Warnings = [.. CutText.Describe(cut, _texts.Count, "texts", _texts.Longest), .. Repeated(), .. reading.Warnings];
        Notes = _rows.Length == 0 ? [] : [$"The loss is {Loss}{(_options.EmbeddingLoss is not null ? "" : IsScored ? ", because rows have scores" : ", because rows have texts with partners")}."];
    }

    /// <inheritdoc/>
    public string Unit => "tokens";

    /// <inheritdoc/>
    public int RowCount => _rows.Length > 0 ? _rows.Length : _corpus.Queries.Count;

    /// <inheritdoc/>
    public TrainingMetric Metric => _corpus.Queries.Count > 0 ? TrainingMetric.NdcgAt10 : TrainingMetric.Spearman;

    /// <summary>The loss that is learned by.</summary>
    public EmbeddingLoss Loss { get; }

    /// <inheritdoc/>
    public IReadOnlyList<string> Warnings { get; }

    /// <inheritdoc/>
    public IReadOnlyList<string> Notes { get; }

    /// <inheritdoc/>
    public string DataHash => field ??= new RowHash().Add(_texts.Ids)
        .Add([.. _rows.SelectMany(static row => row.Texts.Select(static text => (long)text).Append(BitConverter.SingleToInt32Bits(row.Score)))])
        .Add([.. _corpus.Queries.SelectMany(static query => query.Relevant.Select(static text => (long)text).Prepend(query.Text)), .. _corpus.Documents.Select(static text => (long)text)])
        .Finish();

    /// <inheritdoc/>
    public bool Collects => true;

    private bool IsScored => !float.IsNaN(_rows[0].Score);

    /// <inheritdoc/>
    public int CountBatches(int batchSize) => Ceiling(Required.Length, batchSize);

    /// <inheritdoc/>
    public long LargestBatch(int batchSize) => (long)Math.Min(batchSize, Required.Length) * Required.Max(static row => row.Texts.Length) * _lengths.Max();

    /// <inheritdoc/>
    public IEnumerable<TrainingBatch> Batches(BatchOrder order)
    {
        ArgumentNullException.ThrowIfNull(order);
        IReadOnlyList<int[]> groups = Required.Length == 0 ? [] : LengthBuckets.Create(_lengths, order);
        return (_options.NoDuplicates ? DistinctBatches.Create(groups, order.BatchSize, row => _rows[row].Texts) : groups).Select(Batch);
    }

    /// <inheritdoc/>
    public int CountEvaluationBatches(int batchSize) => Ceiling(_rows.Length, batchSize) + _corpus.Unpaired.Sum(texts => Ceiling(texts.Count, batchSize));

    /// <inheritdoc/>
    public IEnumerable<TrainingBatch> EvaluationBatches(BatchOrder order)
    {
        ArgumentNullException.ThrowIfNull(order);
        IEnumerable<int[]> others = _corpus.Unpaired.SelectMany(texts => texts.OrderBy(_texts.LengthOf).Chunk(order.BatchSize));
        return LengthBuckets.Create(_lengths, order).Select(Batch).Concat(others.Select(texts => new EmbeddingBatch([], [_texts.Column(texts)], [])));
    }

    /// <inheritdoc/>
    Tensor ITrainingTask.Loss(LoKrModel model, TrainingBatch batch)
    {
        var rows = (EmbeddingBatch)batch;
        return Losses(rows, rows.Embed(model)).mean();
    }

    /// <inheritdoc/>
    public BatchScore Score(LoKrModel model, TrainingBatch batch)
    {
        var rows = (EmbeddingBatch)batch;
        Tensor[] vectors = rows.Embed(model);
        Tensor all = cat(vectors, 0).flatten();
        if (rows.Rows.Length == 0)
        {
            return new BatchScore(zeros([], ScalarType.Float32, all.device)) { Collected = all };
        }

        Tensor losses = Losses(rows, vectors);
        return new BatchScore(losses.sum()) { Collected = cat([losses, all], 0) };
    }

    /// <inheritdoc/>
    public LoKrEvaluation Complete(LoKrEvaluation evaluation, LoKrModel model, IReadOnlyList<float[]> collected, int batchSize)
    {
        ArgumentNullException.ThrowIfNull(evaluation);
        (IReadOnlyList<QueryRanks> ranks, double[] similarities, _) = Measure(model, collected, batchSize);
        if (ranks.Count == 0)
        {
            return evaluation with { Spearman = NumberMetrics.Spearman([.. _rows.Select(static row => (double)row.Score)], similarities) };
        }

        RetrievalMetrics search = new(ranks);
        return evaluation with { RecallAt1 = search.Recall(1), RecallAt10 = search.Recall(10), MrrAt10 = search.MeanReciprocalRank(10), NdcgAt10 = search.NormalizedGain(10) };
    }

    /// <inheritdoc/>
    public IReadOnlyList<RowScore> ScoreRows(LoKrModel model, IReadOnlyList<float[]> collected, int batchSize)
    {
        (IReadOnlyList<QueryRanks> ranks, double[] similarities, float[] losses) = Measure(model, collected, batchSize);
        if (ranks.Count == 0)
        {
            return [.. _rows.Select((row, i) => new RowScore(losses[i], 1) { Numbers = (row.Score, similarities[i]) })];
        }

        // Rows of one query are one search; a query may have no row with a loss.
        ILookup<int, double> byQuery = _rows.Index().ToLookup(static row => row.Item.Texts[0], row => (double)losses[row.Index]);
        return [.. _corpus.Queries.Select((query, i) => new RowScore(byQuery[query.Text].Sum(), byQuery[query.Text].Count()) { Ranks = ranks[i] })];
    }

    /// <summary>Has nothing to release: the data are plain arrays.</summary>
    public void Dispose()
    {
    }

    private EmbeddingExample[] Required => _rows.Length > 0 ? _rows : throw new LoKrException(ErrorIds.DataWithoutLoss, LoKrErrorKind.InvalidData,
        "No row has a text with its partner, or two texts with a score: there is nothing to learn from.", "Queries with names of documents, and documents alone, are for evaluations.");

    private static int Ceiling(int count, int size) => (count + size - 1) / size;

    private EmbeddingBatch Batch(int[] group)
    {
        int[] negatives = [.. group.SelectMany(row => _rows[row].Texts.Skip(2))];
        return new(
            [.. group.Select(row => _rows[row])],
            [_texts.Column([.. group.Select(row => _rows[row].Texts[0])]), _texts.Column([.. group.Select(row => _rows[row].Texts[1])]), .. negatives.Length == 0 ? [] : new[] { _texts.Column(negatives) }],
            group);
    }

    // [rows]; CoSENT, which compares rows, is the same for all of a batch.
    private Tensor Losses(EmbeddingBatch batch, Tensor[] vectors)
    {
        (Tensor first, Tensor second) = (vectors[0], vectors[1]);
        switch (Loss)
        {
            case EmbeddingLoss.CoSent:
                return EmbeddingLosses.CoSent(first, second, batch.ScoresOn(first.device), _options.SimilarityScale).expand(batch.RowCount);
            case EmbeddingLoss.CosineSimilarity:
                return EmbeddingLosses.CosineSimilarity(first, second, batch.ScoresOn(first.device));
            case EmbeddingLoss.Triplet:
                // A row with several wrong texts has a triplet with each, and their mean.
                int[] owners = batch.NegativeOwners;
                Tensor places = tensor(owners, ScalarType.Int64, first.device);
                Tensor losses = EmbeddingLosses.Triplet(first.index_select(0, places), second.index_select(0, places), vectors[2], _options.TripletDistance, _options.TripletMargin);
                float[] weights = [.. owners.Select(owner => 1f / (batch.Rows[owner].Texts.Length - 2))];
                return zeros(batch.RowCount, ScalarType.Float32, first.device).index_add(0, places, losses * tensor(weights, device: first.device), 1);
            default:
                return EmbeddingLosses.MultipleNegativesRanking(first, vectors.Length == 2 ? second : cat([second, vectors[2]], 0), _options.SimilarityScale);
        }
    }

    // Vectors of all texts from those of the batches of an evaluation, and what they say.
    private (IReadOnlyList<QueryRanks> Ranks, double[] Similarities, float[] Losses) Measure(LoKrModel model, IReadOnlyList<float[]> collected, int batchSize)
    {
        float[] losses = new float[_rows.Length];
        EmbeddedTexts vectors = new(_texts.Count, SentenceEncoding.EncoderOf(model));
        foreach ((EmbeddingBatch batch, float[] numbers) in EvaluationBatches(new BatchOrder(batchSize)).Cast<EmbeddingBatch>().Zip(collected))
        {
            foreach ((int place, int row) in batch.Indices.Index())
            {
                losses[row] = numbers[place];
            }

            vectors.Add(batch.Columns.SelectMany(static column => column.Texts), numbers.AsMemory(batch.Indices.Length));
        }

        return _corpus.Queries.Count > 0 ? (vectors.Search(_corpus), [], losses) : ([], vectors.Compare(_rows), losses);
    }

    private static EmbeddingLoss ChooseLoss(EmbeddingRow[] rows, EmbeddingLoss? asked)
    {
        bool isScored = rows is [{ Kind: EmbeddingRowKind.Scored }, ..];
        if (rows.FirstOrDefault(row => row.Kind != rows[0].Kind) is EmbeddingRow other)
        {
            throw Wrong(other, $"has {(isScored ? "no " : "")}scores, unlike {rows[0].Origin}", "Train on rows of one kind.");
        }

        EmbeddingLoss loss = asked ?? (isScored ? EmbeddingLoss.CoSent : EmbeddingLoss.MultipleNegativesRanking);
        bool takesScores = loss is EmbeddingLoss.CoSent or EmbeddingLoss.CosineSimilarity;
        return rows.Length > 0 && takesScores != isScored
            ? throw new LoKrException(ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument,
                $"The loss {loss} needs rows {(takesScores ? "with two texts and a score" : "with texts and their partners")}, unlike {rows[0].Origin}.",
                $"Use {(isScored ? $"{EmbeddingLoss.CoSent} or {EmbeddingLoss.CosineSimilarity}" : $"{EmbeddingLoss.MultipleNegativesRanking} or {EmbeddingLoss.Triplet}")}.") { Target = loss }
            : loss is EmbeddingLoss.Triplet && Array.Find(rows, static row => row.Others.Count < 2) is EmbeddingRow lone
                ? throw Wrong(lone, "has no negative, which the loss Triplet needs", $"Give each row a wrong text, or use {EmbeddingLoss.MultipleNegativesRanking}.")
            : loss is EmbeddingLoss.CosineSimilarity && Array.Find(rows, static row => Math.Abs(row.Score) > 1) is EmbeddingRow outside
                ? throw Wrong(outside, string.Create(CultureInfo.InvariantCulture, $"has the score {outside.Score}, which no cosine is"), "Scale the scores to -1 to 1, or use a loss that only compares them.")
            : loss;

        static LoKrException Wrong(EmbeddingRow row, string problem, string advice) =>
            new(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, $"{row.Origin} {problem}.", advice) { Target = row.Origin };
    }

    // Partners of other rows are wrong answers, so an equal one is held against itself.
    private IEnumerable<string> Repeated()
    {
        if (Loss is not EmbeddingLoss.MultipleNegativesRanking || _rows.Length == 0)
        {
            return [];
        }

        int most = _rows.SelectMany(static row => row.Texts.Distinct()).GroupBy(static text => text).Max(static text => text.Count());
        int batches = Ceiling(_rows.Length, _options.BatchSize);
        return most == 1 ? []
            : !_options.NoDuplicates
                ? [string.Create(CultureInfo.InvariantCulture, $"A text occurs in up to {most} rows. In one batch each of them is a wrong answer to the others; batches without repeated texts can be asked for.")]
            : most > batches
                ? [string.Create(CultureInfo.InvariantCulture, $"A text occurs in {most} rows, but an epoch has {batches} batches: {most - batches} or more rows are left out of each epoch, others each time.")]
            : [];
    }
}

/// <summary>A row to learn from, by the numbers of its texts.</summary>
/// <param name="First">The anchor, or the first text of a pair.</param>
/// <param name="Others">The positive and the negatives, or the second text.</param>
/// <param name="Score">How similar a pair is; NaN where the row does not say.</param>
internal sealed record EmbeddingExample(int First, int[] Others, float Score)
{
    /// <summary>All texts: the first, its partner, then wrong ones.</summary>
    public int[] Texts { get; } = [First, .. Others];
}

/// <summary>The texts of a task, each once, as token ids. A text has another number as a query than as a document, because the prompts may differ.</summary>
internal sealed class EmbeddingTexts
{
    private readonly List<(string Text, bool IsQuery)> _all = [];
    private readonly Dictionary<(string Text, bool IsQuery), int> _numbers = [];
    private readonly SentenceEncoding _queries;
    private readonly SentenceEncoding _others;
    private readonly bool _isSearch;
    private readonly int _padId;

    /// <summary>Begins with no text.</summary>
    /// <param name="model">A sentence encoder with a tokenizer.</param>
    /// <param name="isSearch">Whether texts are queries and documents, which have prompts of their own.</param>
    /// <param name="maxLength">Longest sequence; null for that of the model.</param>
    public EmbeddingTexts(LoKrModel model, bool isSearch, int? maxLength)
    {
        _queries = SentenceEncoding.Of(model, isSearch ? SentenceKind.Query : SentenceKind.Text, maxLength);
        _others = SentenceEncoding.Of(model, isSearch ? SentenceKind.Document : SentenceKind.Text, maxLength);
        (_isSearch, _padId) = (isSearch, model.Tokenizer!.PadId ?? 0);
    }

    /// <summary>Number of texts.</summary>
    public int Count => _all.Count;

    /// <summary>Most tokens of a text.</summary>
    public int Longest => _others.Longest;

    /// <summary>Token ids of every text.</summary>
    public int[][] Ids { get; private set; } = [];

    /// <summary>The number of a text; the same for the same text.</summary>
    public int Add(string text, bool asQuery)
    {
        (string, bool) key = (text, asQuery && _isSearch);
        if (!_numbers.TryGetValue(key, out int number))
        {
            _numbers[key] = number = _all.Count;
            _all.Add(key);
        }

        return number;
    }

    /// <summary>Tokenizes all texts.</summary>
    /// <returns>Number of tokens of each text that was cut.</returns>
    public int[] Encode(Action<double>? onProgress, CancellationToken cancellationToken)
    {
        CutText[] encoded = TextEncoding.EncodeAll(_all.Count, i => (_all[i].IsQuery ? _queries : _others).Encode(_all[i].Text), onProgress, cancellationToken);
        Ids = [.. encoded.Select(static text => text.Ids)];
        return [.. encoded.Where(static text => text.IsCut).Select(static text => text.TokenCount)];
    }

    /// <summary>Number of tokens of a text.</summary>
    public int LengthOf(int text) => Ids[text].Length;

    /// <summary>Texts of one kind of a batch.</summary>
    public EmbeddingColumn Column(int[] texts) => new(
        texts, new([.. texts.Select(text => Ids[text])], _padId), (_all[texts[0]].IsQuery ? _queries : _others).PromptLength);
}

/// <summary>Texts of a batch that are encoded together.</summary>
/// <param name="Texts">Their numbers.</param>
/// <param name="Tokens">Their token ids.</param>
/// <param name="PromptLength">Number of tokens at the start of each that do not count.</param>
internal sealed record EmbeddingColumn(int[] Texts, TokenMatrix Tokens, int PromptLength);

/// <summary>Rows with their texts: anchors, positives and perhaps all negatives one after the other; or, in an evaluation, other texts without a row.</summary>
public sealed class EmbeddingBatch : TrainingBatch
{
    internal EmbeddingBatch(EmbeddingExample[] rows, EmbeddingColumn[] columns, int[] indices) => (Rows, Columns, Indices) = (rows, columns, indices);

    /// <inheritdoc/>
    public override int RowCount => Rows.Length;

    /// <inheritdoc/>
    public override long UnitCount => Columns.Sum(static column => column.Tokens.TokenCount);

    /// <inheritdoc/>
    public override long LossCount => Rows.Length;

    internal EmbeddingExample[] Rows { get; }

    internal EmbeddingColumn[] Columns { get; }

    /// <summary>The place of each row in the data.</summary>
    internal int[] Indices { get; }

    /// <summary>For each negative the place in the batch of the row that has it.</summary>
    internal int[] NegativeOwners => [.. Rows.SelectMany(static (row, place) => Enumerable.Repeat(place, row.Texts.Length - 2))];

    /// <summary>Scores of the rows, float32 [rows].</summary>
    internal Tensor ScoresOn(Device device)
    {
        float[] scores = [.. Rows.Select(static row => row.Score)];
        return tensor(scores, device: device);
    }

    /// <summary>Vectors of each column, float32 [texts, dimension]. Columns are encoded one by one, because queries are shorter than documents.</summary>
    internal Tensor[] Embed(LoKrModel model) => [.. Columns.Select(column => SentenceEncoding.Embed(model, column.Tokens, column.PromptLength))];
}
