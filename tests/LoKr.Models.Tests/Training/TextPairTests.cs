using System.Text.Json.Nodes;
using LoKr.Core.Data;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Training;

/// <summary>Pairs of texts in training, evaluation and classification, against the ids and segments of transformers.</summary>
public sealed class TextPairTests
{
    /// <summary>A model with segments and one without.</summary>
    public static TheoryData<string> Models => ["bert-pairs", "roberta-pairs"];

    [Theory]
    [MemberData(nameof(Models))]
    public void Rows_with_a_second_text_have_the_ids_and_segments_of_transformers(string name)
    {
        using LoKrModel model = ModelLoader.Load(Fixtures.Require("text", name), new() { Device = CPU });
        var classifier = (ISequenceClassifier)model.Pretrained!;
        JsonObject[] pairs = [.. JsonNode.Parse(File.ReadAllText(Fixtures.Require("text", name, "pairs.json")))!.AsArray().Select(static pair => pair!.AsObject())
            .Where(pair => pair["ids"] is JsonArray ids && ids.Count <= classifier.MaxSequenceLength && !string.IsNullOrWhiteSpace((string)pair["text"]!))];
        Assert.NotEmpty(pairs);
        foreach (IGrouping<int?, JsonObject> group in pairs.GroupBy(static pair => (int?)pair["max_length"]))
        {
            DataRow[] rows = [.. group.Select(static (pair, i) => new DataRow(
                new Dictionary<string, object?> { ["text"] = (string)pair["text"]!, ["text_pair"] = (string)pair["text_pair"]!, ["label"] = 0L }, $"row {i}"))];
            using TextClassificationTask task = new(model, rows, group.Key, cancellationToken: TestContext.Current.CancellationToken);
            foreach ((JsonObject pair, TrainingBatch batch) in group.Zip(task.Batches(new BatchOrder(1, Shuffle: false, Bucket: false))))
            {
                var one = (ClassificationBatch)batch;
                Assert.Equal(pair["ids"]!.AsArray().Select(static id => (long)id!), one.Tokens.Ids.ToArray());
                if (pair["token_type_ids"] is JsonArray types && classifier.TokenTypeCount > 1)
                {
                    Assert.Equal(types.Select(static type => (long)type!), one.Types?.Ids.ToArray() ?? new long[types.Count]);
                }
                else
                {
                    Assert.Null(one.Types);
                }
            }
        }

        Assert.Equal(name == "bert-pairs", classifier.TokenTypeCount > 1);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Answers_and_losses_are_those_of_the_model_with_segments(string name)
    {
        using LoKrModel model = ModelLoader.Load(Fixtures.Require("text", name), new() { Device = CPU });
        var classifier = (ISequenceClassifier)model.Pretrained!;
        TextInput[] inputs = [new("The disk is full.", "Who can clean it?"), new("A single text, which is a little longer."), new("Nothing", "")];
        IReadOnlyList<LoKrClassification> answers = TextClassifier.Classify(model, inputs);
        Assert.Equal(inputs, answers.Select(static answer => new TextInput(answer.Text, answer.TextPair)));

        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        model.Module.eval();
        foreach ((TextInput input, LoKrClassification answer) in inputs.Zip(answers))
        {
            IReadOnlyList<TextToken> tokens = model.Tokenizer!.Tokenize(input.Text, input.Pair);
            Tensor ids = tensor(tokens.Select(static token => (long)token.Id).ToArray()).unsqueeze(0);
            Tensor? types = classifier.TokenTypeCount > 1 ? tensor(tokens.Select(static token => (long)token.TypeId).ToArray()).unsqueeze(0) : null;
            double[] scores = classifier.Classify(ids, ones_like(ids), types).to(ScalarType.Float64).softmax(-1).data<double>().ToArray();
            Assert.All(scores.Zip(answer.Scores.Values), static pair => Assert.Equal(pair.First, pair.Second, 1e-5));
            DataRow row = new(new Dictionary<string, object?> { ["text"] = input.Text, ["text_pair"] = input.Pair, ["label"] = 1L }, "row");
            using ITrainingTask task = TrainingTaskFactory.Create(model, [row], cancellationToken: TestContext.Current.CancellationToken);
            Assert.Equal(-Math.Log(scores[1]), Evaluator.Evaluate(model, task, 1, TestContext.Current.CancellationToken).Loss, 1e-4);
        }
    }
}
