using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Loading;

/// <summary>Shapes of a folder without its weights, and the cost of adapters on them.</summary>
public sealed class ModelShapesTests : IDisposable
{
    private readonly TempFolder _folder = new();

    [Theory]
    [InlineData("llama-3.1-8b")]
    [InlineData("bert-base-uncased")]
    [InlineData("gpt2")]
    public void The_cost_of_a_configuration_is_that_of_PEFT_without_any_weights(string name)
    {
        JsonObject shapes = JsonNode.Parse(File.ReadAllText(Fixtures.Require("shapes", name + ".json")))!.AsObject();
        File.WriteAllText(Path.Combine(_folder.Path, "config.json"), shapes["config"]!.ToJsonString());
        using IAdaptable model = ModelShapes.Read(_folder.Path);
        foreach ((string adapter, JsonNode? expected) in shapes["adapters"]!.AsObject())
        {
            JsonObject fields = expected!["config"]!.DeepClone().AsObject();
            fields["peft_type"] = "LOKR";
            fields["peft_version"] = LoKrConfigJson.PeftVersion;
            AdapterCost cost = AdapterCosts.Measure(model, LoKrConfigJson.Parse(fields.ToJsonString(), adapter, out _));
            LoKrModuleCost[] layers = [.. cost.Modules.Where(static module => module.Role == LoKrModuleRole.Layer)];
            Assert.Equal(expected["trainable"]!.GetValue<long>(), layers.Sum(static layer => layer.ParameterCount));
            Assert.Equal(shapes["total"]!.GetValue<long>(), cost.Total.ModelParameterCount);
            Assert.InRange(cost.Total.StepMultiplyAdds, 1, cost.Total.ModelStepMultiplyAdds);
        }

        Assert.Equal(Path.GetFullPath(_folder.Path), model.SourcePath);
    }

    [Fact]
    public void The_components_of_a_pipeline_are_measured_together()
    {
        string folder = TinyPipeline.Write(Path.Combine(_folder.Path, "sd"));
        foreach (string file in Directory.EnumerateFiles(folder, "*.safetensors", SearchOption.AllDirectories))
        {
            File.Delete(file);
        }

        using IAdaptable shapes = ModelShapes.Read(folder);
        AdapterCost cost = AdapterCosts.Measure(shapes, new() { R = 2, TargetModules = ModuleSelector.FromNames(["to_q", "q_proj"]) });
        Assert.Equal(["text_encoder", "unet"], cost.Modules.Select(static module => module.Component).Distinct());
        Assert.All(cost.Modules, static module => Assert.StartsWith(module.Component + ".", module.Name, StringComparison.Ordinal));
        Assert.Equal(cost.Modules.Count, cost.Total.LayerCount);
    }

    [Fact]
    public void A_folder_without_configuration_is_refused() =>
        Assert.Equal(ErrorIds.ModelConfigNotFound, Assert.Throws<LoKrException>(() => ModelShapes.Read(_folder.Path)).ErrorId);

    public void Dispose() => _folder.Dispose();
}
