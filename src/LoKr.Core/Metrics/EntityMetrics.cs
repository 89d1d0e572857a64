namespace LoKr.Core.Metrics;

/// <summary>A run of words that is one entity.</summary>
/// <param name="Sentence">Index of the sentence.</param>
/// <param name="Type">Its type, such as <c>PER</c>.</param>
/// <param name="First">Index of its first word.</param>
/// <param name="Last">Index of its last word.</param>
public readonly record struct TaggedEntity(int Sentence, string Type, int First, int Last);

/// <summary>Entities of one type: how many the model gave, how many there are, and how many are both.</summary>
/// <param name="Type">The type.</param>
/// <param name="Right">Entities that were found with both ends.</param>
/// <param name="Answers">Entities that the model gave.</param>
/// <param name="Actual">Entities in the right tags.</param>
public readonly record struct EntityCount(string Type, long Right, long Answers, long Actual);

/// <summary>Names of tags.</summary>
public static class EntityTags
{
    /// <summary>The tag of a word that is in no entity.</summary>
    public const string Outside = "O";

    /// <summary>Whether a name is that of a tag of entities: <c>O</c>, or a letter, a hyphen and a type.</summary>
    /// <param name="name">The name.</param>
    public static bool IsTag(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return name == Outside || (name.Length > 2 && name[1] == '-' && char.IsAsciiLetterUpper(name[0]));
    }

    /// <summary>Whether labels are tags of entities, and not those of parts of speech for example.</summary>
    /// <param name="labels">The labels of a model.</param>
    public static bool AreEntities(IReadOnlyList<string> labels)
    {
        ArgumentNullException.ThrowIfNull(labels);
        return labels.All(IsTag) && labels.Any(static label => label != Outside);
    }
}

/// <summary>
/// Precision, recall and F1 of entities, which count as found only with the right type and both ends (seqeval 1.2.2). Tags are <c>B-TYPE</c>,
/// <c>I-TYPE</c> and <c>O</c>.
/// </summary>
public sealed class EntityMetrics
{
    private readonly SortedDictionary<string, (long Right, long Answers, long Actual)> _types = new(StringComparer.Ordinal);

    /// <summary>Adds up entities that were counted before.</summary>
    /// <param name="counts">Entities by type, in any order; a type may occur any number of times.</param>
    /// <param name="rightWords">Words with the right tag.</param>
    /// <param name="words">All words.</param>
    public EntityMetrics(IEnumerable<EntityCount> counts, long rightWords, long words)
    {
        ArgumentNullException.ThrowIfNull(counts);
        foreach ((string type, long right, long answers, long actual) in counts)
        {
            (long Right, long Answers, long Actual) before = _types.GetValueOrDefault(type);
            _types[type] = (before.Right + right, before.Answers + answers, before.Actual + actual);
        }

        Accuracy = words == 0 ? null : (double)rightWords / words;
    }

    /// <summary>Compares the tags of sentences.</summary>
    /// <param name="actual">The right tags, by sentence.</param>
    /// <param name="predicted">The tags that the model gave, as many.</param>
    /// <param name="isStrict">
    /// Whether only <c>B-</c> begins an entity (seqeval's strict mode with IOB2); otherwise <c>I-</c> after <c>O</c> or after another type begins
    /// one too, as seqeval does by default, and <c>E-</c> ends and <c>S-</c> is one.
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

    /// <summary>The entities of every type.</summary>
    public IEnumerable<EntityCount> Counts => _types.Select(static pair => new EntityCount(pair.Key, pair.Value.Right, pair.Value.Answers, pair.Value.Actual));

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
                (char Prefix, string Type) tag = Split(i < tags.Count ? tags[i] : EntityTags.Outside);
                bool isInside = tag.Prefix == 'I' || (tag.Prefix == 'E' && !isStrict);
                bool goesOn = isInside && before.Prefix is 'B' or 'I' && tag.Type == before.Type;
                if (first is int start && !goesOn)
                {
                    entities.Add(new TaggedEntity(sentence, before.Type, start, i - 1));
                    first = null;
                }

                first ??= tag.Prefix == 'B' || (!isStrict && !goesOn && (isInside || tag.Prefix == 'S')) ? i : null;
                before = tag;
            }
        }

        return entities;
    }

    private static (char Prefix, string Type) Split(string tag)
    {
        int dash = tag.IndexOf('-', StringComparison.Ordinal);
        return tag.Length == 0 || tag == EntityTags.Outside ? ('O', "") : (tag[0], dash < 0 ? "_" : tag[(dash + 1)..]);
    }
}
