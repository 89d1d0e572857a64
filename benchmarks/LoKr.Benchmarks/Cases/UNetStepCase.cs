using System.Text.Json.Nodes;
using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>A training step of Stable Diffusion 1.5's UNet in full size, with random weights: LoKr as in PEFT's example, and LoRA on the same layers.</summary>
internal sealed class UNetStepCase : IBenchmarkCase
{
    private const int Rank = 8;

    /// <inheritdoc/>
    public string Name => "unet-step";

    /// <inheritdoc/>
    public string Title => "training step of Stable Diffusion 1.5's UNet, 32x32 latents, batch 1, rank 8";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        if (context.Options.Quick)
        {
            context.Note("Left out of --quick: it needs 5 GiB and a minute.");
            return;
        }

        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(Build(context.Device));
        Tensor sample = randn([1, 4, 32, 32], device: context.Device);
        Tensor noise = randn([1, 4, 32, 32], device: context.Device);
        Tensor text = randn([1, 77, 768], device: context.Device);
        Tensor time = tensor(500L, device: context.Device);

        Adapters.Fill(model.AddAdapter(new()
        {
            R = Rank,
            Alpha = 32,
            TargetModules = ModuleSelector.FromNames(["proj_in", "proj_out", "to_k", "to_q", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]),
            UseEffectiveConv2d = true,
        }));
        using FlatAdamW lokrOptimizer = new(model.Adapters[0].FlatParameters);

        // On the same weights, so that memory holds one UNet; the one that is measured is the one that is switched on.
        string[] adapted = [.. model.Adapters[0].Layers.Select(static layer => layer.ModuleName)];
        using LoraReference lora = LoraReference.On(model, adapted, Rank, 4);
        lora.IsEnabled = false;
        using FlatAdamW loraOptimizer = new([lora.Parameters]);

        void UseLokr() => Use(lokr: true);
        void UseLora() => Use(lokr: false);
        void Use(bool lokr)
        {
            lora.IsEnabled = !lokr;
            if (model.AdaptersEnabled != lokr)
            {
                model.SetAdaptersEnabled(lokr);
            }
        }

        context.Compare(
            $"UNet of 859,520,964 parameters, {adapted.Length} layers",
            [
                new("LoKr", () => Step(lokrOptimizer), UseLokr),
                new("LoRA", () => Step(loraOptimizer), UseLora),
            ],
            [new("LoKr", "LoRA", 1.05)],
            weight: 5);
        Note("LoKr", lokrOptimizer, UseLokr);
        Note("LoRA", loraOptimizer, UseLora);

        void Note(string name, FlatAdamW optimizer, Action prepare)
        {
            prepare();
            PeakMemory.Reset();
            Step(optimizer);
            context.Note($"{name}: {PeakMemory.Format(PeakMemory.Peak)} at the peak of a step");
        }

        void Step(FlatAdamW optimizer) => TrainingStep.Run(
            optimizer, () => nn.functional.mse_loss(((UNet2DConditionModel)model.Module).call(sample, time, text, null), noise));
    }

    // The defaults of the configuration are Stable Diffusion 1.5's, but for the width of the text.
    private static nn.Module Build(Device device)
    {
        JsonObject config = new() { ["_class_name"] = nameof(UNet2DConditionModel), ["cross_attention_dim"] = 768 };
        nn.Module module = ModelLoader.Build(new ModelConfig(config), new() { Device = device });
        using IDisposable noGrad = no_grad();
        foreach ((string name, Parameter parameter) in module.named_parameters())
        {
            long fan = parameter.dim() > 1 ? parameter.numel() / parameter.shape[0] : 1;
            _ = parameter.dim() > 1 ? parameter.normal_(0, 1 / Math.Sqrt(fan))
                : name.EndsWith("weight", StringComparison.Ordinal) ? parameter.fill_(1)
                : parameter.zero_();
        }

        return module;
    }
}
