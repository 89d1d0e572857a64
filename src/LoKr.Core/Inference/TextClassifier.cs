using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using static TorchSharp.torch;

namespace LoKr.Core.Inference;

/// <summary>Classifies texts with a sequence classifier.</summary>
public static class TextClassifier
{
    /// <summary>Classifies one batch in evaluation mode and without gradients; afterwards every module returns to the mode it was in.</summary>
    /// <param name="model">A sequence classifier with a tokenizer.</param>
    /// <param name="texts">The texts of the batch; longer ones are cut on the right, special tokens are not.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="onCut">Called for each text that is cut.</param>
    /// <returns>One result for each text, in order; scores are probabilities by softmax, by sigmoid where several labels may apply or there is only one, or the numbers of a regression; those of a reranker as <see cref="CrossEncoderConfig"/> says.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.MaxLengthTooLarge"/>, <see cref="ErrorIds.DataValueInvalid"/> or <see cref="ErrorIds.LogitsNotFinite"/>.
    /// </exception>
    public static IReadOnlyList<LoKrClassification> Classify(LoKrModel model, IReadOnlyList<string> texts, int? maxLength = null, Action<CutText>? onCut = null)
    {
        ArgumentNullException.ThrowIfNull(texts);
        return Classify(model, [.. texts.Select(static text => new TextInput(text))], maxLength, onCut);
    }

    /// <summary>Classifies one batch of texts and pairs of texts as the other overload does; of a pair the longer text is cut first.</summary>
    /// <inheritdoc cref="Classify(LoKrModel, IReadOnlyList{string}, int?, Action{CutText}?)"/>
    public static IReadOnlyList<LoKrClassification> Classify(LoKrModel model, IReadOnlyList<TextInput> texts, int? maxLength = null, Action<CutText>? onCut = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(texts);
        ISequenceClassifier classifier = model.Pretrained as ISequenceClassifier ?? throw new LoKrException(
            ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} is not a text classifier.", "Load the model with a list of labels.");
        if (texts.Count == 0)
        {
            return [];
        }

        using EvaluationMode mode = new([model]);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        int longest = TextEncoding.ResolveMaxLength(maxLength, classifier.MaxSequenceLength, tokenizer);
        CutText[] encoded = [.. texts.Select(text => Encode(tokenizer, text, longest, onCut))];
        TokenMatrix tokens = new([.. encoded.Select(static text => text.Ids)], classifier.PadId ?? tokenizer.PadId ?? 0);
        TokenMatrix? types = CutText.TypesOf(classifier, encoded, tokens.Length);

        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        Tensor logits = classifier.Classify(tokens.IdsOn(model.Device), tokens.MaskOn(model.Device), types?.IdsOn(model.Device));
        ClassificationProblem problem = ClassificationProblems.Find(classifier) ?? (classifier.Labels.Count == 1 ? ClassificationProblem.Relevance : ClassificationProblem.SingleLabel);
        bool areLogits = problem is ClassificationProblem.Relevance && CrossEncoderConfig.ScoresAreLogits(classifier.Config);
        logits = logits.to(ScalarType.Float64);
        Tensor values = problem switch
        {
            ClassificationProblem.SingleLabel => logits.softmax(-1),
            ClassificationProblem.SeveralLabels => logits.sigmoid(),
            ClassificationProblem.Relevance when !areLogits => logits.sigmoid(),
            _ => logits,
        };
        double[] scores = values.cpu().data<double>().ToArray();
        int broken = Array.FindIndex(scores, static score => !double.IsFinite(score));
        if (broken >= 0)
        {
            string text = texts[broken / classifier.Labels.Count].Text;
            throw ModelOutputs.NotFinite($"The scores of {model.Name} for the text '{text}' are", text);
        }

        return [.. texts.Select((text, row) => Describe(text, classifier.Labels, problem, areLogits ? 0 : 0.5, scores.AsSpan(row * classifier.Labels.Count, classifier.Labels.Count)))];
    }

    private static CutText Encode(ITextTokenizer tokenizer, TextInput text, int longest, Action<CutText>? onCut)
    {
        CutText encoded = CutText.Encode(tokenizer, text, longest);
        if (encoded.IsCut)
        {
            onCut?.Invoke(encoded);
        }

        return encoded.Ids.Length > 0
            ? encoded
            : throw TextEncoding.WithoutTokens(text.Text);
    }

    private static LoKrClassification Describe(TextInput text, IReadOnlyList<string> labels, ClassificationProblem problem, double threshold, ReadOnlySpan<double> scores)
    {
        int best = 0;
        OrderedDictionary<string, double> byLabel = new(StringComparer.Ordinal);
        for (int i = 0; i < scores.Length; i++)
        {
            best = scores[i] > scores[best] ? i : best;
            byLabel[labels[i]] = scores[i];
        }

        IEnumerable<string> applying = problem switch
        {
            ClassificationProblem.SingleLabel => [labels[best]],
            ClassificationProblem.SeveralLabels or ClassificationProblem.Relevance => byLabel.Where(pair => pair.Value > threshold).Select(static pair => pair.Key),
            _ => labels,
        };
        return new LoKrClassification { Text = text.Text, TextPair = text.Pair, Label = labels[best], Labels = [.. applying], Score = scores[best], Scores = byLabel };
    }
}

/// <summary>The classification of one text. Flat and serializable.</summary>
public sealed record LoKrClassification
{
    /// <summary>The text.</summary>
    public required string Text { get; init; }

    /// <summary>The second text of a pair; null for one text.</summary>
    public string? TextPair { get; init; }

    /// <summary>The most likely label; of a regression the one with the largest number.</summary>
    public required string Label { get; init; }

    /// <summary>The labels that apply: the most likely one; where several may apply, those above one half; all of a regression.</summary>
    public IReadOnlyList<string> Labels { get; init => field = ValueList.Of(value); } = [];

    /// <summary>Its probability, or number.</summary>
    public required double Score { get; init; }

    /// <summary>Probability, or number, by label, in the order of the model's labels.</summary>
    public required IReadOnlyDictionary<string, double> Scores { get; init => field = ValueList.Of(value); }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Label} ({Score:F4})");
}
