using System.Text.Json;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Training;

/// <summary>
/// Ten steps of PEFT and torch.optim.AdamW on one batch of transformers' models, with this trainer: losses and the output after them.
/// The reference runs in evaluation mode (no dropout), so the loss switches the model to it.
/// </summary>
public sealed class AdapterTrainingTests
{
    private static readonly string[] s_models = ["bert", "roberta", "distilbert", "llama", "llama-tied", "mistral", "qwen2", "qwen3", "vit"];

    private static readonly TrainingOptions s_options = new()
    {
        MaxSteps = 10,
        LearningRate = 5e-3,
        Schedule = LearningRateSchedule.Constant,
        MaxGradientNorm = 1,
    };

    public static TheoryData<string, string> Cases
    {
        get
        {
            TheoryData<string, string> cases = [];
            foreach (string model in s_models)
            {
                string? folder = Fixtures.Root is null ? null : Path.Combine(Fixtures.Root, "transformers", model, "adapters");
                IEnumerable<string> adapters = folder is null || !Directory.Exists(folder) ? [""] : Directory.EnumerateDirectories(folder).Order(StringComparer.Ordinal);
                foreach (string adapter in adapters)
                {
                    cases.Add(model, Path.GetFileName(adapter));
                }
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Losses_and_output_are_those_of_PEFT(string modelName, string adapterName)
    {
        string folder = Fixtures.Require("transformers", modelName);
        string adapter = Fixtures.Require("transformers", modelName, "adapters", adapterName);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, new ModelLoadOptions { WithTokenizer = false });
        PeftStart.Load(model, adapter);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using SafetensorsReader expected = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
        Batch batch = io.Entries.ContainsKey("in.pixel_values")
            ? new(io.Read("in.pixel_values"), null, io.Read("labels"))
            : new(io.Read("in.input_ids"), io.Read("in.attention_mask"), io.Read("labels"));

        TensorAssert.Close(expected.Read("adapter_output"), Output(model, batch), TensorAssert.Model, "output before");
        using CustomLossTask task = new([batch], Loss);
        LoKrTrainingResult result = Trainer.Run(model, task, null, s_options, null, TestContext.Current.CancellationToken);
        double[] losses = JsonDocument.Parse(File.ReadAllText(Path.Combine(adapter, "case.json")))
            .RootElement.GetProperty("losses").EnumerateArray().Select(loss => loss.GetDouble()).ToArray();
        Assert.Equal(losses.Length, result.History.Count);
        for (int i = 0; i < losses.Length; i++)
        {
            TensorAssert.Close(losses[i], result.History[i].Loss, TensorAssert.Model, $"loss {i + 1}");
        }

        TensorAssert.Close(expected.Read("after_output"), Output(model, batch), TensorAssert.Model, "output after");
    }

    private static Tensor Loss(LoKrModel model, object item)
    {
        Batch batch = (Batch)item;
        model.Module.eval();
        if (model.Pretrained is ISequenceClassifier or VitForImageClassification)
        {
            return nn.functional.cross_entropy(Logits(model, batch), batch.Labels);
        }

        // Only the positions that carry loss are projected; no mask, because padding is on the right.
        var language = (ICausalLanguageModel)model.Module;
        Tensor labels = nn.functional.pad(batch.Labels, [0, 1], PaddingModes.Constant, -100).narrow(1, 1, batch.Labels.shape[1]).flatten();
        Tensor positions = labels.ne(-100).nonzero().flatten();
        Tensor hidden = language.HiddenStates(batch.Input).flatten(0, 1).index_select(0, positions);
        return nn.functional.cross_entropy(language.Project(hidden), labels.index_select(0, positions));
    }

    private static Tensor Output(LoKrModel model, Batch batch)
    {
        using IDisposable noGrad = no_grad();
        model.Module.eval();
        return Logits(model, batch);
    }

    private static Tensor Logits(LoKrModel model, Batch batch) => model.Pretrained switch
    {
        VitForImageClassification images => images.call(batch.Input),
        ISequenceClassifier texts => texts.Classify(batch.Input, batch.Mask!),
        _ => ((ICausalLanguageModel)model.Module).Logits(batch.Input, batch.Mask),
    };

    private sealed record Batch(Tensor Input, Tensor? Mask, Tensor Labels);
}
