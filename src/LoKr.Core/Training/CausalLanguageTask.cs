using LoKr.Core.Adapters;
using LoKr.Core.Modeling;
using LoKr.Core.Training.Data;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// Prediction of the next token. Rows have <c>text</c> (loss on every token but the first), or <c>prompt</c> and <c>completion</c>
/// (loss on the completion only); the end-of-text token follows and carries loss too. The loss is the mean cross entropy over the tokens
/// that carry loss, as transformers computes it with labels of -100 elsewhere.
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
    /// Tokenises rows on all cores. Sequences that are longer are cut on the right, so that a cut text has no end of text;
    /// rows with no token left that carries loss are left out and named in <see cref="Warnings"/>.
    /// </summary>
    /// <param name="model">A causal language model with a tokenizer.</param>
    /// <param name="rows">Rows with <c>text</c>, or <c>prompt</c> and <c>completion</c>.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for what the model allows.</param>
    /// <param name="cancellationToken">Stops tokenising.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.DataColumnMissing"/>,
    /// <see cref="ErrorIds.DataValueInvalid"/>, <see cref="ErrorIds.DataWithoutLoss"/> or <see cref="ErrorIds.MaxLengthTooLarge"/>.
    /// </exception>
    public CausalLanguageTask(LoKrModel model, IReadOnlyList<DataRow> rows, int? maxLength = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        TextEncoding.RequireRows(rows);
        ICausalLanguageModel languageModel = LanguageModel(model);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        int longest = TextEncoding.ResolveMaxLength(maxLength, languageModel.MaxSequenceLength, tokenizer);
        int? eos = tokenizer.EosId ?? (languageModel.EosIds.Count > 0 ? languageModel.EosIds[0] : null);

        (string Prompt, string Completion)[] texts = [.. rows.Select(Texts)];
        LanguageEncoder encoder = new(tokenizer, eos);
        (int[] Ids, int LossStart)[] encoded = TextEncoding.Parallelize(
            rows.Count, i => encoder.Encode(texts[i].Prompt, texts[i].Completion), cancellationToken);
        Keep(rows, encoded, longest);
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

    /// <summary>Does nothing: the data are plain arrays.</summary>
    public void Dispose()
    {
    }

    /// <summary>Logits of only the positions that predict a token with loss: the vocabulary is the largest dimension of all.</summary>
    private static (Tensor Logits, Tensor Targets) Forward(LoKrModel model, TrainingBatch batch)
    {
        ArgumentNullException.ThrowIfNull(model);
        var rows = (LanguageBatch)batch;
        Device device = model.Device;
        ICausalLanguageModel languageModel = LanguageModel(model);

        // Padding is on the right and attention only looks left, so no token sees padding and no mask is needed.
        Tensor hidden = languageModel.HiddenStates(TextEncoding.Matrix(rows.InputIds, rows, device));
        Tensor chosen = hidden.flatten(0, 1).index_select(0, tensor(rows.Positions, device: device));
        return (languageModel.Project(chosen).to(ScalarType.Float32), tensor(rows.Targets, device: device));
    }

    private static ICausalLanguageModel LanguageModel(LoKrModel model) => model.Pretrained as ICausalLanguageModel ?? throw new LoKrException(
        ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} is not a causal language model.", "Use another model, or give a loss of your own (-Loss).");

    private static (string Prompt, string Completion) Texts(DataRow row) =>
        RowFields.Has(row, "prompt") || RowFields.Has(row, "completion")
            ? (RowFields.Text(row, "prompt", Expected), RowFields.Text(row, "completion", Expected))
            : ("", RowFields.Text(row, "text", Expected));

    private void Keep(IReadOnlyList<DataRow> rows, (int[] Ids, int LossStart)[] encoded, int longest)
    {
        List<string> lost = [];
        int cut = 0;
        for (int i = 0; i < encoded.Length; i++)
        {
            (int[] ids, int start) = encoded[i];
            int length = Math.Min(ids.Length, longest);
            if (Math.Max(start, 1) >= length)
            {
                lost.Add(rows[i].Origin);
                continue;
            }

            cut += length < ids.Length ? 1 : 0;
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

        if (cut > 0)
        {
            _warnings.Add($"{cut} of {rows.Count} rows are cut to {longest} tokens.");
        }
    }
}
