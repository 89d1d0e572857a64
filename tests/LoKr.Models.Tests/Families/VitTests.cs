using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

public sealed class VitTests
{
    [Fact]
    public void Logits_are_those_of_transformers_and_no_tokenizer_is_missed()
    {
        string folder = Fixtures.Require("transformers", "vit");
        using DisposeScope scope = NewDisposeScope();
        ModelLoadResult result = ModelLoader.LoadWithReport(folder);
        using LoKrModel model = result.Model;
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        TensorAssert.Close(io.Read("base_output"), ReferenceInput.Run(model, io), TensorAssert.Model, "vit");
        Assert.Empty(result.Warnings);
        var images = (VitForImageClassification)model.Module;
        Assert.Equal(io.Entries["in.pixel_values"].Shape.Skip(1), [images.ChannelCount, images.ImageHeight, images.ImageWidth]);
        Assert.Equal(io.Entries["base_output"].Shape[1], images.Labels.Count);

        model.MoveTo(dtype: ScalarType.Float64);
        TensorAssert.Close(io.Read("base_output"), ReferenceInput.Run(model, io), TensorAssert.Model, "vit in float64");
    }

    [Theory]
    [MemberData(nameof(AdapterCases.Of), "vit", MemberType = typeof(AdapterCases))]
    public void Adapter_has_the_logits_layers_and_counts_of_PEFT(string adapter) => AdapterCases.Check("vit", adapter);

    [Fact]
    public void Images_of_another_size_or_type_are_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = ModelLoader.Build(new ModelConfig(TinyModel.VitConfig()), new ModelBuildOptions { Device = CPU });
        var model = (VitForImageClassification)module;
        Assert.Equal([2, 2], model.call(zeros(2, 3, 8, 12)).shape);
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.call(zeros(1, 3, 16, 12)), "[1, 3, 16, 12]", "[batch, 3, 8, 12]");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.call(zeros(1, 1, 8, 12)));
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.call(zeros(3, 8, 12)));
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.call(zeros(1, 3, 8, 12, ScalarType.Byte)), "Byte");
    }

    [Fact]
    public void Bare_encoder_gets_a_new_head_and_loses_its_pooler()
    {
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        JsonObject config = TinyModel.VitConfig();
        config["architectures"] = new JsonArray("ViTModel");
        TinyModel.Write(folder.Path, config, tensors =>
        {
            foreach ((string name, Tensor tensor) in tensors.ToArray())
            {
                tensors.Remove(name);
                if (name.StartsWith("vit.", StringComparison.Ordinal))
                {
                    tensors[NameGenerations.ToPublished("vit", name)["vit.".Length..]] = tensor;
                }
            }

            tensors["pooler.dense.weight"] = zeros(8, 8);
            tensors["embeddings.mask_token"] = zeros(1, 1, 8);
        });
        ModelLoadResult result = ModelLoader.LoadWithReport(folder.Path, new ModelLoadOptions { Labels = ["cat", "dog", "cow"], Seed = 3 });
        using LoKrModel model = result.Model;
        Assert.Equal(["classifier.weight", "classifier.bias"], result.FreshParameters);
        Assert.Equal(["embeddings.mask_token", "pooler.dense.weight"], result.SkippedKeys.Order(StringComparer.Ordinal));
        Assert.Equal([1, 3], ((VitForImageClassification)model.Module).call(zeros(1, 3, 8, 12)).shape);
    }

    [Fact]
    public void Export_takes_the_preprocessing_along()
    {
        using TempFolder folder = new();
        TinyModel.Write(folder["in"], TinyModel.VitConfig());
        File.WriteAllText(folder["in", "preprocessor_config.json"], """{"image_mean": [0.5, 0.5, 0.5]}""");
        using LoKrModel model = ModelLoader.Load(folder["in"]);
        ModelExporter.Export(model, folder["out"]);
        Assert.Equal("""{"image_mean": [0.5, 0.5, 0.5]}""", File.ReadAllText(folder["out", "preprocessor_config.json"]));
    }

    [Theory]
    [InlineData("image_size", 0)]
    [InlineData("patch_size", 100)]
    [InlineData("num_attention_heads", 3)]
    public void Sizes_that_do_not_fit_are_refused(string key, int value)
    {
        JsonObject config = TinyModel.VitConfig();
        config[key] = value;
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => ModelLoader.Build(new ModelConfig(config)), key);
    }

    [Fact]
    public void Forward_passes_leave_no_tensors_behind()
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = ModelLoader.Build(new ModelConfig(TinyModel.VitConfig()), new ModelBuildOptions { Device = CPU });
        Tensor images = rand(2, 3, 8, 12);
        LiveTensors.AssertFlat(() => ((VitForImageClassification)module).call(images).Dispose());
    }
}
