using System.Globalization;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// A bidirectional text encoder with a classification head: <c>call(inputIds, attentionMask)</c> gives the logits [batch, labels],
/// <see cref="LastHiddenState"/> and <see cref="Embed"/> what the encoder makes of the text.
/// </summary>
public abstract class EncoderClassifier : nn.Module<Tensor, Tensor, Tensor>, ISequenceClassifier
{
    private readonly int _vocabularySize;

    /// <summary>Takes what all encoders share.</summary>
    /// <param name="architecture">Class name as transformers has it.</param>
    /// <param name="config">Configuration of the model.</param>
    /// <param name="labels">Labels the user gave, or null for those of the configuration.</param>
    /// <param name="maxSequenceLength">Longest sequence the position embeddings allow.</param>
    protected EncoderClassifier(string architecture, ModelConfig config, IReadOnlyList<string>? labels, int maxSequenceLength)
        : base(architecture)
    {
        ArgumentNullException.ThrowIfNull(config);
        Architecture = architecture;
        ModelType = config.ModelType;
        MaxSequenceLength = maxSequenceLength;
        _vocabularySize = config.GetSize("vocab_size");
        Labels = ClassificationLabels.Resolve(config, labels, headRows: null);
        Config = (JsonObject)config.Json.DeepClone();
        Config["architectures"] = new JsonArray(architecture);
        ClassificationLabels.Write(Config, Labels);
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture { get; }

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => null;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; } = new Dictionary<string, string>();

    /// <inheritdoc/>
    public IReadOnlyList<string> Labels { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength { get; }

    /// <summary>Hidden states of the last layer.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding, int64 [batch, length]; null when nothing is padded.</param>
    /// <returns>Hidden states [batch, length, hidden].</returns>
    public Tensor LastHiddenState(Tensor inputIds, Tensor? attentionMask = null)
    {
        CheckInput(inputIds, attentionMask);
        using DisposeScope scope = NewDisposeScope();
        return Encode(inputIds, Attention.PaddingMask(attentionMask)).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Sentence embeddings: hidden states averaged over the tokens and scaled to length one, as sentence-transformers' mean pooling.
    /// </summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding, int64 [batch, length].</param>
    /// <returns>Embeddings [batch, hidden].</returns>
    public Tensor Embed(Tensor inputIds, Tensor attentionMask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor hidden = LastHiddenState(inputIds, attentionMask);
        Tensor weights = attentionMask.to_type(hidden.dtype).unsqueeze(-1);
        Tensor mean = (hidden * weights).sum(dim: 1L) / weights.sum(dim: 1L).clamp_min(1e-9);
        return nn.functional.normalize(mean, 2, 1).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public Tensor Classify(Tensor inputIds, Tensor attentionMask) => call(inputIds, attentionMask);

    /// <summary>Logits [batch, labels] of token ids and their padding mask, both int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor attentionMask)
    {
        CheckInput(inputIds, attentionMask);
        using DisposeScope scope = NewDisposeScope();
        return Head(Encode(inputIds, Attention.PaddingMask(attentionMask))).MoveToOuterDisposeScope();
    }

    /// <summary>Runs the encoder.</summary>
    /// <param name="inputIds">Token ids [batch, length].</param>
    /// <param name="mask">Boolean [batch, 1, 1, length], or null.</param>
    /// <returns>Hidden states [batch, length, hidden].</returns>
    protected abstract Tensor Encode(Tensor inputIds, Tensor? mask);

    /// <summary>Turns hidden states [batch, length, hidden] into logits [batch, labels].</summary>
    protected abstract Tensor Head(Tensor hiddenStates);

    private void CheckInput(Tensor inputIds, Tensor? attentionMask) =>
        TokenInput.Check(Architecture, inputIds, attentionMask, _vocabularySize, MaxSequenceLength);
}

/// <summary>Label names of a classification head: what config.json says, what the user gave, and whether the two agree.</summary>
internal static class ClassificationLabels
{
    /// <summary>Labels in the order of the logits.</summary>
    /// <param name="config">The configuration; its <c>id2label</c>, <c>label2id</c> or <c>num_labels</c>.</param>
    /// <param name="given">Labels the user gave, or null.</param>
    /// <param name="headRows">Rows of the checkpoint's head, or null where it has none and a fresh one will be made.</param>
    public static IReadOnlyList<string> Resolve(ModelConfig config, IReadOnlyList<string>? given, long? headRows)
    {
        if (given is not null)
        {
            CheckGiven(given);
        }

        if (headRows is null)
        {
            // Two labels are what transformers makes of a configuration that names none.
            return given ?? Read(config) ?? Generic(2);
        }

        string[] known = Read(config) ?? Generic((int)headRows.Value);
        if (known.Length != headRows)
        {
            throw config.Invalid("id2label", $"names {known.Length} labels ({Join(known)}), but the classification head of the checkpoint has {headRows} rows");
        }

        if (given is null || given.SequenceEqual(known, StringComparer.Ordinal))
        {
            return known;
        }

        // LABEL_0, LABEL_1, … are what transformers writes for want of names: naming them is not a change of labels.
        return given.Count == known.Length && IsGeneric(known)
            ? given
            : throw new LoKrException(ErrorIds.LabelsMismatch, LoKrErrorKind.InvalidArgument,
                $"The checkpoint classifies into {known.Length} labels ({Join(known)}), but {given.Count} were given ({Join(given)}).",
                "Leave the labels out to keep the checkpoint's head, or start from an encoder without a head to train a new one.") { Target = config.Source };
    }

    /// <summary>Writes <c>id2label</c> and <c>label2id</c>.</summary>
    public static void Write(JsonObject config, IReadOnlyList<string> labels)
    {
        JsonObject names = [];
        JsonObject ids = [];
        for (int i = 0; i < labels.Count; i++)
        {
            names[i.ToString(CultureInfo.InvariantCulture)] = labels[i];
            ids[labels[i]] = i;
        }

        config["id2label"] = names;
        config["label2id"] = ids;
        config.Remove("num_labels");
    }

    /// <summary>The labels of a configuration, or null where it names none.</summary>
    private static string[]? Read(ModelConfig config)
    {
        ModelConfig? names = config.GetObject("id2label");
        if (names is { Json.Count: > 0 })
        {
            return Order("id2label", names.Json.Select(pair => (Id: ParseId(config, pair.Key), Name: names.GetString(pair.Key))));
        }

        ModelConfig? ids = config.GetObject("label2id");
        if (ids is { Json.Count: > 0 })
        {
            return Order("label2id", ids.Json.Select(pair => (Id: ids.GetInt(pair.Key, null) ?? -1, Name: pair.Key)));
        }

        return config.Has("num_labels") ? Generic(config.GetSize("num_labels")) : null;

        string[] Order(string key, IEnumerable<(int Id, string Name)> labels)
        {
            (int Id, string Name)[] sorted = [.. labels.OrderBy(label => label.Id)];
            return sorted.Select((label, index) => label.Id == index).All(ok => ok)
                ? [.. sorted.Select(label => label.Name)]
                : throw config.Invalid(key, "does not number its labels 0, 1, 2, … without gaps");
        }
    }

    private static int ParseId(ModelConfig config, string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int id) ? id : throw config.Invalid("id2label", $"has the id '{text}', not a number");

    private static void CheckGiven(IReadOnlyList<string> labels)
    {
        string? problem = labels.Count == 0 ? "No labels were given."
            : labels.Any(string.IsNullOrWhiteSpace) ? "A label is empty."
            : labels.GroupBy(label => label, StringComparer.Ordinal).FirstOrDefault(group => group.Count() > 1) is { } twice ? $"The label '{twice.Key}' was given twice."
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.LabelsInvalid, LoKrErrorKind.InvalidArgument, problem, "Give each label once, in the order of the logits.");
        }
    }

    private static string[] Generic(int count) => [.. Enumerable.Range(0, count).Select(i => string.Create(CultureInfo.InvariantCulture, $"LABEL_{i}"))];

    private static bool IsGeneric(string[] labels) => labels.SequenceEqual(Generic(labels.Length), StringComparer.Ordinal);

    private static string Join(IReadOnlyList<string> labels) =>
        labels.Count <= 12 ? string.Join(", ", labels) : string.Join(", ", labels.Take(12)) + ", …";
}
