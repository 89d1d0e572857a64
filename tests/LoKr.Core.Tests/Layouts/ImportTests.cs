using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Layers;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Files of other programs loaded onto models: names are found, the configuration is inferred, and the output is that of those programs.</summary>
public sealed class ImportTests
{
    public static TheoryData<string> LycorisCases => InspectionTests.LycorisCases;

    public static TheoryData<string> PeftCases => InspectionTests.PeftCases;

    [Theory]
    [MemberData(nameof(LycorisCases))]
    public void A_file_alone_is_enough_to_reproduce_LyCORIS(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        string folder = Fixtures.Require("lycoris", name);
        JsonElement json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "case.json"))).RootElement;
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        Dictionary<string, Tensor> io = reader.Entries.Keys.ToDictionary(static key => key, key => reader.Read(key));
        using LoKrModel model = new(TestNetworks.Network(("test", LycorisLayerTests.Layer(json.GetProperty("layer").GetString()!, io))));
        using AdapterFile file = AdapterFile.Open(Path.Combine(folder, "adapter.safetensors"));
        LoKrAdapter adapter = AdapterImporter.Import(model, file);
        LoKrLayer layer = Assert.Single(adapter.Layers);
        Assert.False(adapter.Config.ShapesFromFile);
        Assert.Equal(ScalingConvention.Lycoris, adapter.Config.Scaling);
        TensorAssert.Close(json.GetProperty("scale").GetDouble(), layer.Scaling, 1e-6, "scale");
        TensorAssert.Close(io["delta"], layer.GetDeltaWeight(), TensorAssert.Layer, "delta");
        TensorAssert.Close(io["adapter_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "adapter output");
    }

    [Theory]
    [MemberData(nameof(PeftCases))]
    public void PEFT_folders_reproduce_PEFT(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        using LoKrModel model = reference.BuildModel();
        using AdapterFile file = AdapterFile.Open(Fixtures.Require("peft-layers", name));
        AdapterImporter.Import(model, file);
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        TensorAssert.Close(io["adapter_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "adapter output");
    }
}
