using System.Diagnostics;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

/// <summary>Full-size models built from their published configurations, without weights.</summary>
public sealed class ShapesTests
{
    /// <summary>Files below both folders of shapes; an empty name where the reference is absent, so that a skip is reported.</summary>
    public static TheoryData<string> Models()
    {
        TheoryData<string> names = [];
        foreach (string set in (string[])["shapes", "shapes-text"])
        {
            string? folder = Fixtures.Root is null ? null : Path.Combine(Fixtures.Root, set);
            foreach (string file in folder is null || !Directory.Exists(folder) ? (IEnumerable<string>)[] : Directory.EnumerateFiles(folder, "*.json").Order(StringComparer.Ordinal))
            {
                names.Add($"{set}/{Path.GetFileNameWithoutExtension(file)}");
            }
        }

        return names.Count > 0 ? names : [""];
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Parameters_have_the_published_names_shapes_and_total(string name)
    {
        JsonObject shapes = Read(name);
        using nn.Module module = ModelLoader.Build(new ModelConfig(shapes["config"]!.AsObject(), name));
        Dictionary<string, string> expected = shapes["parameters"]!.AsObject().ToDictionary(item => Canonical(module, item.Key), item => item.Value!.ToJsonString());
        Dictionary<string, string> actual = module.named_parameters().ToDictionary(item => item.name, item => $"[{string.Join(",", item.parameter.shape)}]");
        Assert.Equal(expected.OrderBy(item => item.Key, StringComparer.Ordinal), actual.OrderBy(item => item.Key, StringComparer.Ordinal));
        Assert.Equal(shapes["total"]!.GetValue<long>(), module.parameters().Sum(parameter => parameter.numel()));
        Assert.All(module.parameters(), parameter => Assert.Equal(DeviceType.META, parameter.device_type));
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Adapters_have_the_tensors_that_PEFT_creates(string name)
    {
        JsonObject shapes = Read(name);
        foreach ((string adapterName, JsonNode? expected) in shapes["adapters"]!.AsObject())
        {
            using LoKrModel model = new(ModelLoader.Build(new ModelConfig(shapes["config"]!.AsObject(), name)));
            JsonObject fields = expected!["config"]!.DeepClone().AsObject();
            fields["peft_type"] = "LOKR";
            fields["peft_version"] = LoKrConfigJson.PeftVersion;
            LoKrAdapter adapter = model.AddAdapter(LoKrConfigJson.Parse(fields.ToJsonString(), adapterName, out _), seed: 0);

            // The figures are of the low-rank layers alone; a head that the task trains beside them is not in the list.
            Dictionary<string, string> tensors = adapter.GetTensors().Where(item => item.Key.Contains(".lokr_", StringComparison.Ordinal))
                .ToDictionary(item => item.Key, item => $"[{string.Join(",", item.Value.shape)}]");
            Assert.Equal(
                expected["tensors"]!.AsObject().Select(item => $"{Canonical(model.Module, item.Key)} {item.Value!.ToJsonString()}").Order(StringComparer.Ordinal),
                tensors.Select(item => $"{item.Key} {item.Value}").Order(StringComparer.Ordinal));
            Assert.Equal(expected["trainable"]!.GetValue<long>(), adapter.Layers.Sum(layer => layer.Factors.ParameterCount));
        }
    }

    [Theory]
    [InlineData("shapes/llama-3.1-8b")]
    [InlineData("shapes/mistral-7b-v0.1")]
    [InlineData("shapes/qwen2.5-7b")]
    public void A_model_of_seven_billion_parameters_is_adapted_in_seconds_and_takes_no_memory(string name)
    {
        JsonObject shapes = Read(name);
        Stopwatch time = Stopwatch.StartNew();
        long before = GC.GetAllocatedBytesForCurrentThread();
        using LoKrModel model = new(ModelLoader.Build(new ModelConfig(shapes["config"]!.AsObject(), name)));
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 16, DecomposeFactor = 8, TargetModules = ModuleSelector.FromPattern("all-linear") });
        Assert.True(time.Elapsed < TimeSpan.FromSeconds(20), $"{time.Elapsed}");
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 256L << 20);
        Assert.InRange(adapter.Layers.Count, 190, 230);
        Assert.True(model.CountParameters().Total > 7_000_000_000);
        Assert.All(model.Module.parameters().Concat(adapter.GetTensors().Values), static tensor => Assert.Equal(TorchSharp.DeviceType.META, tensor.device_type));
    }

    private static string Canonical(nn.Module module, string published) => (module as IModuleAliases)?.Canonical(published) ?? published;

    private static JsonObject Read(string name)
    {
        JsonObject shapes = JsonNode.Parse(File.ReadAllText(Fixtures.Require(name + ".json")))!.AsObject();

        // These configurations name no class; the weights of this one say which it is.
        if (shapes["parameters"]!.AsObject().ContainsKey("text_projection.weight"))
        {
            shapes["config"]!["architectures"] = new JsonArray("CLIPTextModelWithProjection");
        }

        if (shapes["config"]!["model_type"] is null)
        {
            shapes["config"]!["_class_name"] = shapes["config"]!.AsObject().ContainsKey("latent_channels") ? "AutoencoderKL" : "UNet2DConditionModel";
        }

        return shapes;
    }
}
