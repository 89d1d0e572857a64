using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

public sealed class LabelTests
{
    [Fact]
    public void Labels_come_from_id2label_in_the_order_of_their_ids()
    {
        JsonObject config = TinyModel.BertConfig();
        config["id2label"] = JsonNode.Parse("""{"10": "k", "0": "a", "1": "b", "2": "c", "3": "d", "4": "e", "5": "f", "6": "g", "7": "h", "8": "i", "9": "j"}""");
        Assert.Equal(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"], LabelsOf(config));
    }

    [Fact]
    public void Labels_come_from_label2id_where_there_is_no_id2label()
    {
        JsonObject config = TinyModel.BertConfig();
        config["label2id"] = JsonNode.Parse("""{"later": 1, "first": 0}""");
        Assert.Equal(["first", "later"], LabelsOf(config));
    }

    [Fact]
    public void Labels_are_numbered_where_the_configuration_names_none()
    {
        JsonObject config = TinyModel.BertConfig();
        Assert.Equal(["LABEL_0", "LABEL_1"], LabelsOf(config));
        config["num_labels"] = 3;
        Assert.Equal(["LABEL_0", "LABEL_1", "LABEL_2"], LabelsOf(config));
    }

    [Theory]
    [InlineData("""{"0": "a", "2": "b"}""")]
    [InlineData("""{"zero": "a"}""")]
    public void Label_ids_with_gaps_are_an_error(string names)
    {
        JsonObject config = TinyModel.BertConfig();
        config["id2label"] = JsonNode.Parse(names);
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => LabelsOf(config), "id2label");
    }

    [Fact]
    public void Given_labels_replace_numbered_ones_of_a_head_with_as_many_rows()
    {
        using LoKrModel model = Load(TinyModel.BertConfig(), ["mail", "web"]);
        ISequenceClassifier classifier = (ISequenceClassifier)model.Module;
        Assert.Equal(["mail", "web"], classifier.Labels);
        Assert.Equal("web", (string?)classifier.Config["id2label"]!["1"]);
        Assert.Equal(1, (int?)classifier.Config["label2id"]!["web"]);
    }

    [Fact]
    public void Labels_of_the_head_may_be_given_again()
    {
        using LoKrModel model = Load(TinyModel.BertConfig("mail", "web"), ["mail", "web"]);
        Assert.Equal(["mail", "web"], ((ISequenceClassifier)model.Module).Labels);
    }

    [Theory]
    [InlineData("web", "mail")]
    [InlineData("mail", "games")]
    [InlineData("mail", "web", "games")]
    public void Other_labels_than_those_of_the_head_are_an_error_that_names_both(params string[] given) =>
        ErrorAssert.Throws(ErrorIds.LabelsMismatch, () => Load(TinyModel.BertConfig("mail", "web"), given).Dispose(),
            "mail, web", string.Join(", ", given));

    [Theory]
    [InlineData("a", "a")]
    [InlineData("a", " ")]
    [InlineData]
    public void Labels_that_are_empty_or_repeated_are_an_error(params string[] given) =>
        ErrorAssert.Throws(ErrorIds.LabelsInvalid, () => Load(TinyModel.BertConfig(), given).Dispose());

    [Fact]
    public void Configuration_with_another_number_of_labels_than_the_head_is_an_error()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, TinyModel.BertConfig("a", "b"), tensors =>
        {
            tensors["classifier.weight"] = zeros(3, 8);
            tensors["classifier.bias"] = zeros(3);
        });
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => ModelLoader.Load(folder.Path, new ModelLoadOptions { WithTokenizer = false }).Dispose(), "id2label", "3 rows");
    }

    private static IReadOnlyList<string> LabelsOf(JsonObject config)
    {
        using nn.Module module = ModelLoader.Build(new ModelConfig(config));
        return ((ISequenceClassifier)module).Labels;
    }

    private static LoKrModel Load(JsonObject config, string[] labels)
    {
        using TempFolder folder = new();
        TinyModel.Write(folder.Path, config);
        return ModelLoader.Load(folder.Path, new ModelLoadOptions { Labels = labels, WithTokenizer = false });
    }
}
