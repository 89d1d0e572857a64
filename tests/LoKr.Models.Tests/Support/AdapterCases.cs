using System.Text.Json.Nodes;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Support;

/// <summary>The adapters that PEFT made for a reference model, against its outputs and losses.</summary>
public static class AdapterCases
{
    private static readonly TrainingOptions s_tenSteps = new()
    {
        MaxSteps = 10,
        LearningRate = 5e-3,
        Schedule = LearningRateSchedule.Constant,
        MaxGradientNorm = 1,
    };

    /// <summary>Names of a model's adapters; an empty one where the reference is absent, so that a skip is reported.</summary>
    public static TheoryData<string> Of(string model) => Fixtures.Cases(Path.Combine("transformers", model, "adapters"));

    /// <summary>Models and adapters of a folder of reference models; an empty adapter where the reference is absent.</summary>
    /// <param name="set">The folder, such as <c>transformers</c>.</param>
    /// <param name="models">Names of models.</param>
    public static TheoryData<string, string> Of(string set, IEnumerable<string> models)
    {
        TheoryData<string, string> rows = [];
        foreach (string model in models)
        {
            string? folder = Fixtures.Root is null ? null : Path.Combine(Fixtures.Root, set, model, "adapters");
            foreach (string adapter in folder is null || !Directory.Exists(folder) ? (IEnumerable<string>)[""] : Directory.EnumerateDirectories(folder).Order(StringComparer.Ordinal))
            {
                rows.Add(model, Path.GetFileName(adapter));
            }
        }

        return rows;
    }

    /// <summary>Loads an adapter and compares output, layers, saved modules and counts.</summary>
    /// <param name="modelName">The model.</param>
    /// <param name="adapterName">The adapter.</param>
    /// <param name="set">The folder of reference models.</param>
    /// <param name="callsOnce">Whether every layer runs once in a pass.</param>
    public static void Check(string modelName, string adapterName, string set = "transformers", bool callsOnce = true)
    {
        string folder = Fixtures.Require(set, modelName);
        string adapterFolder = Fixtures.Require(set, modelName, "adapters", adapterName);
        JsonNode expected = JsonNode.Parse(File.ReadAllText(Path.Combine(adapterFolder, "case.json")))!;
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, new ModelLoadOptions { WithTokenizer = false });
        using PeftAdapterFolder peft = PeftAdapterFolder.Read(adapterFolder);
        LoKrAdapter adapter = model.LoadAdapter(
            peft.Config with { InferenceMode = false },
            peft.Tensors.Entries.Keys.ToDictionary(key => key, key => peft.Tensors.Read(key), StringComparer.Ordinal));

        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using SafetensorsReader adapterIo = SafetensorsReader.Open(Path.Combine(adapterFolder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        TensorAssert.Close(ReferenceInput.Expected(model, adapterIo.Read("adapter_output"), io), ReferenceInput.Run(model, io), TensorAssert.Model, $"{modelName} {adapterName}");
        Assert.Equal(expected["layers"]!.AsArray().Select(layer => (string)layer!["name"]!), adapter.Layers.Select(layer => layer.ModuleName));
        ParameterCount count = model.CountParameters();
        Assert.Equal((long)expected["trainable"]!, count.Trainable);
        Assert.Equal((long)expected["total"]!, count.Total);
        Assert.All(adapter.Layers, layer => Assert.True(callsOnce ? layer.CallCount == 1 : layer.CallCount > 0, $"{layer.ModuleName} ran {layer.CallCount} times."));
        foreach (string saved in expected["saved_modules"]?.AsArray().Select(name => (string)name!) ?? [])
        {
            Assert.Contains(adapter.SavedModules, outer => saved == outer || saved.StartsWith(outer + ".", StringComparison.Ordinal));
        }
    }

    /// <summary>Ten steps of PEFT and torch.optim.AdamW on one batch, with this trainer: losses and the output after them.</summary>
    /// <param name="modelName">The model.</param>
    /// <param name="adapterName">The adapter.</param>
    /// <param name="set">The folder of reference models.</param>
    public static void CheckTraining(string modelName, string adapterName, string set = "transformers")
    {
        string folder = Fixtures.Require(set, modelName);
        string adapter = Fixtures.Require(set, modelName, "adapters", adapterName);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, new ModelLoadOptions { WithTokenizer = false });
        PeftStart.Load(model, adapter);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using SafetensorsReader expected = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
        TensorAssert.Close(ReferenceInput.Expected(model, expected.Read("adapter_output"), io), Output(model, io), TensorAssert.Model, "output before");

        // The reference runs in evaluation mode (no dropout), so the loss switches the model to it.
        using CustomLossTask task = new([io], static (trained, source) =>
        {
            trained.Module.eval();
            return ReferenceInput.Loss(trained, (SafetensorsReader)source);
        });
        LoKrTrainingResult result = Trainer.Run(model, task, null, s_tenSteps, null, TestContext.Current.CancellationToken);
        double[] losses = [.. JsonNode.Parse(File.ReadAllText(Path.Combine(adapter, "case.json")))!["losses"]!.AsArray().Select(loss => (double)loss!)];
        Assert.Equal(losses.Length, result.History.Count);
        for (int i = 0; i < losses.Length; i++)
        {
            TensorAssert.Close(losses[i], result.History[i].Loss, TensorAssert.Model, $"loss {i + 1}");
        }

        TensorAssert.Close(ReferenceInput.Expected(model, expected.Read("after_output"), io), Output(model, io), TensorAssert.Model, "output after");
    }

    private static Tensor Output(LoKrModel model, SafetensorsReader io)
    {
        using IDisposable noGrad = no_grad();
        model.Module.eval();
        return ReferenceInput.Run(model, io);
    }
}
