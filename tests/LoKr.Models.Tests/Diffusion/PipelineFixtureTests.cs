using System.Text.Json.Nodes;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>The small pipeline of the fixtures against diffusers and PEFT.</summary>
public sealed class PipelineFixtureTests
{
    [Theory]
    [InlineData(null, "unet_output")]
    [InlineData("unet", "unet_output_adapter")]
    [InlineData("unet-conv", "unet_output_conv_adapter")]
    public void UNet_predicts_what_diffusers_does(string? adapter, string expected)
    {
        string folder = Folder();
        using DisposeScope scope = NewDisposeScope();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(folder);
        using SafetensorsReader io = Read(folder);
        if (adapter is not null)
        {
            LoKrAdapter loaded = PeftStart.Load(pipeline.UNet, Path.Combine(folder, "adapters", adapter));
            using IDisposable noGrad = no_grad();
            Predict();
            Assert.All(loaded.Layers, layer => Assert.True(layer.CallCount > 0, layer.ModuleName));
        }

        using (no_grad())
        {
            TensorAssert.Close(io.Read(expected), Predict(), TensorAssert.Model, expected);
            if (adapter is not null)
            {
                pipeline.UNet.Merge(safe: true);
                TensorAssert.Close(io.Read(expected), Predict(), TensorAssert.Model, $"{expected}, merged");
                pipeline.UNet.UndoMerge();
                pipeline.UNet.SetAdaptersEnabled(false);
                TensorAssert.Close(io.Read("unet_output"), Predict(), TensorAssert.Model, "without the adapter");
            }
        }

        Tensor Predict() => pipeline.Denoiser.call(io.Read("latents"), io.Read("timesteps"), io.Read("context"), null);
    }

    [Fact]
    public void Autoencoder_encodes_and_decodes_as_diffusers_does()
    {
        string folder = Folder();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(folder);
        using SafetensorsReader io = Read(folder);
        LatentDistribution latents = pipeline.Vae.Encode(io.Read("image"));
        TensorAssert.Close(io.Read("vae_mean"), latents.Mean, TensorAssert.Model, "vae_mean");
        TensorAssert.Close(io.Read("vae_logvar"), latents.LogVariance, TensorAssert.Model, "vae_logvar");
        TensorAssert.Close(io.Read("vae_decoded"), pipeline.Vae.Decode(io.Read("latents").narrow(0, 0, 1)), TensorAssert.Model, "vae_decoded");
    }

    [Fact]
    public void Text_gives_the_ids_and_hidden_states_of_the_pipeline_with_and_without_adapter()
    {
        string folder = Folder();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(folder);
        using SafetensorsReader io = Read(folder);
        string prompt = (string)Case(folder)["prompt"]!;
        PromptTokens tokens = pipeline.Tokenize([prompt]);
        Assert.True(TensorAssert.Same(io.Read("prompt_ids"), tokens.Ids));
        TensorAssert.Close(io.Read("text_hidden"), pipeline.EncodeText(tokens).HiddenStates, TensorAssert.Model, "text_hidden");
        PeftStart.Load(pipeline.TextEncoder, Path.Combine(folder, "adapters", "text_encoder"));
        TensorAssert.Close(io.Read("text_hidden_adapter"), pipeline.EncodeText([prompt]).HiddenStates, TensorAssert.Model, "text_hidden_adapter");
    }

    [Fact]
    public void Losses_of_text_encoder_and_UNet_together_are_those_of_PEFT()
    {
        string folder = Folder();
        using DisposeScope scope = NewDisposeScope();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(folder);
        using SafetensorsReader io = Read(folder);
        LoKrAdapter text = PeftStart.Load(pipeline.TextEncoder, Path.Combine(folder, "adapters", "text_encoder"));
        LoKrAdapter unet = PeftStart.Load(pipeline.UNet, Path.Combine(folder, "adapters", "unet"));
        pipeline.TextEncoder.SetAdapterTrainable(text.Name, true);
        pipeline.UNet.SetAdapterTrainable(unet.Name, true);
        double[] losses = [.. Case(folder)["losses"]!.AsArray().Select(loss => (double)loss!)];
        using PromptTokens tokens = new(io.Read("train_ids"), null);
        using FlatAdamW optimizer = new([.. text.FlatParameters, .. unet.FlatParameters]);
        for (int i = 0; i < losses.Length; i++)
        {
            using DisposeScope step = NewDisposeScope();
            optimizer.ZeroGradients();
            Tensor predicted = pipeline.Denoiser.call(io.Read("train_noisy"), io.Read("train_timesteps"), pipeline.EncodeText(tokens).HiddenStates, null);
            Tensor loss = nn.functional.mse_loss(predicted, io.Read("train_noise"));
            loss.backward();
            TensorAssert.Close(losses[i], loss.ToDouble(), TensorAssert.Model, $"loss {i + 1}");
            optimizer.Clip(1, optimizer.GradientNorm().ToDouble());
            optimizer.Step(1e-3);
        }

        Assert.NotEmpty(losses);
    }

    private static JsonNode Case(string folder) => JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "case.json")))!;

    private static string Folder() => Fixtures.Require("diffusers", "tiny-sd");

    private static SafetensorsReader Read(string folder) => SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
}
