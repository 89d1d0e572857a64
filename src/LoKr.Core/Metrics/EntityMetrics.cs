namespace LoKr.Core.Metrics;

/// <summary>A run of words that is one entity.</summary>
/// <param name="Sentence">Index of the sentence.</param>
/// <param name="Type">Its type, such as <c>PER</c>.</param>
/// <param name="First">Index of its first word.</param>
/// <param name="Last">Index of its last word.</param>
public readonly record struct TaggedEntity(int Sentence, string Type, int First, int Last);

/// <summary>
/// Precision, recall and F1 of entities, which count as found only with the right type and both ends (seqeval 1.2.2). Tags are <c>B-TYPE</c>,
/// <c>I-TYPE</c> and <c>O</c>.
/// </summary>
public sealed class EntityMetrics
{
    private const string Outside = "O";

    private readonly SortedDictionary<string, (long Right, long Answers, long Actual)> _types = new(StringComparer.Ordinal);

    /// <summary>Compares the tags of sentences.</summary>
    /// <param name="actual">The right tags, by sentence.</param>
    /// <param name="predicted">The tags that the model gave, as many.</param>
    /// <param name="isStrict">
    /// Whether only <c>B-</c> begins an entity (seqeval's strict mode with IOB2); otherwise <c>I-</c> after <c>O</c> or after another type begins
    /// one too, as seqeval does by default.
    /// </param>
    public EntityMetrics(IReadOnlyList<IReadOnlyList<string>> actual, IReadOnlyList<IReadOnlyList<string>> predicted, bool isStrict = false)
    {
        ArgumentNullException.ThrowIfNull(actual);
        ArgumentNullException.ThrowIfNull(predicted);
        ArgumentOutOfRangeException.ThrowIfNotEqual(predicted.Count, actual.Count);
        HashSet<TaggedEntity> right = [.. Find(actual, isStrict)];
        HashSet<TaggedEntity> answers = [.. Find(predicted, isStrict)];
        foreach (TaggedEntity entity in right.Union(answers))
        {
            (bool isActual, bool isAnswer) = (right.Contains(entity), answers.Contains(entity));
            (long both, long given, long there) = _types.GetValueOrDefault(entity.Type);
            _types[entity.Type] = (both + (isActual && isAnswer ? 1 : 0), given + (isAnswer ? 1 : 0), there + (isActual ? 1 : 0));
        }

        (long same, long words) = (0, 0);
        for (int sentence = 0; sentence < actual.Count; sentence++)
        {
            ArgumentOutOfRangeException.ThrowIfNotEqual(predicted[sentence].Count, actual[sentence].Count);
            words += actual[sentence].Count;
            same += actual[sentence].Zip(predicted[sentence]).Count(static pair => pair.First == pair.Second);
        }

        Accuracy = words == 0 ? null : (double)same / words;
    }

    /// <summary>Share of words with the right tag; null without words.</summary>
    public double? Accuracy { get; }

    /// <summary>Types that the right tags or the answers have, in ordinal order.</summary>
    public IEnumerable<string> Types => _types.Keys;

    /// <summary>Entities in the right tags.</summary>
    public long Count => _types.Values.Sum(static counts => counts.Actual);

    /// <summary>The figures of all entities together.</summary>
    public PrecisionRecall Micro => PrecisionRecall.Of(
        _types.Values.Sum(static counts => counts.Right), _types.Values.Sum(static counts => counts.Answers), Count);

    /// <summary>The mean over types; null without entities.</summary>
    public PrecisionRecall? Macro => _types.Count == 0 ? null : PrecisionRecall.Mean(Types.Select(type => (Of(type), 1L)));

    /// <summary>The mean over types, each with the number of its entities.</summary>
    public PrecisionRecall Weighted => PrecisionRecall.Mean(Types.Select(type => (Of(type), Support(type))));

    /// <summary>The figures of one type.</summary>
    public PrecisionRecall Of(string type)
    {
        (long right, long answers, long actual) = _types.GetValueOrDefault(type);
        return PrecisionRecall.Of(right, answers, actual);
    }

    /// <summary>Entities of one type in the right tags.</summary>
    public long Support(string type) => _types.GetValueOrDefault(type).Actual;

    /// <summary>Finds the entities of sentences.</summary>
    /// <param name="sentences">Tags by sentence.</param>
    /// <param name="isStrict">As for the constructor.</param>
    public static IReadOnlyList<TaggedEntity> Find(IReadOnlyList<IReadOnlyList<string>> sentences, bool isStrict = false)
    {
        ArgumentNullException.ThrowIfNull(sentences);
        List<TaggedEntity> entities = [];
        for (int sentence = 0; sentence < sentences.Count; sentence++)
        {
            IReadOnlyList<string> tags = sentences[sentence];
            int? first = null;
            (char Prefix, string Type) before = ('O', "");
            for (int i = 0; i <= tags.Count; i++)
            {
                (char Prefix, string Type) tag = Split(i < tags.Count ? tags[i] : Outside);
                bool goesOn = tag.Prefix == 'I' && before.Prefix is 'B' or 'I' && tag.Type == before.Type;
                if (first is int start && !goesOn)
                {
                    entities.Add(new TaggedEntity(sentence, before.Type, start, i - 1));
                    first = null;
                }

                first ??= tag.Prefix == 'B' || (tag.Prefix == 'I' && !isStrict && !goesOn) ? i : null;
                before = tag;
            }
        }

        return entities;
    }

    private static (char Prefix, string Type) Split(string tag)
    {
        int dash = tag.IndexOf('-', StringComparison.Ordinal);
        return tag.Length == 0 || tag == Outside ? ('O', "") : (tag[0], dash < 0 ? "_" : tag[(dash + 1)..]);
    }
}
