using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Inference;

/// <summary>Tags of tokens become entities by the rules of transformers' pipeline.</summary>
public sealed class EntityTaggerTests
{
    private static readonly string[] s_tags = ["O", "B-X", "I-X", "B-Y", "I-Y", "Z"];

    // A digit is the index of the tag of its token; a letter is none.
    [Theory]
    [InlineData("a 1 2 a", "X 2-5")]
    [InlineData("1 1 2", "X 0-1; X 2-5")]
    [InlineData("2 a 2", "X 0-1; X 4-5")]
    [InlineData("1 4 4", "X 0-1; Y 2-5")]
    [InlineData("5 5 1", "Z 0-3; X 4-5")]
    [InlineData("a a", "")]
    public void Neighbors_of_one_type_are_one_entity_unless_one_begins(string text, string expected)
    {
        using LoKrModel model = Model();
        Assert.Equal(expected, Show(EntityTagger.Find(model, [TextInput.Of(text.Split(' '))])[0]));
    }

    // One word of three tokens: the first has the tag B-X, the second B-Y with more certainty, the third O.
    [Theory]
    [InlineData(EntityAggregation.First, "X 0-3")]
    [InlineData(EntityAggregation.Max, "Y 0-3")]
    [InlineData(EntityAggregation.Simple, "X 0-1; Y 1-2")]
    [InlineData(EntityAggregation.Average, "Y 0-3")]
    public void The_tokens_of_a_word_are_joined_as_asked_for(EntityAggregation aggregation, string expected)
    {
        using LoKrModel model = Model();
        Assert.Equal(expected, Show(EntityTagger.Find(model, [new("1#a")], aggregation)[0]));
    }

    [Fact]
    public void A_score_is_the_mean_over_the_words()
    {
        using LoKrModel model = Model();
        LoKrEntity entity = Assert.Single(EntityTagger.Find(model, [TextInput.Of(["1", "2"])])[0]);
        double certain = Math.Exp(2) / (Math.Exp(2) + s_tags.Length - 1);
        Assert.Equal(certain, entity.Score, 1e-9);
        Assert.Equal(("1 2", "1 2"), (entity.Text, entity.Source));
    }

    [Fact]
    public void A_text_that_is_cut_is_told_and_a_model_for_texts_is_refused()
    {
        using LoKrModel model = Model();
        List<(int Used, int All)> cut = [];
        Assert.Equal("X 0-1", Show(EntityTagger.Find(model, [TextInput.Of(["1", "a", "a", "1"])], maxLength: 3, onCut: (used, all) => cut.Add((used, all)))[0]));
        Assert.Equal([(3, 5)], cut);
        Assert.Empty(EntityTagger.Find(model, []));
        using LoKrModel texts = TinyClassifier.Create("a", "b");
        ErrorAssert.Throws(ErrorIds.TaskUnknown, () => EntityTagger.Find(texts, [new("a")]), "does not classify words");
    }

    [Fact]
    public void Scores_that_are_not_numbers_are_refused()
    {
        using LoKrModel model = new(new TinyTagger(s_tags) { Scores = static _ => [.. s_tags.Select(static _ => double.NaN)] }, tokenizer: new TinyTokenizer());
        ErrorAssert.Throws(ErrorIds.LogitsNotFinite, () => EntityTagger.Find(model, [new("a")]), "'a'");
    }

    private static LoKrModel Model() => new(new TinyTagger(s_tags) { Scores = Scores }, tokenizer: new TinyTokenizer());

    private static double[] Scores(char token) => [.. s_tags.Select((_, label) => token switch
    {
        '#' => label == 3 ? 4.0 : 0,
        >= '0' and <= '5' => label == token - '0' ? 2.0 : 0,
        _ => label == 0 ? 1.0 : 0,
    })];

    private static string Show(IEnumerable<LoKrEntity> entities) => string.Join("; ", entities.Select(static entity => $"{entity.Type} {entity.Start}-{entity.End}"));
}
