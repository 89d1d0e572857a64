using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Conversion;

/// <summary>Adapter files as LoRA, and norms in adapter files.</summary>
public sealed class AdapterLoraConverterTests
{
    [Theory]
    [InlineData("wide-r4-both")]
    [InlineData("mlp-5-modules-to-save")]
    [InlineData("conv2d-big-r4")]
    [InlineData("conv2d-big-r4-effective")]
    [InlineData("conv1d-4")]
    public void A_file_becomes_what_its_adapter_becomes(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        using LoKrModel model = reference.BuildModel();
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        LoKrAdapter adapter = model.LoadAdapter(reference.Config, reference.AdapterTensors());
        AdapterExporter.Export(model, "default", folder["peft"], AdapterLayout.Peft);
        LoraConversionResult result = Convert(folder["peft"], folder["lora"], LoraRank.OfEnergy(1), model);
        Assert.Equal(adapter.Layers.Count, result.ModuleCount);
        Assert.Equal(1, result.Energy, 1e-9);
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder["lora"], PeftAdapterFolder.WeightsFile));
        Assert.Equal(result.ParameterCount, reader.Entries.Values.Sum(static entry => entry.Shape.Aggregate(1L, static (product, size) => product * size)));
        foreach (LoKrLayer layer in adapter.Layers)
        {
            Tensor a = reader.Read($"{PeftCase.FilePrefix}{layer.ModuleName}.lora_A.weight");
            Tensor b = reader.Read($"{PeftCase.FilePrefix}{layer.ModuleName}.lora_B.weight");
            Tensor delta = io["delta." + layer.ModuleName];
            TensorAssert.Close(delta, b.reshape(b.shape[0], -1).mm(a.reshape(a.shape[0], -1)).reshape(delta.shape), TensorAssert.Layer, layer.ModuleName);
        }

        Assert.All(adapter.SavedModules, module => Assert.True(TensorAssert.Same(adapter.GetTensors()[module + ".weight"], reader.Read($"{PeftCase.FilePrefix}{module}.weight"))));
        if (adapter.SavedModules.Count == 0)
        {
            // The same from the names and alphas of another program, whose dots the model knows.
            AdapterExporter.Export(model, "default", folder["kohya.safetensors"], AdapterLayout.Kohya);
            LoraConversionResult other = Convert(folder["kohya.safetensors"], folder["other"], LoraRank.OfEnergy(1), model);
            Assert.Equal((result.Rank, result.ModuleCount, result.ParameterCount), (other.Rank, other.ModuleCount, other.ParameterCount));
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Embeddings_of_either_class_have_the_layout_of_PEFT(bool own)
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        using LoKrModel model = new(TestNetworks.Network(("words", own ? new Core.Nn.Embedding(30, 12) : nn.Embedding(30, 12))));
        LoKrAdapter adapter = model.AddAdapter(new() { R = 2, TargetModules = ModuleSelector.FromNames(["words"]), InitWeights = InitWeights.Random }, seed: 1);
        AdapterExporter.Export(model, "default", folder["peft"], AdapterLayout.Peft);
        Convert(folder["peft"], folder["lora"], LoraRank.OfEnergy(1), model);
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder["lora"], PeftAdapterFolder.WeightsFile));
        Tensor a = reader.Read(PeftCase.FilePrefix + "words.lora_embedding_A");
        Tensor b = reader.Read(PeftCase.FilePrefix + "words.lora_embedding_B");
        TensorAssert.Close(adapter.Layers[0].GetDeltaWeight(), b.mm(a).t(), TensorAssert.Layer, "delta");
    }

    [Fact]
    public void Files_that_do_not_tell_enough_are_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrConfig config = new() { R = 1, TargetModules = ModuleSelector.FromNames(["q_proj"]), InitWeights = InitWeights.Random };
        model.AddAdapter(config, seed: 1);
        AdapterExporter.Export(model, "default", folder["kohya.safetensors"], AdapterLayout.Kohya);

        // Other programs do not write the dotted names into the header.
        using (SafetensorsReader reader = SafetensorsReader.Open(folder["kohya.safetensors"]))
        {
            SafetensorsWriter.Write(folder["foreign.safetensors"], reader.Entries.Keys.ToDictionary(static name => name, name => reader.Read(name), StringComparer.Ordinal));
        }

        Assert.Equal(ErrorIds.AdapterModulesUnknown, Id(() => Convert(folder["foreign.safetensors"], folder["lora"], LoraRank.OfSize(1), null)));
        Assert.False(Directory.Exists(folder["lora"]));
        model.AddAdapter(config with { WeightDecompose = true }, "dora", seed: 1);
        AdapterExporter.Export(model, "dora", folder["dora"], AdapterLayout.Peft);
        Assert.Equal(ErrorIds.LoraConversionNotSupported, Id(() => Convert(folder["dora"], folder["lora"], LoraRank.OfSize(1), model)));
    }

    [Theory]
    [InlineData(AdapterLayout.Peft)]
    [InlineData(AdapterLayout.Kohya)]
    [InlineData(AdapterLayout.Comfy)]
    public void Norms_go_through_files(AdapterLayout layout)
    {
        using DisposeScope scope = NewDisposeScope();
        using TempFolder folder = new();
        static LoKrModel Build()
        {
            random.manual_seed(5);
            return new(TestNetworks.Network(("linear", nn.Linear(12, 12)), ("norm", nn.LayerNorm(12)), ("other", nn.LayerNorm(12))));
        }

        using LoKrModel model = Build();
        LoKrAdapter adapter = model.AddAdapter(new() { R = 1, TrainNorm = true, TargetModules = ModuleSelector.FromNames(["linear"]), InitWeights = InitWeights.Random }, seed: 2);
        using (no_grad())
        {
            adapter.FlatParameters[0].Value.normal_();
        }

        string path = layout == AdapterLayout.Peft ? folder["adapter"] : folder["adapter.safetensors"];
        IReadOnlyList<string> warnings = AdapterExporter.Export(model, "default", path, layout);
        Assert.Equal(layout == AdapterLayout.Peft, warnings.Any(static warning => warning.Contains("norms", StringComparison.Ordinal)));
        Tensor x = randn(3, 12);
        using LoKrModel loaded = Build();
        using (AdapterFile file = AdapterFile.Open(path))
        {
            LoKrAdapter read = AdapterImporter.Import(loaded, file);
            Assert.True(read.Config.TrainNorm);
            Assert.Equal(2, read.Norms.Count);
        }

        TensorAssert.Close(PeftCase.Run(model, x), PeftCase.Run(loaded, x), 1e-6, layout.ToString());
        Assert.Equal(ErrorIds.LoraConversionNotSupported, Id(() => Convert(path, folder["lora"], LoraRank.OfSize(1), model)));
        Assert.Equal(ErrorIds.ConversionUnsupported, Id(() => AdapterExporter.Export(model, "default", folder["diffusers"], AdapterLayout.DiffusersModel)));
    }

    private static string Id(Action action) => Assert.Throws<LoKrException>(action).ErrorId;

    private static LoraConversionResult Convert(string path, string destination, LoraRank rank, LoKrModel? model) =>
        AdapterLoraConverter.Convert(path, destination, rank, new() { Model = model }, new(), TestContext.Current.CancellationToken).Result;
}
