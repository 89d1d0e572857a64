using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TinyEncoder;

/// <summary>Trains the encoder on two tasks at once: masked words, and which of the topics a sentence is about.</summary>
internal static class Pretraining
{
    private const double MaskedShare = 0.15;

    /// <summary>Runs the given number of steps and reports now and then.</summary>
    public static void Run(Encoder encoder, PhraseBook phrases, WordPieceVocabulary vocabulary, EncoderSize size, int steps, Random random, Action<string> report)
    {
        using Linear topics = nn.Linear(size.Hidden, phrases.TopicCount);
        using Sequential words = nn.Sequential(nn.Linear(size.Hidden, size.Hidden), nn.GELU(), nn.LayerNorm(size.Hidden));
        using Parameter bias = nn.Parameter(zeros(size.Vocabulary));
        Parameter[] parameters = [.. encoder.parameters(), .. topics.parameters(), .. words.parameters(), bias];
        using var optimizer = optim.AdamW(parameters, lr: 1e-3, weight_decay: 0.01);
        for (int step = 0; step < steps; step++)
        {
            using DisposeScope scope = NewDisposeScope();
            double progress = (double)step / steps;
            optimizer.ParamGroups.First().LearningRate = 1e-3 * Math.Min(1, progress / 0.05) * (1 - progress);
            Batch batch = Batch.Make(phrases, vocabulary, size, 48, MaskedShare, random);
            Tensor hidden = encoder.Hidden(batch.Ids, batch.Mask);
            Tensor masked = words.call(hidden.flatten(0, 1).index_select(0, batch.Positions)).matmul(encoder.Words.t()) + bias;
            Tensor word = nn.functional.cross_entropy(masked, batch.Words);
            Tensor scores = topics.call(encoder.Pool(hidden));
            Tensor topic = nn.functional.cross_entropy(scores, batch.Topics, label_smoothing: 0.1);
            optimizer.zero_grad();
            (word + topic).backward();
            nn.utils.clip_grad_norm_(parameters, 1);
            optimizer.step();
            if ((step + 1) % 250 == 0)
            {
                double right = scores.argmax(1).eq(batch.Topics).to(ScalarType.Float32).mean().item<float>();
                report($"step {step + 1}/{steps}: masked words {word.item<float>():F3}, topics {topic.item<float>():F3} ({right:P0} right)");
            }
        }
    }

    private sealed record Batch(Tensor Ids, Tensor Mask, Tensor Positions, Tensor Words, Tensor Topics)
    {
        public static Batch Make(PhraseBook phrases, WordPieceVocabulary vocabulary, EncoderSize size, int rows, double maskedShare, Random random)
        {
            Sentence[] sentences = [.. Enumerable.Range(0, rows).Select(_ => phrases.Next(random))];
            int[][] encoded = [.. sentences.Select(sentence => vocabulary.Encode(sentence.Text)).Select(ids => ids[..Math.Min(ids.Length, size.Positions)])];
            int length = encoded.Max(ids => ids.Length);
            long[,] input = new long[rows, length];
            bool[,] mask = new bool[rows, length];
            List<long> positions = [];
            List<long> words = [];
            int padding = vocabulary["[PAD]"];
            for (int row = 0; row < rows; row++)
            {
                for (int i = 0; i < length; i++)
                {
                    bool token = i < encoded[row].Length;
                    bool masked = token && i > 0 && i < encoded[row].Length - 1 && random.NextDouble() < maskedShare;
                    long id = token ? encoded[row][i] : padding;
                    mask[row, i] = token;
                    if (masked)
                    {
                        positions.Add(((long)row * length) + i);
                        words.Add(id);
                    }

                    // One masked word in five is not hidden but another word, or left as it is, as in BERT.
                    input[row, i] = !masked ? id : random.Next(10) switch
                    {
                        0 => random.Next(vocabulary.Pieces.Count),
                        1 => id,
                        _ => vocabulary["[MASK]"],
                    };
                }
            }

            return new Batch(tensor(input), tensor(mask), tensor(positions.ToArray()), tensor(words.ToArray()), tensor(sentences.Select(sentence => (long)sentence.Topic).ToArray()));
        }
    }
}
