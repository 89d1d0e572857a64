using System.Globalization;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Metrics;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// Texts that are split into words, with a tag for each. Rows have <c>tokens</c> (or <c>words</c>), a list of words, and <c>ner_tags</c> (or
/// <c>tags</c>), as many names of labels of the model, or their indices. As in transformers the first token of a word has its label, and every other
/// token -100, which no loss is taken over; so does a word whose index is -100. The loss is the mean cross entropy over the labeled tokens of a batch.
/// </summary>
public sealed class TokenClassificationTask : ITrainingTask
{
    private readonly TaggedTokens[] _texts;
    private readonly int[] _lengths;
    private readonly IReadOnlyList<string> _labels;
    private readonly int _padId;

    /// <summary>Tokenizes rows on all cores. Longer texts are cut on the right; rows without a labeled token are left out and named in <see cref="Warnings"/>.</summary>
    /// <param name="model">A token classifier with a tokenizer.</param>
    /// <param name="rows">Rows with words and tags.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="reading">Treatment of rows that do not fit; null for an error.</param>
    /// <param name="onProgress">Called now and then with the share of the rows that are tokenized, on any thread.</param>
    /// <param name="cancellationToken">Stops tokenizing.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.DataColumnMissing"/>,
    /// <see cref="ErrorIds.DataValueInvalid"/>, <see cref="ErrorIds.DataWithoutLoss"/>, <see cref="ErrorIds.LabelUnknown"/> or <see cref="ErrorIds.MaxLengthTooLarge"/>.
    /// </exception>
    public TokenClassificationTask(
        LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null, DataReading? reading = null, Action<double>? onProgress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(rows);
        reading ??= new();
        ITokenClassifier classifier = Classifier(model);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        int longest = TextEncoding.ResolveMaxLength(maxLength, classifier.MaxSequenceLength, tokenizer);
        _labels = classifier.Labels;

        LabelIndex index = new(_labels);
        IReadOnlyList<TaggedText> read = reading.ReadFitting(rows, row => TaggedText.Of(row, index, _labels.Count));
        TaggedTokens[] encoded = TextEncoding.EncodeAll(read.Count, i => TaggedTokens.Encode(tokenizer, read[i], longest), onProgress, cancellationToken);
        _texts = [.. encoded.Where(static text => text.Places.Length > 0)];
        _lengths = [.. _texts.Select(static text => text.Ids.Length)];
        string[] lost = [.. encoded.Zip(read).Where(static pair => pair.First.Places.Length == 0).Select(static pair => pair.Second.Row.Origin)];
        int[] cut = [.. encoded.Where(static text => text.IsCut).Select(static text => text.TokenCount)];
        Warnings = [.. Describe(lost, read.Count, longest), .. CutText.Describe(cut, read.Count, "texts", longest), .. reading.Warnings];
        _padId = classifier.PadId ?? tokenizer.PadId ?? 0;
    }

    /// <inheritdoc/>
    public string Unit => "tokens";

    /// <inheritdoc/>
    public int RowCount => _texts.Length;

    /// <inheritdoc/>
    public TrainingMetric Metric => EntityTags.AreEntities(_labels) ? TrainingMetric.EntityF1 : TrainingMetric.Accuracy;

    /// <inheritdoc/>
    public AnswerKind AnswerKind => AnswerKind.Tags;

    /// <inheritdoc/>
    public IReadOnlyList<string> Warnings { get; }

    /// <inheritdoc/>
    public string DataHash => field ??= new RowHash()
        .Add([.. _texts.Select(static text => text.Ids)])
        .Add([.. _texts.SelectMany(static text => text.Places.Select(static place => (long)place).Concat(text.Labels).Append(-1))]).Finish();

    /// <inheritdoc/>
    public int CountBatches(int batchSize) => (RowCount + batchSize - 1) / batchSize;

    /// <inheritdoc/>
    public long LargestBatch(int batchSize) => (long)Math.Min(batchSize, RowCount) * _lengths.Max();

    /// <inheritdoc/>
    public IEnumerable<TrainingBatch> Batches(BatchOrder order) =>
        LengthBuckets.Create(_lengths, order).Select(rows => new TagBatch([.. rows.Select(row => _texts[row])], _padId));

    /// <inheritdoc/>
    public Tensor Loss(LoKrModel model, TrainingBatch batch)
    {
        (Tensor logits, Tensor targets) = Forward(model, batch);
        return nn.functional.cross_entropy(logits, targets);
    }

    /// <inheritdoc/>
    public BatchScore Score(LoKrModel model, TrainingBatch batch)
    {
        (Tensor logits, Tensor targets) = Forward(model, batch);
        Tensor answers = logits.argmax(-1);
        Tensor places = tensor(((TagBatch)batch).AnswerPlaces, device: logits.device);
        Tensor both = full([2, targets.shape[0] + batch.RowCount], -1, ScalarType.Int64, logits.device).index_copy(1, places, stack([targets, answers]));
        return new BatchScore(nn.functional.cross_entropy(logits, targets, reduction: nn.Reduction.Sum), answers.eq(targets).sum(), both);
    }

    /// <inheritdoc/>
    public IReadOnlyList<RowScore> ScoreRows(LoKrModel model, TrainingBatch batch)
    {
        (Tensor logits, Tensor targets) = Forward(model, batch);
        double[] losses = RowScores.ToArray(nn.functional.cross_entropy(logits, targets, reduction: nn.Reduction.None));
        string[] answers = [.. logits.argmax(-1).cpu().data<long>().ToArray().Select(answer => _labels[(int)answer])];
        var rows = (TagBatch)batch;
        string[] right = [.. rows.Targets.Select(target => _labels[(int)target])];
        List<RowScore> scores = [];
        int start = 0;
        foreach (int words in rows.WordCounts)
        {
            Range own = start..(start + words);
            scores.Add(new RowScore(losses[own].Sum(), words) { Tags = TagScore.Of(right[own], answers[own]) });
            start += words;
        }

        return scores;
    }

    /// <summary>Has nothing to release: the data are plain arrays.</summary>
    public void Dispose()
    {
    }

    private static (Tensor Logits, Tensor Targets) Forward(LoKrModel model, TrainingBatch batch)
    {
        ArgumentNullException.ThrowIfNull(model);
        var rows = (TagBatch)batch;
        Device device = model.Device;
        Tensor logits = Classifier(model).ClassifyTokens(rows.Tokens.IdsOn(device), rows.Tokens.MaskOn(device));
        Tensor chosen = logits.flatten(0, 1).index_select(0, tensor(rows.Positions, device: device));
        return (chosen.to(ScalarType.Float32), tensor(rows.Targets, device: device));
    }

    private static ITokenClassifier Classifier(LoKrModel model) => model.Pretrained as ITokenClassifier ?? throw new LoKrException(
        ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} does not classify words.", "Load the model for token classification.");

    private static IEnumerable<string> Describe(string[] lost, int count, int longest) =>
        lost.Length == 0 ? []
        : lost.Length < count
            ? [$"{lost.Length} of {count} rows have no word with a tag within {longest} tokens and are left out: {string.Join(", ", lost.Take(10))}{(lost.Length > 10 ? ", …" : "")}."]
        : throw new LoKrException(
            ErrorIds.DataWithoutLoss, LoKrErrorKind.InvalidData, string.Create(CultureInfo.InvariantCulture, $"None of the {count} rows has a word with a tag within {longest} tokens."),
            "Allow longer sequences, or give words tags.");
}

/// <summary>The words of a row, with the index of the label of each, or -100.</summary>
/// <param name="Row">The row.</param>
/// <param name="Words">Its words.</param>
/// <param name="Labels">As many labels.</param>
internal sealed record TaggedText(DataRow Row, IReadOnlyList<string> Words, long[] Labels)
{
    /// <summary>The index of no label, as in transformers.</summary>
    public const long NoLabel = -100;

    /// <summary>Reads a row.</summary>
    /// <param name="row">The row.</param>
    /// <param name="index">The labels of the model.</param>
    /// <param name="labels">How many they are.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/>, <see cref="ErrorIds.DataValueInvalid"/> or <see cref="ErrorIds.LabelUnknown"/>.</exception>
    public static TaggedText Of(DataRow row, LabelIndex index, int labels)
    {
        IReadOnlyList<string> words = TaggedWords.Words(row);
        return new(row, words, [.. TaggedWords.Tags(row, words.Count).Select(tag => tag switch
        {
            string name => index.Find(row, name),
            double number when number == NoLabel || (number >= 0 && number < labels) => (long)number,
            _ => throw index.Unknown(row, Convert.ToString(tag, CultureInfo.InvariantCulture)!),
        })]);
    }
}

/// <summary>Token ids of a text, and the labels of some of them.</summary>
/// <param name="Ids">The ids that are used, special tokens included.</param>
/// <param name="TokenCount">Number of tokens of the whole text, special tokens included.</param>
/// <param name="Places">Indices of the tokens with a label, rising.</param>
/// <param name="Labels">Their labels.</param>
internal sealed record TaggedTokens(int[] Ids, int TokenCount, int[] Places, long[] Labels)
{
    /// <summary>Whether the end of the text is not used.</summary>
    public bool IsCut => TokenCount > Ids.Length;

    /// <summary>Encodes words up to a limit. The label of a word is that of its first token; a word without a token has none.</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="text">The words and their labels.</param>
    /// <param name="longest">Most tokens to use.</param>
    public static TaggedTokens Encode(ITextTokenizer tokenizer, TaggedText text, int longest)
    {
        CutTokens tokens = CutTokens.Encode(tokenizer, text.Words, longest);
        int[] places = [.. Enumerable.Range(0, tokens.Used.Count).Where(place => tokens.Begins(place) && text.Labels[tokens.Used[place].Word] != TaggedText.NoLabel)];
        return new([.. tokens.Used.Select(static token => token.Id)], tokens.Count, places, [.. places.Select(place => text.Labels[tokens.Used[place].Word])]);
    }
}

/// <summary>Texts with the labels of some of their tokens.</summary>
public sealed class TagBatch : TokenBatch
{
    internal TagBatch(IReadOnlyList<TaggedTokens> texts, int padId)
        : base([.. texts.Select(static text => text.Ids)], padId)
    {
        WordCounts = [.. texts.Select(static text => text.Places.Length)];
        Positions = [.. texts.SelectMany((text, row) => text.Places.Select(place => ((long)row * Tokens.Length) + place))];
        Targets = [.. texts.SelectMany(static text => text.Labels)];
        AnswerPlaces = [.. texts.SelectMany((text, row) => Enumerable.Repeat((long)row, text.Places.Length)).Select(static (row, word) => row + word)];
    }

    /// <inheritdoc/>
    public override long LossCount => Positions.Length;

    /// <summary>The label of every token as transformers has it, rows×length, row by row: -100 where there is none.</summary>
    public IReadOnlyList<long> Labels
    {
        get
        {
            long[] all = [.. Enumerable.Repeat(TaggedText.NoLabel, Tokens.RowCount * Tokens.Length)];
            foreach ((long position, long label) in Positions.Zip(Targets))
            {
                all[position] = label;
            }

            return all;
        }
    }

    /// <summary>Indices of the tokens with a label, in the flattened [rows · length].</summary>
    internal long[] Positions { get; }

    /// <summary>Their labels.</summary>
    internal long[] Targets { get; }

    /// <summary>How many of them each row has, at least one.</summary>
    internal int[] WordCounts { get; }

    /// <summary>Where they are among the answers, which have one more place behind each row.</summary>
    internal long[] AnswerPlaces { get; }
}
