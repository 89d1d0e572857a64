namespace TinyEncoder;

/// <summary>Makes sentences from <c>phrases.txt</c>: subjects, predicates, requests, statements and words by topic.</summary>
internal sealed class PhraseBook
{
    private static readonly string[] s_openings =
    [
        "hello, ", "hi, ", "good morning, ", "dear colleagues, ", "i have a problem: ", "it seems that ", "we noticed that ", "again ",
        "my colleague says that ", "since the weekend ", "after the move ", "as of today ", "for two days ", "a customer tells us that ",
        "in our office ", "in room 204 ", "on the second floor ", "at the branch in leipzig ", "although i tried it twice, ", "unfortunately ",
    ];

    private static readonly string[] s_closings =
    [
        " since this morning", " since yesterday", " after the weekend", " every day", " again", " today", " for a week now", " on the third floor",
        " in the warehouse", " and i need it before friday", ", what can i do?", ", who can help?", ", it is urgent", ", thank you", " and nobody knows why",
        " since the update", " in the whole team", ", can you have a look?", " for our department", " at the moment",
    ];

    private static readonly string[] s_requests =
        ["please ", "could you ", "can somebody ", "we need you to ", "i would like you to ", "would you kindly ", "please urgently "];

    private static readonly string[] s_judgements =
    [
        "is not right", "is gone", "does not work", "is a problem", "has to be looked at", "worries us", "is new to me", "was different before", "is still open",
        "cannot be right", "is urgent", "annoys the whole team", "is missing", "needs a solution", "makes trouble", "is what i mean", "has changed",
    ];

    private static readonly string[] s_glue =
        ["and", "or", "with", "for", "of", "in", "after", "before", "but no", "although", "since", "instead of", "without", "because of", "when", "on", "to", "and then", "not"];

    private readonly Topic[] _topics;

    private PhraseBook(Topic[] topics) => _topics = topics;

    /// <summary>Number of topics.</summary>
    public int TopicCount => _topics.Length;

    /// <summary>Reads the phrases.</summary>
    public static PhraseBook Load(string path)
    {
        List<Topic> topics = [];
        foreach (string line in File.ReadLines(path))
        {
            if (line.StartsWith('['))
            {
                topics.Add(new Topic());
            }
            else if (line.Length > 2 && line[1] == ':')
            {
                string[] phrases = line[2..].Split('|', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
                topics[^1].Phrases.Add(line[0], phrases);
            }
            else if (line.Length > 0 && !line.StartsWith('#'))
            {
                throw new InvalidDataException($"'{line}' is neither a topic nor phrases.");
            }
        }

        return new PhraseBook([.. topics]);
    }

    /// <summary>Makes one sentence, or two of the same topic.</summary>
    public Sentence Next(Random random)
    {
        int topic = random.Next(_topics.Length);
        string text = Clause(_topics[topic], random);
        if (random.Next(3) == 0)
        {
            text += ". " + Clause(_topics[topic], random);
        }

        return new Sentence(text + ".", topic);
    }

    private static string Clause(Topic topic, Random random)
    {
        string clause = random.Next(16) switch
        {
            // Words of the topic in no grammar at all, so that meaning does not hang on fixed phrases.
            < 6 => Words(topic, random),
            < 10 => $"{topic.Pick('n', random)} {topic.Pick('v', random)}",
            < 12 => Pick(s_requests, random) + topic.Pick('r', random),
            < 15 => topic.Pick('s', random),

            // A subject with another subject beside it: words of a topic meet without a fixed order.
            _ => $"{topic.Pick('n', random)} or {topic.Pick('n', random)} {topic.Pick('v', random)}",
        };
        string opening = random.Next(3) == 0 ? Pick(s_openings, random) : "";
        string closing = random.Next(3) == 0 ? Pick(s_closings, random) : "";
        return opening + clause + closing;
    }

    private static string Words(Topic topic, Random random)
    {
        string text = $"{(random.Next(2) == 0 ? "the" : "my")} {topic.Pick('w', random)}";
        for (int more = random.Next(4); more > 0; more--)
        {
            text += $" {Pick(s_glue, random)} {(random.Next(2) == 0 ? "the " : "")}{topic.Pick('w', random)}";
        }

        return random.Next(2) == 0 ? text : $"{text} {Pick(s_judgements, random)}";
    }

    private static string Pick(string[] phrases, Random random) => phrases[random.Next(phrases.Length)];

    private sealed class Topic
    {
        public Dictionary<char, string[]> Phrases { get; } = [];

        public string Pick(char kind, Random random) => PhraseBook.Pick(Phrases[kind], random);
    }
}
