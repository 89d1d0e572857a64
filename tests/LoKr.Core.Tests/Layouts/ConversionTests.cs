using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Layers;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Conversions between layouts preserve every bit and the effect of an adapter on a model.</summary>
public sealed class ConversionTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public static TheoryData<string> PeftCases => InspectionTests.PeftCases;

    public static TheoryData<string> LycorisCases => InspectionTests.LycorisCases;

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(PeftCases))]
    public void PEFT_to_kohya_to_Comfy_to_PEFT_ends_with_the_same_bytes(string name)
    {
        string source = Fixtures.Require("peft-layers", name);
        if (Obstacle(source) is string obstacle)
        {
            LoKrException exception = Assert.Throws<LoKrException>(() => Convert(source, "a.safetensors", AdapterLayout.Kohya));
            Assert.Equal(ErrorIds.ConversionUnsupported, exception.ErrorId);
            Assert.Contains(obstacle, exception.Message, StringComparison.Ordinal);
            Assert.Empty(Directory.GetFileSystemEntries(_folder.Path));
            return;
        }

        Assert.Equal(AdapterLayout.Kohya, Convert(source, "a.safetensors", AdapterLayout.Kohya).Layout);
        Assert.Equal(AdapterLayout.Comfy, Convert(_folder["a.safetensors"], "b.safetensors", AdapterLayout.Comfy).Layout);
        Assert.Equal(AdapterLayout.Peft, Convert(_folder["b.safetensors"], "c", AdapterLayout.Peft).Layout);
        SameTensors(Path.Combine(source, PeftAdapterFolder.WeightsFile), _folder[$"c/{PeftAdapterFolder.WeightsFile}"]);
        Assert.Equal(File.ReadAllBytes(Path.Combine(source, PeftAdapterFolder.WeightsFile)), File.ReadAllBytes(_folder[$"c/{PeftAdapterFolder.WeightsFile}"]));
        Assert.Equal(LoKrConfigJson.Write(LoKrConfigJson.Read(Path.Combine(source, PeftAdapterFolder.ConfigFile), out _)), File.ReadAllText(_folder[$"c/{PeftAdapterFolder.ConfigFile}"]));
    }

    [Fact]
    public void Adapters_of_whole_models_are_valid_and_survive_OneTrainer_and_HCP()
    {
        string[] folders = [.. ((string[])["transformers", "diffusers"]).SelectMany(static part => Directory.EnumerateDirectories(Fixtures.Require(part)))
            .Select(static model => Path.Combine(model, "adapters")).Where(Directory.Exists).SelectMany(Directory.EnumerateDirectories).Order(StringComparer.Ordinal)];
        Assert.NotEmpty(folders);
        foreach (string folder in folders)
        {
            LoKrAdapterCheck check = AdapterValidator.Check(folder, new() { Values = true });
            Assert.True(check.IsValid, string.Join(' ', check.Findings));
            if (Obstacle(folder) is not null)
            {
                continue;
            }

            string[] files = [.. Enumerable.Range(0, 3).Select(i => $"{Path.GetFileName(Path.GetDirectoryName(Path.GetDirectoryName(folder)))}-{Path.GetFileName(folder)}-{i}")];
            Convert(folder, $"{files[0]}.safetensors", AdapterLayout.OneTrainer);
            Convert(_folder[$"{files[0]}.safetensors"], $"{files[1]}.safetensors", AdapterLayout.Hcp);
            Convert(_folder[$"{files[1]}.safetensors"], files[2], AdapterLayout.Peft);
            Assert.Equal(File.ReadAllBytes(Path.Combine(folder, PeftAdapterFolder.WeightsFile)), File.ReadAllBytes(_folder[$"{files[2]}/{PeftAdapterFolder.WeightsFile}"]));
        }
    }

    [Theory]
    [MemberData(nameof(PeftCases))]
    public void Without_metadata_names_come_from_the_model_and_the_configuration_from_shapes(string name)
    {
        string source = Fixtures.Require("peft-layers", name);
        Assert.SkipWhen(Obstacle(source) is not null, "Only PEFT's layout can express the adapter.");
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        using LoKrModel model = reference.BuildModel();
        Convert(source, "a.safetensors", AdapterLayout.Lycoris);
        Strip(_folder["a.safetensors"], _folder["b.safetensors"]);
        LoKrException exception = Record.Exception(() => Convert(_folder["b.safetensors"], "c", AdapterLayout.Peft)) as LoKrException ?? new("", default, "");
        Assert.Equal(ErrorIds.AdapterModulesUnknown, exception.ErrorId);
        IReadOnlyList<string> warnings = [];
        AdapterConverter.Convert(_folder["b.safetensors"], _folder["c"], AdapterLayout.Peft, new() { Model = model }, out warnings);
        Assert.Empty(warnings);
        using AdapterFile file = AdapterFile.Open(_folder["c"]);
        AdapterImporter.Import(model, file);
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        TensorAssert.Close(io["adapter_output"], PeftCase.Run(model, io["input"]), TensorAssert.Layer, "adapter output");
    }

    [Theory]
    [MemberData(nameof(LycorisCases))]
    public void A_LyCORIS_file_survives_every_layout_with_alpha_tensors(string name)
    {
        string source = Fixtures.Require("lycoris", name, "adapter.safetensors");
        foreach (AdapterLayout layout in Enum.GetValues<AdapterLayout>().Where(AdapterLayouts.HasAlphaTensors))
        {
            // The name of the module is one word, but nothing says so without a base model.
            string file = $"{layout}.safetensors";
            if (!AdapterLayouts.IsUnderscored(layout))
            {
                Assert.Equal(ErrorIds.AdapterModulesUnknown, Assert.Throws<LoKrException>(() => Convert(source, file, layout)).ErrorId);
            }

            using LoKrModel model = new(TestNetworks.Network(("test", Layer(source))));
            AdapterConverter.Convert(source, _folder[file], layout, new() { Model = model }, out _);
            AdapterConverter.Convert(_folder[file], _folder[$"{layout}-back.safetensors"], AdapterLayout.Kohya, new() { Read = new() { Component = AdapterComponent.Unet } }, out _);
            SameTensors(source, _folder[$"{layout}-back.safetensors"]);
        }
    }

    [Theory]
    [MemberData(nameof(PeftCases))]
    public void An_adapter_exported_in_any_layout_has_the_same_effect_after_import(string name)
    {
        string source = Fixtures.Require("peft-layers", name);
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        using LoKrModel model = reference.BuildModel();
        using (AdapterFile file = AdapterFile.Open(source))
        {
            AdapterImporter.Import(model, file);
        }

        string? obstacle = Obstacle(source);
        foreach (AdapterLayout layout in Enum.GetValues<AdapterLayout>())
        {
            string path = _folder[$"{layout}.safetensors"];
            bool saves = Saved(source).Length > 0;
            if (layout is AdapterLayout.Peft or AdapterLayout.PeftInMemory || (obstacle is null || (!saves && !AdapterLayouts.HasAlphaTensors(layout))))
            {
                AdapterExporter.Export(model, "default", path, layout);
                using AdapterFile file = AdapterFile.Open(path);
                Assert.Equal(layout, file.Layout);
                using LoKrModel fresh = reference.BuildModel();
                AdapterImporter.Import(fresh, file);
                TensorAssert.Close(io["adapter_output"], PeftCase.Run(fresh, io["input"]), TensorAssert.Layer, $"adapter output by way of {layout}");
            }
            else
            {
                Assert.Equal(ErrorIds.ConversionUnsupported, Assert.Throws<LoKrException>(() => AdapterExporter.Export(model, "default", path, layout)).ErrorId);
                Assert.False(File.Exists(path));
            }
        }
    }

    [Fact]
    public void Norms_and_magnitudes_survive_every_layout_that_supports_them()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        random.manual_seed(1);
        using LoKrModel model = Norm();
        LoKrAdapter adapter = model.AddAdapter(new() { R = 1, TargetModules = ModuleSelector.FromNames(["fc"]), TrainNorm = true, WeightDecompose = true, InitWeights = InitWeights.Random }, seed: 2);
        foreach (Tensor tensor in adapter.GetTensors().Values)
        {
            tensor.add_(randn_like(tensor) * 0.1);
        }

        Tensor x = randn(3, 8);
        Tensor expected = PeftCase.Run(model, x);
        foreach (AdapterLayout layout in Enum.GetValues<AdapterLayout>())
        {
            string path = _folder[$"{layout}.safetensors"];
            if (layout is AdapterLayout.Diffusers or AdapterLayout.DiffusersModel)
            {
                Assert.Equal(ErrorIds.ConversionUnsupported, Assert.Throws<LoKrException>(() => AdapterExporter.Export(model, "default", path, layout)).ErrorId);
                continue;
            }

            AdapterExporter.Export(model, "default", path, layout);
            Assert.True(AdapterValidator.Check(path, new() { Model = model, Values = true }).IsValid);
            using LoKrModel fresh = Norm();
            fresh.Module.load_state_dict(model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value));
            using AdapterFile file = AdapterFile.Open(path);
            AdapterImporter.Import(fresh, file);
            TensorAssert.Close(expected, PeftCase.Run(fresh, x), TensorAssert.Layer, $"output by way of {layout}");
        }
    }

    private static LoKrModel Norm() => new(TestNetworks.Network(("fc", nn.Linear(8, 16)), ("norm", nn.LayerNorm(16))));

    private LoKrAdapterInfo Convert(string source, string destination, AdapterLayout layout) =>
        AdapterConverter.Convert(source, _folder[destination], layout, new(), out _);

    /// <summary>A part of the error message if only PEFT's layout can express the adapter, or null.</summary>
    private static string? Obstacle(string folder)
    {
        if (Saved(folder).Length > 0)
        {
            return "saved whole";
        }

        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder, PeftAdapterFolder.WeightsFile));
        return reader.Entries.Values.Any(static entry => entry.Name.EndsWith("lokr_w2", StringComparison.Ordinal) && entry.Shape.Count == 3 && entry.Shape[2] > 1) ? "one-dimensional" : null;
    }

    private static string[] Saved(string folder)
    {
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder, PeftAdapterFolder.WeightsFile));
        return [.. reader.Entries.Keys.Where(static key => !key.Contains(".lokr_", StringComparison.Ordinal))];
    }

    private static void Strip(string source, string destination)
    {
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader reader = SafetensorsReader.Open(source);
        SafetensorsWriter.Write(destination, reader.Entries.Keys.ToDictionary(static key => key, key => reader.Read(key)));
    }

    private static void SameTensors(string expected, string actual)
    {
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader first = SafetensorsReader.Open(expected);
        using SafetensorsReader second = SafetensorsReader.Open(actual);
        Assert.Equal(first.Entries.Keys.Order(StringComparer.Ordinal), second.Entries.Keys.Order(StringComparer.Ordinal));
        Assert.All(first.Entries.Keys, key => Assert.True(TensorAssert.Same(first.Read(key), second.Read(key)), key));
    }

    private static nn.Module<Tensor, Tensor> Layer(string adapter)
    {
        string folder = Path.GetDirectoryName(adapter)!;
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        string layer = System.Text.Json.JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "case.json"))).RootElement.GetProperty("layer").GetString()!;
        return LycorisLayerTests.Layer(layer, reader.Entries.Keys.ToDictionary(static key => key, key => reader.Read(key)));
    }
}
