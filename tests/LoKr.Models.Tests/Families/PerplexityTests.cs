using System.Text.Json.Nodes;
using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Families;

/// <summary>A real language model on real text, through the folder's own tokenizer.</summary>
public sealed class PerplexityTests
{
    [Fact]
    public void Perplexity_of_unseen_text_is_that_of_transformers()
    {
        JsonNode expected = JsonNode.Parse(File.ReadAllText(Fixtures.Require("debian-lm", "perplexity.json")))!["results"]!["base"]!;
        using LoKrModel model = ModelLoader.Load(Fixtures.RequireBeside("models", "debian-lm"));
        using CausalLanguageTask task = new(
            model, [.. DataReader.ReadFile(Fixtures.RequireBeside("data", "debian-lm", "gnu-r.eval.jsonl"))], cancellationToken: TestContext.Current.CancellationToken);
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, task, 16, TestContext.Current.CancellationToken);
        Assert.Equal((long)expected[1]!, evaluation.TokenCount);
        TensorAssert.Close((double)expected[0]!, evaluation.Perplexity!.Value, 1e-3, "perplexity");
    }
}
