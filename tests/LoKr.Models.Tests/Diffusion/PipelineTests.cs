using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Pipelines made from configurations: both kinds, odd sizes, memory, export.</summary>
public sealed class PipelineTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Texts_are_cut_and_padded_to_the_length_of_the_encoder()
    {
        using DisposeScope scope = NewDisposeScope();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["sd"]));
        using PromptTokens tokens = pipeline.Tokenize(["", "ab", new string('x', 100)]);
        Assert.Equal([3, 24], tokens.Ids.shape);
        Assert.Null(tokens.Ids2);
        Assert.Equal([512L, .. Enumerable.Repeat(513L, 23)], tokens.Ids[0].data<long>().ToArray());
        Assert.Equal(512, tokens.Ids[2, 0].ToInt64());
        Assert.Equal(513, tokens.Ids[2, 23].ToInt64());
        Assert.NotEqual(513, tokens.Ids[2, 22].ToInt64());
        using TextConditioning text = pipeline.EncodeText(tokens);
        Assert.Equal([3, 24, 8], text.HiddenStates.shape);
        Assert.Null(text.Pooled);
    }

    [Fact]
    public void Large_pipelines_take_both_encoders_before_their_last_layer()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["xl"], large: true));
        Assert.Equal(["text_encoder", "text_encoder_2", "unet"], pipeline.Models.Keys);
        using PromptTokens tokens = pipeline.Tokenize(["a rack", "night"]);
        TextConditioning text = pipeline.EncodeText(tokens);
        Assert.Equal([2, 24, 16], text.HiddenStates.shape);
        Assert.Equal([2, 6], text.Pooled!.shape);

        // The last layer and the norm are missing in what the UNet gets, and nothing else: without a last layer, they are all that is left.
        TextEncoderOutput first = ((ITextEncoder)pipeline.TextEncoder.Module).Encode(tokens.Ids);
        TextEncoderOutput second = ((ITextEncoder)pipeline.TextEncoder2!.Module).Encode(tokens.Ids2!);
        TensorAssert.Close(second.Pooled, text.Pooled, TensorAssert.Layer, "pooled");
        foreach ((LoKrModel model, Tensor part, Tensor last) in new[]
        {
            (pipeline.TextEncoder, text.HiddenStates[.., .., ..8], first.LastHiddenState),
            (pipeline.TextEncoder2!, text.HiddenStates[.., .., 8..], second.LastHiddenState),
        })
        {
            nn.Module root = model.Module.named_modules().FirstOrDefault(item => item.name == "text_model").module ?? model.Module;
            var lastLayer = (TransformerLayer)root.named_modules().First(item => item.name == "encoder.layers.1").module;
            var norm = (nn.Module<Tensor, Tensor>)root.named_modules().First(item => item.name == "final_layer_norm").module;
            TensorAssert.Close(last, norm.call(lastLayer.call(part, AttentionPass.Causal(null, part.shape[1], part.device, [null]))), TensorAssert.Layer, model.Name);
        }

        Tensor sizes = tensor(new long[,] { { 16, 16, 0, 0, 16, 16 }, { 32, 16, 0, 8, 16, 16 } });
        Tensor sample = randn(2, 4, 8, 8);
        Tensor noise = pipeline.Denoiser.call(sample, tensor(5L), text.HiddenStates, new AddedConditions(text.Pooled, sizes));
        Assert.Equal(sample.shape, noise.shape);
        Tensor others = pipeline.Denoiser.call(sample, tensor(5L), text.HiddenStates, new AddedConditions(text.Pooled, sizes * 2));
        Assert.True((noise - others).abs().max().ToDouble() > 1e-3);
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => pipeline.Denoiser.call(sample, tensor(5L), text.HiddenStates, null), "needs added conditions");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid,
            () => pipeline.Denoiser.call(sample, tensor(5L), text.HiddenStates, new AddedConditions(text.Pooled, sizes[.., ..5])), "rows of 30");
    }

    [Fact]
    public void Added_conditions_are_the_pooled_text_beside_sines_and_cosines_of_the_sizes()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using nn.Module module = Filled(TinyPipeline.UNet(large: true));
        var unet = (UNet2DConditionModel)module;
        Tensor sample = randn(2, 4, 8, 8);
        Tensor text = randn(2, 5, 16);
        Tensor pooled = randn(2, 6);
        Tensor sizes = tensor(new float[,] { { 16, 16, 0, 0, 16, 16 }, { 32, 16, 0, 8, 16, 16 } });
        Tensor expected = unet.call(sample, tensor(5L), text, new AddedConditions(pooled, sizes));

        // The same embedding by hand goes in through the bias of a UNet whose own embedding is switched off.
        double[] rates = [1, Math.Exp(-Math.Log(10000) / 2)];
        Tensor rows = stack([.. Enumerable.Range(0, 2).Select(row => cat([pooled[row], .. Enumerable.Range(0, 6).Select(column =>
            tensor([.. rates.Select(rate => (float)Math.Cos(sizes[row, column].ToDouble() * rate)), .. rates.Select(rate => (float)Math.Sin(sizes[row, column].ToDouble() * rate))]))]))]);
        Tensor Weight(string name) => module.get_parameter(name)!;
        Tensor added = nn.functional.silu(rows.matmul(Weight("add_embedding.linear_1.weight").t()) + Weight("add_embedding.linear_1.bias"))
            .matmul(Weight("add_embedding.linear_2.weight").t()) + Weight("add_embedding.linear_2.bias");
        for (int row = 0; row < 2; row++)
        {
            using nn.Module plain = Filled(TinyPipeline.UNet(large: true));
            plain.get_parameter("add_embedding.linear_2.weight")!.zero_();
            plain.get_parameter("add_embedding.linear_2.bias")!.copy_(added[row]);
            Tensor actual = ((UNet2DConditionModel)plain).call(
                sample.narrow(0, row, 1), tensor(5L), text.narrow(0, row, 1), new AddedConditions(zeros(1, 6), zeros(1, 6)));
            TensorAssert.Close(expected.narrow(0, row, 1), actual, TensorAssert.Layer, $"row {row}");
        }
    }

    [Fact]
    public void Linear_projections_are_convolutions_of_one_pixel()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        JsonObject config = TinyPipeline.UNet();
        using nn.Module convolutions = Filled(config);
        config["use_linear_projection"] = true;
        using nn.Module linear = Filled(config);
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in linear.named_parameters())
        {
            parameter.copy_(convolutions.get_parameter(name)!.view(parameter.shape));
        }

        Assert.Equal(2, linear.get_parameter("down_blocks.0.attentions.0.proj_in.weight")!.dim());
        Tensor[] inputs = [randn(2, 4, 8, 8), randn(2, 5, 8)];
        TensorAssert.Close(Run(convolutions, inputs), Run(linear, inputs), TensorAssert.Layer, "projections");
    }

    [Theory]
    [InlineData("""{ "only_cross_attention": true }""")]
    [InlineData("""{ "mid_block_type": null }""")]
    [InlineData("""{ "resnet_time_scale_shift": "scale_shift", "resnet_out_scale_factor": 1.5, "mid_block_scale_factor": 2 }""")]
    [InlineData("""{ "layers_per_block": [2, 1], "transformer_layers_per_block": [2, 1], "attention_head_dim": [4, 8] }""")]
    [InlineData("""{ "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"] }""")]
    [InlineData("""{ "flip_sin_to_cos": false, "freq_shift": 1, "center_input_sample": true, "time_embedding_act_fn": "silu", "timestep_post_act": "silu" }""")]
    [InlineData("""{ "downsample_padding": 0, "conv_in_kernel": 1, "conv_out_kernel": 5, "upcast_attention": true, "act_fn": "gelu" }""")]
    [InlineData("""{ "_name_or_path": "x", "some_old_option": null, "another": false, "addition_embed_type_num_heads": 64 }""")]
    public void Options_of_the_UNet_that_are_built_run(string options)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        JsonObject config = TinyPipeline.UNet();
        foreach ((string key, JsonNode? value) in JsonNode.Parse(options)!.AsObject())
        {
            config[key] = value?.DeepClone();
        }

        using nn.Module module = Filled(config);
        Tensor sample = randn(2, 4, 8, 8);
        Tensor output = Run(module, [sample, randn(2, 5, 8)]);
        Assert.Equal(sample.shape, output.shape);
        Assert.True(output.isfinite().all().ToBoolean());
    }

    [Theory]
    [InlineData(8, 8)]
    [InlineData(7, 9)]
    [InlineData(5, 12)]
    public void Latents_of_any_size_come_back_in_their_size_and_depend_on_time_and_text(int height, int width)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using nn.Module module = Filled(TinyPipeline.UNet());
        var unet = (UNet2DConditionModel)module;
        Tensor sample = randn(2, 4, height, width);
        Tensor text = randn(2, 5, 8);
        Tensor output = unet.call(sample, tensor(new long[] { 5, 400 }), text, null);
        Assert.Equal(sample.shape, output.shape);

        // Each row is on its own, and one time stands for all.
        for (int row = 0; row < 2; row++)
        {
            Tensor alone = unet.call(sample.narrow(0, row, 1), tensor(row == 0 ? 5L : 400L), text.narrow(0, row, 1), null);
            TensorAssert.Close(output.narrow(0, row, 1), alone, TensorAssert.Layer, $"row {row}");
        }

        Assert.True((output - unet.call(sample, tensor(5L), text, null)).abs().max().ToDouble() > 1e-3);
        Assert.True((output - unet.call(sample, tensor(new long[] { 5, 400 }), text * 2, null)).abs().max().ToDouble() > 1e-3);
    }

    [Fact]
    public void Prediction_text_and_autoencoder_leave_no_tensors_behind()
    {
        using DisposeScope scope = NewDisposeScope();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["xl"], large: true));
        Tensor sample = randn(1, 4, 8, 8);
        Tensor sizes = zeros(1, 6);
        Tensor time = tensor(5L);
        Tensor image = randn(1, 3, 16, 16);
        LiveTensors.AssertFlat(() =>
        {
            using TextConditioning text = pipeline.EncodeText(["a rack"]);
            using Tensor noise = pipeline.Denoiser.call(sample, time, text.HiddenStates, new AddedConditions(text.Pooled!, sizes));
            using LatentDistribution latents = pipeline.Vae.Encode(image);
            using Tensor drawn = latents.Sample();
            using Tensor decoded = pipeline.Vae.Decode(drawn);
        });
    }

    [Fact]
    public void Full_size_UNet_without_weights_takes_no_memory()
    {
        JsonObject config = new() { ["_class_name"] = "UNet2DConditionModel", ["cross_attention_dim"] = 768 };
        using (ModelLoader.Build(new ModelConfig(TinyPipeline.UNet())))
        {
        }

        long before = Environment.WorkingSet;
        using nn.Module module = ModelLoader.Build(new ModelConfig(config));
        Assert.Equal(859_520_964, module.parameters().Sum(parameter => parameter.numel()));
        Assert.True(Environment.WorkingSet - before < 300_000_000, $"{(Environment.WorkingSet - before) / 1e6:0} MB for parameters that would take 3438 MB.");
    }

    [Fact]
    public void Released_autoencoder_is_read_again()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["sd"]));
        Tensor latents = randn(1, 4, 8, 8);
        Tensor before = pipeline.Vae.Decode(latents);
        long parameters = pipeline.ParameterCount;
        pipeline.ReleaseVae();
        Assert.False(pipeline.IsVaeLoaded);
        Assert.Equal(parameters, pipeline.ParameterCount);
        Assert.True(TensorAssert.Same(before, pipeline.Vae.Decode(latents)));
        Assert.True(pipeline.IsVaeLoaded);
        pipeline.Dispose();
        ErrorAssert.Throws(ErrorIds.ModelDisposed, () => _ = pipeline.Vae);
    }

    [Fact]
    public void Latents_are_drawn_from_their_distribution_by_seed()
    {
        using DisposeScope scope = NewDisposeScope();
        using LatentDistribution latents = new(full([1, 4, 64, 64], 3f), full([1, 4, 64, 64], (float)Math.Log(4)));
        using Generator generator = new(1, CPU);
        using Generator same = new(1, CPU);
        Tensor drawn = latents.Sample(generator);
        Assert.True(TensorAssert.Same(drawn, latents.Sample(same)));
        Assert.Equal(3, drawn.mean().ToDouble(), 0.1);
        Assert.Equal(2, drawn.std().ToDouble(), 0.1);
    }

    [Fact]
    public void Old_names_of_the_autoencoders_attention_load()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        string folder = Path.Combine(TinyPipeline.Write(_folder["sd"]), "vae");
        string file = Path.Combine(folder, "diffusion_pytorch_model.safetensors");
        Tensor latents = randn(1, 4, 8, 8);
        Tensor before = Decode();
        Dictionary<string, Tensor> tensors;
        using (SafetensorsReader reader = SafetensorsReader.Open(file))
        {
            tensors = reader.Entries.Keys.ToDictionary(
                key => key.Replace(".to_q.", ".query.", StringComparison.Ordinal).Replace(".to_k.", ".key.", StringComparison.Ordinal)
                    .Replace(".to_v.", ".value.", StringComparison.Ordinal).Replace(".to_out.0.", ".proj_attn.", StringComparison.Ordinal),
                key => reader.Read(key), StringComparer.Ordinal);
        }

        Assert.Contains("encoder.mid_block.attentions.0.proj_attn.bias", tensors.Keys);
        SafetensorsWriter.Write(file, tensors);
        Assert.True(TensorAssert.Same(before, Decode()));

        Tensor Decode()
        {
            using LoKrModel model = ModelLoader.Load(folder);
            return ((AutoencoderKL)model.Module).Decode(latents);
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Merged_pipeline_is_written_as_a_folder_that_gives_the_same(bool large)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        string source = TinyPipeline.Write(_folder["sd"], large);
        File.WriteAllText(Path.Combine(source, "vae", "diffusion_pytorch_model.bin"), "pickle");
        Tensor sample = randn(1, 4, 8, 8);
        Tensor before;
        using (StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(source))
        {
            Tensor plain = Predict(pipeline, sample);
            LoKrConfig text = new() { R = 4, Alpha = 8, TargetModules = ModuleSelector.FromNames(["q_proj", "fc1"]), InitWeights = InitWeights.Random };
            LoKrConfig unet = new() { R = 4, Alpha = 8, TargetModules = ModuleSelector.FromNames(["to_q", "proj_in", "conv1"]), InitWeights = InitWeights.Random };
            pipeline.TextEncoder.AddAdapter(text, seed: 1);
            pipeline.UNet.AddAdapter(unet, seed: 2);
            before = Predict(pipeline, sample);
            Assert.True((before - plain).abs().max().ToDouble() > 1e-3);
            ErrorAssert.Throws(ErrorIds.ExportUnmerged, () => StableDiffusionExporter.Export(pipeline, _folder["merged"]), "default");
            pipeline.TextEncoder.Merge();
            ErrorAssert.Throws(ErrorIds.ExportUnmerged, () => StableDiffusionExporter.Export(pipeline, _folder["merged"]), "UNet2DConditionModel");
            pipeline.UNet.Merge();
            ErrorAssert.Throws(ErrorIds.ExportIntoSource, () => StableDiffusionExporter.Export(pipeline, Path.Combine(source, "merged"), force: true));
            pipeline.ReleaseVae();
            StableDiffusionExporter.Export(pipeline, _folder["merged"], maxShardBytes: 20_000);
            Assert.False(pipeline.IsVaeLoaded);
            ErrorAssert.Throws(ErrorIds.DestinationExists, () => StableDiffusionExporter.Export(pipeline, _folder["merged"]));
        }

        Assert.False(File.Exists(_folder["merged", "vae", "diffusion_pytorch_model.bin"]));
        Assert.True(File.Exists(_folder["merged", "unet", "diffusion_pytorch_model.safetensors.index.json"]));
        using StableDiffusionPipeline merged = StableDiffusionLoader.Load(_folder["merged"]);
        TensorAssert.Close(before, Predict(merged, sample), TensorAssert.Layer, "after export");
        Assert.Equal(JsonNode.Parse(File.ReadAllText(Path.Combine(source, "unet", "config.json")))!.ToJsonString(), merged.UNet.Pretrained!.Config.ToJsonString());
        Assert.True(merged.IsVaeLoaded);
    }

    [Fact]
    public void Half_precision_keeps_the_autoencoder_where_it_overflows()
    {
        ModelLoadOptions half = new() { DType = ScalarType.Float16 };
        using (StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["careful"]), half))
        {
            Assert.Equal(ScalarType.Float16, pipeline.DType);
            Assert.All(pipeline.Vae.parameters(), parameter => Assert.Equal(ScalarType.Float32, parameter.dtype));
        }

        string folder = TinyPipeline.Write(_folder["fixed"], edit: (component, json) =>
        {
            if (component == "vae")
            {
                json["force_upcast"] = false;
            }
        });
        using StableDiffusionPipeline other = StableDiffusionLoader.Load(folder, half);
        Assert.All(other.Vae.parameters(), parameter => Assert.Equal(ScalarType.Float16, parameter.dtype));
    }

    [Fact]
    public void Components_that_are_not_used_are_named_and_exported()
    {
        string source = TinyPipeline.Write(_folder["sd"], edit: (component, json) =>
        {
            if (component == "model_index")
            {
                json["safety_checker"] = new JsonArray("stable_diffusion", "StableDiffusionSafetyChecker");
                json["feature_extractor"] = new JsonArray("transformers", "CLIPImageProcessor");
            }
        });
        Directory.CreateDirectory(Path.Combine(source, "safety_checker"));
        File.WriteAllText(Path.Combine(source, "safety_checker", "config.json"), "{}");
        StableDiffusionLoadResult result = StableDiffusionLoader.LoadWithReport(source);
        using StableDiffusionPipeline pipeline = result.Pipeline;
        Assert.Contains("safety_checker", Assert.Single(result.Warnings), StringComparison.Ordinal);
        StableDiffusionExporter.Export(pipeline, _folder["copy"]);
        Assert.True(File.Exists(_folder["copy", "safety_checker", "config.json"]));
    }

    private static Tensor Predict(StableDiffusionPipeline pipeline, Tensor sample)
    {
        using TextConditioning text = pipeline.EncodeText(["a rack"]);
        return pipeline.Denoiser.call(sample, tensor(5L), text.HiddenStates, text.Pooled is null ? null : new AddedConditions(text.Pooled, zeros(1, 6)));
    }

    private static Tensor Run(nn.Module module, Tensor[] inputs) => ((UNet2DConditionModel)module).call(inputs[0], tensor(7L), inputs[1], null);

    private static nn.Module Filled(JsonObject config)
    {
        nn.Module module = ModelLoader.Build(new ModelConfig(config), new ModelBuildOptions { Device = CPU });
        using IDisposable noGrad = no_grad();
        using Generator generator = new(3, CPU);
        foreach ((string _, TorchSharp.Modules.Parameter parameter) in module.named_parameters())
        {
            parameter.normal_(0, 0.3, generator);
        }

        return module;
    }
}
