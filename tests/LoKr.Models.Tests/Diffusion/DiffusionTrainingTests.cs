using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Models.Tests.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Training of UNet and text encoder: PEFT's losses, a run on real files, and what a run leaves behind.</summary>
public sealed class DiffusionTrainingTests : IDisposable
{
    private static readonly ImageDataOptions s_data = new() { Resolution = 16 };
    private static readonly TrainingOptions s_options = new() { MaxSteps = 40, BatchSize = 4, LearningRate = 1e-2, Schedule = LearningRateSchedule.Constant, Seed = 1 };

    private readonly TempFolder _folder = new();
    private readonly SingleThread _thread = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void Ten_losses_are_those_of_diffusers_and_peft()
    {
        string folder = Fixtures.Require("diffusers", "tiny-sd");
        using DisposeScope scope = NewDisposeScope();
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(folder);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        double[] expected = [.. JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "case.json")))!["losses"]!.AsArray().Select(loss => (double)loss!)];
        foreach ((string name, LoKrModel model) in pipeline.Models)
        {
            PeftStart.Load(model, Path.Combine(folder, "adapters", name));
        }

        NoiseSchedule schedule = new(SchedulerSettings.Read(pipeline.SchedulerConfig, SchedulerKind.DDPM));
        Tensor latents = io.Read("train_latents");
        Tensor noise = io.Read("train_noise");
        int[] timesteps = [.. io.Read("train_timesteps").data<long>().Select(timestep => (int)timestep)];
        TensorAssert.Close(io.Read("train_noisy"), schedule.AddNoise(latents, noise, timesteps), TensorAssert.Model, "train_noisy");

        using PromptTokens tokens = new(io.Read("train_ids"), null);
        using CustomLossTask task = new(["the only batch"], (_, _) => DenoisingLoss.Compute(pipeline, schedule, latents, noise, timesteps, tokens).mean());
        LoKrTrainingResult result = DiffusionTrainer.Run(pipeline, task, null,
            s_options with { MaxSteps = expected.Length, LearningRate = 1e-3, MaxGradientNorm = 1 }, cancellationToken: Token);
        for (int i = 0; i < expected.Length; i++)
        {
            TensorAssert.Close(expected[i], result.History[i].Loss, TensorAssert.Model, $"loss {i + 1}");
        }

        Assert.Equal(pipeline.Models.Values.Sum(model => model.Adapters[0].ParameterCount), result.TrainableParameterCount);
    }

    [Fact]
    public void Captions_that_are_cut_are_counted()
    {
        using StableDiffusionPipeline pipeline = Adapted();
        LatentRow[] rows = [.. new[] { "red", new string('x', 100), new string('y', 60) }.Select(caption => new LatentRow("", caption, 2, 2, 16, 16))];
        using DiffusionTask task = new(pipeline, rows, null, ["first"]);
        Assert.Equal(["first", $"2 of 3 captions are cut to 24 tokens; the longest has {pipeline.Tokenizer.Encode(rows[1].Caption).Count}."], task.Warnings);
        using DiffusionTask whole = new(pipeline, rows[..1]);
        Assert.Empty(whole.Warnings);
        Assert.False(pipeline.Measure("red").IsCut);
    }

    [Fact]
    public void A_run_on_images_lowers_the_loss_changes_the_output_and_holds_no_autoencoder()
    {
        using DisposeScope scope = NewDisposeScope();
        using StableDiffusionPipeline pipeline = Adapted();
        using Tensor before = Image(pipeline);
        using DiffusionTask task = Task(pipeline);
        List<(int Step, bool Vae)> seen = [];
        LoKrTrainingResult result = DiffusionTrainer.Run(pipeline, task, task, s_options with { EvaluateBefore = true, EvaluateEvery = 40 },
            onStep: step => seen.Add((step.Step, pipeline.IsVaeLoaded)), cancellationToken: Token);

        Assert.Equal("Completed", result.StopReason);
        Assert.Equal(Enumerable.Range(1, 40).Select(step => (step, false)), seen);
        Assert.True(result.After!.Loss < 0.98 * result.Before!.Loss, $"{result.Before.Loss} to {result.After.Loss}");
        Assert.True(result.PeakMemoryBytes > 1 << 20);
        Assert.Same(result, pipeline.LastTraining);
        Assert.All(pipeline.Models.Values, model => Assert.Same(result, model.LastTraining));
        Assert.All(pipeline.Models.Values, model => Assert.False(model.Module.training));

        using Tensor adapted = Image(pipeline);
        Assert.True((adapted - before).abs().max().item<float>() > 1e-3);
        foreach (LoKrModel model in pipeline.Models.Values)
        {
            model.Merge(safe: true);
        }

        using Tensor merged = Image(pipeline);
        TensorAssert.Close(adapted, merged, TensorAssert.Model, "merged");
    }

    [Fact]
    public void The_same_seed_gives_the_same_run_with_and_without_images_generated_during_training()
    {
        double[] plain = Losses(s_options with { MaxSteps = 5 });
        Directory.CreateDirectory(_folder["samples"]);
        double[] sampled = Losses(s_options with { MaxSteps = 5 },
            new SampleImages(["a red rack", "a blue rack"], 2, _folder["samples"], new ImageGenerationOptions { Steps = 2, Seed = 5 }));
        Assert.Equal(plain, sampled);
        Assert.NotEqual(plain, Losses(s_options with { MaxSteps = 5, Seed = 2 }));

        // Every second step, and the last one.
        Assert.Equal(
            ["step-000002-1.png", "step-000002-2.png", "step-000004-1.png", "step-000004-2.png", "step-000005-1.png", "step-000005-2.png"],
            Directory.EnumerateFiles(_folder["samples"]).Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal));
        Assert.Equal((16, 16), ImageFile.ReadSize(_folder["samples", "step-000002-1.png"]));
    }

    [Theory]
    [InlineData(true, false)]
    [InlineData(false, true)]
    public void Text_encoder_or_unet_may_be_trained_alone(bool text, bool unet)
    {
        using StableDiffusionPipeline pipeline = Adapted(text, unet);
        using DiffusionTask task = Task(pipeline);
        float[][] before = [.. pipeline.Models.Values.Select(Values)];
        LoKrTrainingResult result = DiffusionTrainer.Run(pipeline, task, null, s_options with { MaxSteps = 3 }, cancellationToken: Token);
        LoKrModel[] models = [.. pipeline.Models.Values];
        Assert.Equal(text, pipeline.TextEncoder.Adapters.Count == 1);
        Assert.Equal(pipeline.TrainableParameterCount, result.TrainableParameterCount);
        for (int i = 0; i < models.Length; i++)
        {
            Assert.Equal(models[i].Adapters.Count == 0, before[i].SequenceEqual(Values(models[i])));
        }
    }

    [Fact]
    public void An_adapter_that_is_idle_or_for_inference_stays_as_it_is()
    {
        using StableDiffusionPipeline pipeline = Adapted();
        pipeline.TextEncoder.SetActiveAdapters([]);
        using DiffusionTask task = Task(pipeline);
        float[] before = Values(pipeline.TextEncoder);
        DiffusionTrainer.Run(pipeline, task, null, s_options with { MaxSteps = 2 }, cancellationToken: Token);
        Assert.Equal(before, Values(pipeline.TextEncoder));
        Assert.Null(pipeline.TextEncoder.LastTraining);
    }

    [Fact]
    public void Nothing_to_train_is_an_error_that_says_why()
    {
        using StableDiffusionPipeline none = Adapted(text: false, unet: false);
        using DiffusionTask task = Task(none);
        ErrorAssert.Throws(ErrorIds.NoAdapter, () => DiffusionTrainer.Plan(none, task, s_options), "CLIPTextModel", "UNet2DConditionModel");
        using StableDiffusionPipeline merged = Adapted(text: false);
        merged.UNet.Merge(safe: true);
        ErrorAssert.Throws(ErrorIds.AdapterNotTrainable, () => DiffusionTrainer.Plan(merged, task, s_options), "merged");
        using StableDiffusionPipeline named = Adapted();
        ErrorAssert.Throws(ErrorIds.NoAdapter, () => DiffusionTrainer.Plan(named, task, s_options with { AdapterName = "other" }), "other");
        ErrorAssert.Throws(ErrorIds.TrainingOptionInvalid, () => Task(named, new DiffusionLossOptions { CaptionDropout = 1.5 }), "CaptionDropout");
        ErrorAssert.Throws(ErrorIds.TrainingOptionInvalid, () => Task(named, new DiffusionLossOptions { MinSnrGamma = 0 }), "MinSnrGamma");
        ErrorAssert.Throws(ErrorIds.DataEmpty, () => new DiffusionTask(named, []).Dispose(), "no images");
    }

    [Fact]
    public void The_plan_counts_images_and_all_adapters()
    {
        using StableDiffusionPipeline pipeline = Adapted();
        using DiffusionTask task = Task(pipeline, count: 6, sizes: [(32, 32), (48, 16)], buckets: true);
        TrainingPlan plan = DiffusionTrainer.Plan(pipeline, task, s_options with { MaxSteps = null, Epochs = 2, BatchSize = 2 });
        Assert.Equal((6, 4, 8), (plan.RowCount, plan.BatchesPerEpoch, plan.TotalSteps));
        Assert.Equal(pipeline.TrainableParameterCount, plan.TrainableParameterCount);
        Assert.Equal("images", plan.Unit);
        Assert.Equal("default", plan.AdapterName);
    }

    [Fact]
    public void Batches_hold_images_of_one_size_and_every_image_once()
    {
        using StableDiffusionPipeline pipeline = Adapted();
        using DiffusionTask task = Task(pipeline, count: 7, sizes: [(32, 32), (48, 16), (32, 32)], buckets: true);
        BatchOrder order = new(2, Shuffle: true, Bucket: true, Seed: 4);
        DiffusionBatch[] batches = [.. task.Batches(order).Cast<DiffusionBatch>()];
        Assert.Equal(task.CountBatches(2), batches.Length);
        Assert.All(batches, batch => Assert.Single(batch.Rows.Select(row => (row.Width, row.Height)).Distinct()));
        Assert.Equal(7, batches.SelectMany(batch => batch.Rows).Select(row => row.File).Distinct().Count());
        Assert.Equal(batches.Length, batches.Select(batch => batch.Seed).Distinct().Count());
        Assert.NotEqual(batches.Select(batch => batch.Seed), task.Batches(order with { Epoch = 1 }).Cast<DiffusionBatch>().Select(batch => batch.Seed));
        Assert.Equal(batches.SelectMany(batch => batch.Rows), task.Batches(order).Cast<DiffusionBatch>().SelectMany(batch => batch.Rows));
    }

    [Fact]
    public void Weights_and_dropped_captions_enter_the_loss()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using StableDiffusionPipeline pipeline = Adapted(text: false);
        NoiseSchedule schedule = new(SchedulerSettings.Read(pipeline.SchedulerConfig, SchedulerKind.DDPM));
        Tensor latents = randn(2, 4, 8, 8);
        Tensor noise = randn(2, 4, 8, 8);
        int[] timesteps = [5, 800];
        using PromptTokens tokens = pipeline.Tokenize(["a red rack", "a blue rack"]);
        Tensor plain = DenoisingLoss.Compute(pipeline, schedule, latents, noise, timesteps, tokens);
        Tensor weighted = DenoisingLoss.Compute(pipeline, schedule, latents, noise, timesteps, tokens, minSnrGamma: 5);
        double[] weights = [.. timesteps.Select(timestep => schedule.MinSnrWeight(timestep, 5))];
        TensorAssert.Close(plain * tensor(weights).to(ScalarType.Float32), weighted, 1e-6, "weighted");
        Assert.True(weights[0] < 0.1 && weights[1] == 1);

        // Without captions it does not matter what they are; the seed of the batch is the same.
        using DiffusionTask captions = Task(pipeline);
        using DiffusionTask none = Task(pipeline, new DiffusionLossOptions { CaptionDropout = 1 });
        using DiffusionTask renamed = new(pipeline, [.. Rows(pipeline, 4).Select(row => row with { Caption = "something else" })], new DiffusionLossOptions { CaptionDropout = 1 });
        double Loss(DiffusionTask task) => task.Loss(pipeline.UNet, task.Batches(new BatchOrder(4)).First()).ToDouble();
        Assert.NotEqual(Loss(captions), Loss(none));
        Assert.Equal(Loss(none), Loss(renamed));
    }

    [Fact]
    public void Large_pipelines_train_on_their_added_conditions()
    {
        using StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["xl"], large: true));
        pipeline.UNet.AddAdapter(new LoKrConfig { R = 4, Alpha = 8, TargetModules = ModuleSelector.FromNames(["to_q", "to_v"]) }, seed: 1);
        pipeline.TextEncoder2!.AddAdapter(new LoKrConfig { R = 4, Alpha = 8, TargetModules = ModuleSelector.FromNames(["q_proj"]) }, seed: 1);
        using DiffusionTask task = Task(pipeline);
        LoKrTrainingResult result = DiffusionTrainer.Run(pipeline, task, null, s_options with { MaxSteps = 2 }, cancellationToken: Token);
        Assert.All(result.History, step => Assert.True(double.IsFinite(step.Loss)));
        GeneratedImage image = Assert.Single(ImageGenerator.Generate(pipeline, "a rack", new ImageGenerationOptions { Steps = 2, Seed = 1 }, null, Token));
        Assert.Equal((16, 16), (image.Width, image.Height));
        image.Dispose();
    }

    [Fact]
    public void Live_tensors_stay_flat_and_a_stop_keeps_whole_steps()
    {
        using StableDiffusionPipeline pipeline = Adapted();
        using DiffusionTask task = Task(pipeline);
        List<long> counts = [];
        TensorCount.Settled();
        DiffusionTrainer.Run(pipeline, task, null, s_options with { MaxSteps = 24 }, onStep: _ => counts.Add(Tensor.TotalCount), cancellationToken: Token);
        TensorCount.AssertFlat(counts, 4);

        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        LoKrTrainingResult result = DiffusionTrainer.Run(pipeline, task, null, s_options, onStep: step =>
        {
            if (step.Step == 2)
            {
                stop.Cancel();
            }
        }, cancellationToken: stop.Token);
        Assert.Equal(("Canceled", 2), (result.StopReason, result.History.Count));
        Assert.All(pipeline.Models.Values, model => Assert.False(model.Module.training));
    }

    [Fact]
    public void A_training_on_folders_is_planned_without_latents_and_runs_as_the_trainer_does()
    {
        double[] expected = Losses(s_options with { MaxSteps = 3 });
        using StableDiffusionPipeline pipeline = Adapted();
        string photos = TinyImages.Write(_folder["photos"], 4);
        SampleImages samples = new(["a red rack"], 3, _folder["new", "samples"], new ImageGenerationOptions { Steps = 1, Seed = 5 });
        ImageTraining training = ImageTraining.Read(
            pipeline, [photos], [photos], new ImageTrainingOptions { Images = s_data with { CachePath = _folder["cache"] }, Samples = samples }, Token);
        Assert.Equal((4, 3), (training.Plan(s_options with { MaxSteps = 3 }).RowCount, training.Plan(s_options with { MaxSteps = 3 }).TotalSteps));
        Assert.False(Directory.Exists(_folder["cache"]));

        List<LatentProgress> progress = [];
        IReadOnlyList<LatentCache> caches = training.ComputeLatents(progress.Add, Token);
        Assert.Equal([4, 0], caches.Select(cache => cache.ComputedCount));
        Assert.Equal(8, progress.Count);
        LoKrTrainingResult result = training.Run(s_options with { MaxSteps = 3 }, cancellationToken: Token);
        Assert.Equal(expected, result.History.Select(step => step.Loss));
        Assert.NotNull(result.After);
        Assert.Equal((16, 16), ImageFile.ReadSize(_folder["new", "samples", "step-000003-1.png"]));
        ErrorAssert.Throws(ErrorIds.TrainingOptionInvalid, () => ImageTraining.Read(pipeline, [photos], options: new ImageTrainingOptions { Samples = samples with { Every = 0 } }));
        ErrorAssert.Throws(ErrorIds.ImageSizeInvalid, () => ImageTraining.Read(pipeline, [photos], options: new ImageTrainingOptions { Images = new ImageDataOptions { Resolution = 20 } }));
    }

    [Fact]
    public void A_run_in_a_folder_that_is_canceled_goes_on_with_the_same_bits()
    {
        string photos = TinyImages.Write(_folder["photos"], 4);
        RunOptions run = new() { Path = _folder["run"] };
        (LoKrTrainingResult expected, byte[] bytes) = Train(null, null);
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        (LoKrTrainingResult first, _) = Train(run, stop);
        (LoKrTrainingResult second, byte[] resumed) = Train(run, null);
        Assert.Equal(("Canceled", 3), (first.StopReason, first.History.Count));
        Assert.Equal(expected.History.Select(step => (step.Loss, step.EvaluationLoss)), second.History.Select(step => (step.Loss, step.EvaluationLoss)));
        Assert.Equal(bytes, resumed);

        (LoKrTrainingResult Result, byte[] Bytes) Train(RunOptions? run, CancellationTokenSource? stop)
        {
            using StableDiffusionPipeline pipeline = Adapted();
            ImageTraining training = ImageTraining.Read(pipeline, [photos], [photos], new ImageTrainingOptions { Images = s_data with { CachePath = _folder["cache"] } }, Token);
            LoKrTrainingResult result = training.Run(s_options with { MaxSteps = 6, EvaluateEvery = 2 }, run, null, step => CancelAfter(step.Step, stop), stop?.Token ?? Token);
            return (result, [.. pipeline.Models.Values.SelectMany(model => model.Adapters).SelectMany(adapter => adapter.FlatParameters).SelectMany(flat => flat.Value.detach().bytes.ToArray())]);
        }

        static void CancelAfter(int step, CancellationTokenSource? stop)
        {
            if (step == 3)
            {
                stop?.Cancel();
            }
        }
    }

    [Fact]
    public void A_series_of_images_numbers_its_files_and_replaces_none_unasked()
    {
        using StableDiffusionPipeline pipeline = Adapted();
        ImageGenerationOptions options = new() { Steps = 1, Seed = 3 };
        ImageSeries series = new(_folder["rack.png"]);
        IReadOnlyList<string> first = series.Reserve(1);
        IReadOnlyList<string> next = series.Reserve(2);
        Assert.Equal([_folder["rack.png"], _folder["rack-2.png"], _folder["rack-3.png"]], [.. first, .. next]);
        LoKrPicture[] images = [.. series.Generate(pipeline, "a rack", next, options, cancellationToken: Token)];
        Assert.Equal(next, images.Select(image => image.Path));
        Assert.Equal([3L, 4], images.Select(image => image.Seed));
        ErrorAssert.Throws(ErrorIds.DestinationExists, () => series.Generate(pipeline, "a rack", next, options, cancellationToken: Token), "rack-2.png");
        Assert.Single(new ImageSeries(_folder["rack-2.png"], overwrite: true).Generate(pipeline, "a rack", [next[0]], options, cancellationToken: Token));
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => new ImageSeries(_folder["rack.jpg"]).Reserve(1), "PNG");
        ErrorAssert.Throws(ErrorIds.PathNotFound, () => new ImageSeries(_folder["none", "rack.png"]).Generate(pipeline, "x", [_folder["none", "rack.png"]], options, cancellationToken: Token));
    }

    public void Dispose()
    {
        _folder.Dispose();
        _thread.Dispose();
    }

    private static Tensor Image(StableDiffusionPipeline pipeline)
    {
        using Generator generator = new(9, CPU);
        using Tensor noise = randn([1, 4, 8, 8], generator: generator);
        return ImageGenerator.Sample(pipeline, "a red rack", new ImageGenerationOptions { Steps = 3 }, noise, () => throw new InvalidOperationException(), null, Token);
    }

    private static float[] Values(LoKrModel model)
    {
        using DisposeScope scope = NewDisposeScope();
        return [.. model.Adapters.SelectMany(adapter => adapter.GetTensors().OrderBy(entry => entry.Key, StringComparer.Ordinal)).SelectMany(entry => entry.Value.detach().data<float>().ToArray())];
    }

    private double[] Losses(TrainingOptions options, SampleImages? samples = null)
    {
        using StableDiffusionPipeline pipeline = Adapted();
        using DiffusionTask task = Task(pipeline);
        return [.. DiffusionTrainer.Run(pipeline, task, null, options, samples, cancellationToken: Token).History.Select(step => step.Loss)];
    }

    private StableDiffusionPipeline Adapted(bool text = true, bool unet = true)
    {
        StableDiffusionPipeline pipeline = StableDiffusionLoader.Load(TinyPipeline.Write(_folder["sd"]));
        LoKrConfig config = new() { R = 4, Alpha = 16 };
        if (text)
        {
            pipeline.TextEncoder.AddAdapter(config with { TargetModules = ModuleSelector.FromNames(["k_proj", "q_proj", "v_proj", "out_proj", "fc1", "fc2"]) }, seed: 1);
        }

        if (unet)
        {
            pipeline.UNet.AddAdapter(config with { TargetModules = ModuleSelector.FromNames(["proj_in", "proj_out", "to_k", "to_q", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]), UseEffectiveConv2d = true }, seed: 2);
        }

        return pipeline;
    }

    private DiffusionTask Task(
        StableDiffusionPipeline pipeline, DiffusionLossOptions? options = null, int count = 4, (int Width, int Height)[]? sizes = null, bool buckets = false) =>
        new(pipeline, Rows(pipeline, count, sizes ?? [], buckets), options);

    private IReadOnlyList<LatentRow> Rows(StableDiffusionPipeline pipeline, int count, (int Width, int Height)[]? sizes = null, bool buckets = false)
    {
        string photos = TinyImages.Write(_folder[$"photos-{count}-{sizes?.Length}"], count, sizes ?? []);
        ImageDataOptions data = s_data with { AspectBuckets = buckets, Resolution = buckets ? 32 : 16 };
        return LatentCache.Prepare(pipeline, ImageFolder.Read(photos, data, Token), data, null, Token).Rows;
    }
}
