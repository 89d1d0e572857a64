using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// Prediction of the next token. Rows have <c>text</c> (loss on every token but the first), or <c>prompt</c> and <c>completion</c>
/// (loss on the completion only); the end-of-text token follows and has loss too. The loss is the mean cross entropy over the tokens
/// with loss, as transformers computes it with labels of -100 elsewhere.
/// </summary>
public sealed class CausalLanguageTask : ITrainingTask
{
    private const string Expected = "text, or prompt and completion";

    private readonly List<int[]> _ids = [];
    private readonly List<int> _lossStarts = [];
    private readonly List<int> _lengths = [];
    private readonly List<string> _warnings = [];
    private readonly int _padId;

    /// <summary>
    /// Tokenizes rows on all cores. Longer sequences are cut on the right, so that a cut text has no end of text.
    /// Rows without a token with loss are left out and named in <see cref="Warnings"/>.
    /// </summary>
    /// <param name="model">A causal language model with a tokenizer.</param>
    /// <param name="rows">Rows with <c>text</c>, or <c>prompt</c> and <c>completion</c>.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="reading">Treatment of rows that do not fit; null for an error.</param>
    /// <param name="onProgress">Called now and then with the share of the rows that are tokenized, on any thread.</param>
    /// <param name="cancellationToken">Stops tokenizing.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.DataColumnMissing"/>,
    /// <see cref="ErrorIds.DataValueInvalid"/>, <see cref="ErrorIds.DataWithoutLoss"/> or <see cref="ErrorIds.MaxLengthTooLarge"/>.
    /// </exception>
    public CausalLanguageTask(
        LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null, DataReading? reading = null, Action<double>? onProgress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        reading ??= new();
        ICausalLanguageModel languageModel = LanguageModel(model);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        int longest = TextEncoding.ResolveMaxLength(maxLength, languageModel.MaxSequenceLength, tokenizer);
        int? eos = tokenizer.EosId ?? (languageModel.EosIds.Count > 0 ? languageModel.EosIds[0] : null);

        IReadOnlyList<(DataRow Row, string Prompt, string Completion)> read = reading.Keep(rows, Texts);
        LanguageEncoder encoder = new(tokenizer, eos);
        EncodedText[] encoded = TextEncoding.EncodeAll(
            read.Count, i => encoder.Encode(read[i].Prompt, read[i].Completion), onProgress, cancellationToken);
        Add([.. read.Select(static row => row.Row)], encoded, longest);
        _warnings.AddRange(reading.Warnings);
        if (eos is null)
        {
            _warnings.Add("The tokenizer names no end-of-text token, so the model does not learn where to stop.");
        }

        _padId = tokenizer.PadId ?? eos ?? 0;
    }

    /// <inheritdoc/>
    public string Unit => "tokens";

    /// <inheritdoc/>
    public int RowCount => _ids.Count;

    /// <inheritdoc/>
    public TrainingMetric Metric => TrainingMetric.Perplexity;

    /// <inheritdoc/>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <inheritdoc/>
    public string DataHash => field ??= new RowHash().Add(_ids).Add([.. _lossStarts.Select(static start => (long)start)]).Finish();

    /// <inheritdoc/>
    public int CountBatches(int batchSize) => (RowCount + batchSize - 1) / batchSize;

    /// <inheritdoc/>
    public long LargestBatch(int batchSize) => (long)Math.Min(batchSize, RowCount) * _lengths.Max();

    /// <inheritdoc/>
    public IEnumerable<TrainingBatch> Batches(BatchOrder order) =>
        LengthBuckets.Create(_lengths, order).Select(rows =>
            new LanguageBatch([.. rows.Select(row => _ids[row])], [.. rows.Select(row => _lossStarts[row])], _padId));

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
        return new BatchScore(nn.functional.cross_entropy(logits, targets, reduction: nn.Reduction.Sum));
    }

    /// <inheritdoc/>
    public IReadOnlyList<RowScore> ScoreRows(LoKrModel model, TrainingBatch batch)
    {
        (Tensor logits, Tensor targets) = Forward(model, batch);
        double[] losses = RowScores.ToArray(nn.functional.cross_entropy(logits, targets, reduction: nn.Reduction.None));
        var rows = (LanguageBatch)batch;
        RowScore[] scores = new RowScore[rows.RowCount];
        foreach ((int i, double loss) in losses.Index())
        {
            ref RowScore score = ref scores[rows.Positions[i] / rows.Tokens.Length];
            score = new(score.LossSum + loss, score.LossCount + 1);
        }

        return scores;
    }

    /// <summary>Has nothing to release: the data are plain arrays.</summary>
    public void Dispose()
    {
    }

    /// <summary>Computes logits only for positions that predict a token with loss, because the vocabulary is the largest dimension of all.</summary>
    private static (Tensor Logits, Tensor Targets) Forward(LoKrModel model, TrainingBatch batch)
    {
        ArgumentNullException.ThrowIfNull(model);
        var rows = (LanguageBatch)batch;
        Device device = model.Device;
        ICausalLanguageModel languageModel = LanguageModel(model);

        // Padding is on the right and attention only looks left, so no token sees padding and no mask is needed.
        Tensor hidden = languageModel.HiddenStates(rows.Tokens.IdsOn(device));
        Tensor chosen = hidden.flatten(0, 1).index_select(0, tensor(rows.Positions, device: device));
        return (languageModel.Project(chosen).to(ScalarType.Float32), tensor(rows.Targets, device: device));
    }

    private static ICausalLanguageModel LanguageModel(LoKrModel model) => model.Pretrained as ICausalLanguageModel ?? throw new LoKrException(
        ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} is not a causal language model.", "Use another model, or train it with a loss of your own.");

    private static (DataRow Row, string Prompt, string Completion) Texts(DataRow row) =>
        RowFields.Has(row, "prompt") || RowFields.Has(row, "completion")
            ? (row, RowFields.AnyText(row, "prompt", Expected), RowFields.Text(row, "completion", Expected))
            : (row, "", RowFields.Text(row, "text", Expected));

    private void Add(IReadOnlyList<DataRow> rows, EncodedText[] encoded, int longest)
    {
        List<string> lost = [];
        List<int> cut = [];
        for (int i = 0; i < encoded.Length; i++)
        {
            (int[] ids, int start) = encoded[i];
            int length = Math.Min(ids.Length, longest);
            if (Math.Max(start, 1) >= length)
            {
                lost.Add(rows[i].Origin);
                continue;
            }

            if (length < ids.Length)
            {
                cut.Add(ids.Length);
            }

            _ids.Add(ids[..length]);
            _lossStarts.Add(start);
            _lengths.Add(length);
        }

        if (_ids.Count == 0)
        {
            throw new LoKrException(
                ErrorIds.DataWithoutLoss,
                LoKrErrorKind.InvalidData,
                $"None of the {rows.Count} rows has a token to learn from within {longest} tokens.",
                "Allow longer sequences, or shorten the prompts.");
        }

        if (lost.Count > 0)
        {
            string named = string.Join(", ", lost.Take(10)) + (lost.Count > 10 ? ", …" : "");
            _warnings.Add($"{lost.Count} of {rows.Count} rows have no token to learn from within {longest} tokens and are left out: {named}.");
        }

        _warnings.AddRange(CutText.Describe(cut, rows.Count, "rows", longest));
    }
}

/// <summary>Texts with, for every token with loss, the position that predicts it.</summary>
public sealed class LanguageBatch : TokenBatch
{
    internal LanguageBatch(IReadOnlyList<int[]> rows, IReadOnlyList<int> lossStarts, int padId)
        : base(rows, padId)
    {
        List<long> positions = [];
        List<long> targets = [];
        for (int r = 0; r < rows.Count; r++)
        {
            // Token i is predicted from position i - 1; nothing predicts the first.
            for (int i = Math.Max(lossStarts[r], 1); i < rows[r].Length; i++)
            {
                positions.Add(((long)r * Tokens.Length) + i - 1);
                targets.Add(rows[r][i]);
            }
        }

        (Positions, Targets) = ([.. positions], [.. targets]);
    }

    /// <inheritdoc/>
    public override long LossCount => Positions.Length;

    /// <summary>Indices into the flattened [rows · length] whose hidden state predicts a target.</summary>
    internal long[] Positions { get; }

    internal long[] Targets { get; }
}

/// <summary>Token ids of one row.</summary>
/// <param name="Ids">All ids, the end of text included.</param>
/// <param name="LossStart">Index of the first token with loss.</param>
internal readonly record struct EncodedText(int[] Ids, int LossStart);

/// <summary>Encodes prompts with their completions and the end of text.</summary>
/// <param name="tokenizer">The tokenizer; used from several threads at once.</param>
/// <param name="eosId">Id that ends a text, or null.</param>
internal sealed class LanguageEncoder(ITextTokenizer tokenizer, int? eosId)
{
    /// <summary>Encodes one row.</summary>
    /// <param name="prompt">Text without loss; empty when the whole text has loss.</param>
    /// <param name="completion">Text with loss.</param>
    public EncodedText Encode(string prompt, string completion)
    {
        List<int> whole = WithoutEnd(tokenizer.Encode(prompt + completion));
        int start = 0;
        if (prompt.Length > 0)
        {
            // In use the model sees the prompt alone, so the ids of the prompt alone must come first. Where the tokenizer would join the end
            // of the prompt with the completion, both are encoded separately.
            List<int> head = WithoutEnd(tokenizer.Encode(prompt));
            start = head.Count;
            if (whole.Count < start || !whole.Take(start).SequenceEqual(head))
            {
                whole = [.. head, .. tokenizer.Encode(completion, addSpecialTokens: false)];
            }
        }

        if (eosId is int end)
        {
            whole.Add(end);
        }

        return new EncodedText([.. whole], start);
    }

    /// <summary>Removes an end-of-text id of the tokenizer's template; the id is added once, at the very end.</summary>
    private List<int> WithoutEnd(IReadOnlyList<int> ids)
    {
        List<int> kept = [.. ids];
        while (kept.Count > 0 && kept[^1] == eosId)
        {
            kept.RemoveAt(kept.Count - 1);
        }

        return kept;
    }
}
