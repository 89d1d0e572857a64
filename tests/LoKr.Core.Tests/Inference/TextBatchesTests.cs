using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.Core.Tests.Training;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Inference;

public sealed class TextBatchesTests
{
    private static readonly string[] s_tags = ["O", "X"];

    [Fact]
    public void A_text_that_cannot_be_answered_does_not_keep_its_batch_from_answers()
    {
        using LoKrModel model = new(new TinyTagger(s_tags) { Scores = static token => token == 'b' ? [0, double.NaN] : [0, 1] }, tokenizer: new TinyTokenizer());
        List<(string, string)> failed = [];
        TextBatches batches = new(model, size: 3, new(), (text, error) => failed.Add((text.Text, error.ErrorId)));
        TextAnswers[] answers = Run(batches, "aa", "b", "c", "d");
        Assert.Equal([(0, "aa"), (2, "c"), (3, "d")], answers.SelectMany(static part => part.Entities).Select(static entity => (entity.Index, entity.Text)));
        Assert.Equal([("b", ErrorIds.LogitsNotFinite)], failed);
    }

    [Fact]
    public void Texts_wait_until_their_batch_is_full()
    {
        using LoKrModel model = TinyClassifier.Create("odd", "even");
        TextBatches batches = new(model, size: 2, new(), static (_, error) => throw error);
        Assert.Null(batches.TakeRest());
        Assert.Null(batches.Add(new("1")));
        Assert.Equal(["1", "2"], batches.Add(new("2"))!().Classifications.Select(static result => result.Text));
        Assert.Null(batches.TakeRest());
        Assert.Null(batches.Add(new("3")));
        Assert.Equal(["3"], batches.TakeRest()!().Classifications.Select(static result => result.Text));
    }

    [Fact]
    public void What_is_wrong_with_the_model_is_one_error()
    {
        using LoKrModel model = TinyLanguageModel.Create();
        TextBatches batches = new(model, size: 2, new(), static (text, _) => Assert.Fail($"'{text.Text}' is not the reason."));
        ErrorAssert.Throws(ErrorIds.TaskUnknown, () => Run(batches, "1", "2"));
    }

    private static TextAnswers[] Run(TextBatches batches, params string[] texts)
    {
        List<TextAnswers> answers = [];
        foreach (string text in texts)
        {
            answers.AddRange(batches.Add(new TextInput(text)) is { } full ? [full()] : []);
        }

        answers.AddRange(batches.TakeRest() is { } rest ? [rest()] : []);
        return [.. answers];
    }
}
