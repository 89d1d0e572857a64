using LoKr.Models.Tests.Support;
using Xunit;

namespace LoKr.Models.Tests.Training;

/// <summary>Ten steps of PEFT and torch.optim.AdamW on one batch of transformers' models, with this trainer: losses and the output after them.</summary>
public sealed class AdapterTrainingTests
{
    public static TheoryData<string, string> Cases =>
        AdapterCases.Of("transformers", ["bert", "roberta", "distilbert", "llama", "llama-tied", "mistral", "qwen2", "qwen3", "vit"]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Losses_and_output_are_those_of_PEFT(string modelName, string adapterName) => AdapterCases.CheckTraining(modelName, adapterName);
}
