using System.Text.Json;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using LoKr.Core.Configuration;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Conversion;

/// <summary>LoRA that programs beside PEFT read: one rank, alpha equal to it, and their names.</summary>
public sealed class LoraNameTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void An_exact_folder_has_one_rank_with_alpha_equal_to_it_and_no_patterns()
    {
        using LoKrModel model = Model(2, 5);
        LoraWriteResult written = Convert(model, _folder["lora"], LoraRank.OfEnergy(1));
        Assert.True(written.Result.SmallestRank < written.Result.LargestRank);
        Assert.Equal(written.Result.LargestRank, written.Result.Rank);
        Assert.Equal(0, written.Result.LargestError, 1e-7);
        JsonElement config = Config(_folder["lora"]);
        Assert.Equal((written.Result.Rank, written.Result.Rank), (config.GetProperty("r").GetInt32(), config.GetProperty("lora_alpha").GetInt32()));
        Assert.Empty(config.GetProperty("rank_pattern").EnumerateObject());
        Assert.Empty(config.GetProperty("alpha_pattern").EnumerateObject());
        SameDeltas(model, Path.Combine(_folder["lora"], PeftAdapterFolder.WeightsFile), written.Result.Rank);
    }

    [Fact]
    public void Patterns_are_written_when_asked_for()
    {
        using LoKrModel model = Model(2, 5);
        Convert(model, _folder["lora"], LoraRank.OfEnergy(1) with { Patterned = true });
        Assert.Equal(2, Config(_folder["lora"]).GetProperty("rank_pattern").EnumerateObject().Count());
    }

    [Theory]
    [InlineData(5, 8)]
    [InlineData(1, 1)]
    public void VLLM_gets_a_rank_that_it_accepts(int rank, int expected)
    {
        using LoKrModel model = Model(1, rank);
        LoraWriteResult written = Convert(model, _folder["lora"], LoraRank.OfSize(rank), AdapterProgram.Vllm);
        Assert.Equal(expected, written.Result.Rank);
        SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(_folder["lora"], PeftAdapterFolder.WeightsFile));
        using (reader)
        {
            Assert.All(reader.Entries.Values.Where(static entry => entry.Name.EndsWith("lora_A.weight", StringComparison.Ordinal)), entry => Assert.Equal(expected, entry.Shape[0]));
        }
    }

    [Fact]
    public void The_error_of_every_layer_is_measured()
    {
        using LoKrModel model = Model(2, 5);
        LoraWriteResult written = Convert(model, _folder["lora"], LoraRank.OfSize(3));
        LoraLayer worst = written.Result.Layers.MaxBy(static layer => layer.Error)!;
        Assert.Equal(written.Result.LargestErrorModule, worst.Name);
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(_folder["lora"], PeftAdapterFolder.WeightsFile));
        Tensor delta = model.Adapters[0].Layers.Single(layer => layer.ModuleName == worst.Name).GetDeltaWeight().to(float64);
        Tensor rest = delta - reader.Read($"base_model.model.{worst.Name}.lora_B.weight").mm(reader.Read($"base_model.model.{worst.Name}.lora_A.weight"));
        Assert.Equal((rest.norm() / delta.norm()).ToDouble(), worst.Error, 1e-5);
    }

    [Fact]
    public void A_file_asked_for_by_name_is_one_file_with_kohyas_names()
    {
        string source = Fixtures.RequireBeside("cases", "sd15-unet-comfy-names", "unet");
        LoraWriteResult written = AdapterLoraConverter.Convert(source, _folder["out.safetensors"], LoraRank.OfEnergy(1), new(), new(), TestContext.Current.CancellationToken);
        Assert.True(File.Exists(_folder["out.safetensors"]));
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader reader = SafetensorsReader.Open(_folder["out.safetensors"]);
        using AdapterFile file = AdapterFile.Open(source);
        NameTranslator sd = new(NameTables.All.Single(static family => family.Name == "sd"));
        AdapterContent content = AdapterContentReader.Read(file, new(), null);
        Assert.Equal(3 * content.Modules.Count, reader.Entries.Count);
        foreach (AdapterModule module in content.Modules)
        {
            string name = "lora_unet_" + module.Name.Replace('.', '_');
            Assert.NotNull(sd.Read(AdapterProgram.ComfyUI, name));
            Tensor down = reader.Read(name + ".lora_down.weight");
            Assert.Equal(written.Result.Rank, down.shape[0]);
            Assert.Equal(written.Result.Rank, reader.ReadNumber(name + ".alpha"));
            KroneckerFactors factors = new(module.Factors.ToDictionary(StringComparer.Ordinal), module.Kernel);
            Tensor delta = kron(factors.W1().contiguous(), factors.W2().reshape(factors.W2().shape[0], -1).contiguous()) * module.Scale.Factor;
            Tensor up = reader.Read(name + ".lora_up.weight");
            TensorAssert.Close(delta, up.reshape(up.shape[0], -1).mm(down.reshape(down.shape[0], -1)), TensorAssert.Layer, name);
        }
    }

    [Fact]
    public void A_folder_for_a_pipeline_has_diffusers_names()
    {
        string source = Fixtures.RequireBeside("cases", "sd15-unet-comfy-names", "unet");
        AdapterLoraConverter.Convert(source, _folder["lora"], LoraRank.OfSize(2), new(), new(), TestContext.Current.CancellationToken);
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(_folder["lora"], AdapterFile.DiffusersFile));
        Assert.All(reader.Entries.Keys, static name =>
        {
            Assert.StartsWith("unet.", name, StringComparison.Ordinal);
            Assert.Contains(".lora_", name, StringComparison.Ordinal);
        });
    }

    private static LoKrModel Model(params int[] ranks)
    {
        random.manual_seed(3);
        LoKrModel model = new(TestNetworks.Network([.. ranks.Select(static (_, i) => ($"fc{i}", (nn.Module<Tensor, Tensor>)nn.Linear(24, 24)))]));
        model.AddAdapter(
            new() { R = 1, DecomposeFactor = 2, DecomposeBoth = true, TargetModules = ModuleSelector.FromNames([.. ranks.Select(static (_, i) => $"fc{i}")]), RankPattern = [.. ranks.Select(static (rank, i) => KeyValuePair.Create($"fc{i}", rank))], InitWeights = InitWeights.Random },
            seed: 1);
        return model;
    }

    private static LoraWriteResult Convert(LoKrModel model, string destination, LoraRank rank, AdapterProgram? program = null) =>
        AdapterLoraConverter.Convert(model, "default", destination, rank, new() { Program = program }, TestContext.Current.CancellationToken);

    private static void SameDeltas(LoKrModel model, string path, int rank)
    {
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader reader = SafetensorsReader.Open(path);
        foreach (var layer in model.Adapters[0].Layers)
        {
            Tensor a = reader.Read($"base_model.model.{layer.ModuleName}.lora_A.weight");
            Assert.Equal(rank, a.shape[0]);
            TensorAssert.Close(layer.GetDeltaWeight(), reader.Read($"base_model.model.{layer.ModuleName}.lora_B.weight").mm(a), TensorAssert.Layer, layer.ModuleName);
        }
    }

    private static JsonElement Config(string folder) => JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, PeftAdapterFolder.ConfigFile))).RootElement;
}
