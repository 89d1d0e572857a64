using System.Text.Json.Nodes;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Support;

/// <summary>The adapters that PEFT made for a reference model, against its outputs.</summary>
public static class AdapterCases
{
    /// <summary>Names of a model's adapters; an empty one where the reference is absent, so that a skip is reported.</summary>
    public static TheoryData<string> Of(string model) => Fixtures.Cases(Path.Combine("transformers", model, "adapters"));

    /// <summary>Loads an adapter and compares output, layers and counts.</summary>
    public static void Check(string modelName, string adapterName)
    {
        string folder = Fixtures.Require("transformers", modelName);
        string adapterFolder = Fixtures.Require("transformers", modelName, "adapters", adapterName);
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
        TensorAssert.Close(adapterIo.Read("adapter_output"), ReferenceInput.Run(model, io), TensorAssert.Model, $"{modelName} {adapterName}");
        Assert.Equal(expected["layers"]!.AsArray().Select(layer => (string)layer!["name"]!), adapter.Layers.Select(layer => layer.ModuleName));
        ParameterCount count = model.CountParameters();
        Assert.Equal((long)expected["trainable"]!, count.Trainable);
        Assert.Equal((long)expected["total"]!, count.Total);
        Assert.All(adapter.Layers, layer => Assert.Equal(1, layer.CallCount));
    }
}
