using System.Text.Json.Nodes;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Models.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Images of the small pipeline against those that diffusers made, with and without PEFT's adapters.</summary>
public sealed class ImageFixtureTests
{
    [Theory]
    [InlineData(SchedulerKind.DDIM, false, "pipeline_ddim")]
    [InlineData(SchedulerKind.PNDM, false, "pipeline_pndm")]
    [InlineData(SchedulerKind.Euler, false, "pipeline_euler")]
    [InlineData(SchedulerKind.DDIM, true, "pipeline_ddim_adapter")]
    public void Schedulers_make_the_images_of_diffusers(SchedulerKind kind, bool adapted, string expected)
    {
        using SingleThread thread = new();
        string folder = Fixtures.Require("diffusers", "tiny-sd");
        using DisposeScope scope = NewDisposeScope();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(folder);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        JsonNode settings = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "case.json")))!;
        ImageGenerationOptions options = new()
        {
            Steps = (int)settings["steps"]!,
            Guidance = (double)settings["guidance"]!,
            NegativePrompt = (string)settings["negative"]!,
            Scheduler = kind,
        };
        if (adapted)
        {
            foreach ((string name, LoKrModel model) in pipeline.Models)
            {
                PeftStart.Load(model, Path.Combine(folder, "adapters", name));
            }
        }

        List<(int, int)> steps = [];
        Check("");
        Assert.Equal(Enumerable.Range(1, steps.Count).Select(step => (step, steps.Count)), steps);
        if (adapted)
        {
            foreach (LoKrModel model in pipeline.Models.Values)
            {
                model.Merge(safe: true);
            }

            Check("merged");
            foreach (LoKrModel model in pipeline.Models.Values)
            {
                model.UndoMerge();
            }

            // Scaled to nothing, the adapters leave the pipeline's own image; afterwards they are as strong as before.
            options = options with { AdapterScale = 0 };
            expected = expected.Replace("_adapter", "", StringComparison.Ordinal);
            Check("scaled to nothing");
            Assert.All(pipeline.Models.Values, model => Assert.Equal(1, model.Adapters[0].Scale));
        }

        void Check(string what)
        {
            steps.Clear();
            Tensor image = ImageGenerator.Sample(
                pipeline, (string)settings["prompt"]!, options, io.Read("start_latents"), () => throw new InvalidOperationException(), (step, all) => steps.Add((step, all)), TestContext.Current.CancellationToken);
            TensorAssert.Close(io.Read(expected), image, TensorAssert.Model, $"{expected} {what}");
        }
    }
}
