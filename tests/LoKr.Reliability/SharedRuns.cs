using System.Globalization;
using System.Security.Cryptography;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Distributed;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Testing;

namespace LoKr.Reliability;

/// <summary>Trainings that several processes share: one of each kind, with all that could make their numbers depend on who computes what.</summary>
internal static class SharedRuns
{
    private static readonly TrainingOptions s_options = new()
    {
        Epochs = 2, BatchSize = 4, GradientAccumulation = 5, LearningRate = 1e-2, WeightDecay = 0.01, Seed = 5, EvaluateEvery = 2, KeepBest = true,
    };

    /// <summary>Writes models and data.</summary>
    public static void Prepare(string root)
    {
        KilledRun.Prepare(root);
        TinyModel.WriteLlama(Path.Combine(root, "llama"));
        TinyPipeline.Write(Path.Combine(root, "pipeline"));
        TinyImages.Write(Path.Combine(root, "images"), 6, (24, 16), (16, 16));
        TinyData.WriteCompletions(Path.Combine(root, "completions.jsonl"), 41);

        // The latents: one process computes them, the others read them.
        using StableDiffusionPipeline pipeline = Pipeline(root);
        Images(root, pipeline).ComputeLatents();
    }

    /// <summary>Trains all, and writes a line with the hashes of what came out on the first worker, or on the only one.</summary>
    public static void Train(string root, DistributedMode mode)
    {
        WorkerGroup? workers = WorkerGroup.Join(mode);
        TrainingOptions options = s_options with { Workers = workers };
        string classifier = Classifier(root, options);
        string language = Language(root, options);
        string images = Diffusion(root, options);
        if (workers is null or { IsFirst: true })
        {
            Console.WriteLine($"{workers?.Size ?? 1} {workers?.Transport ?? "alone"}: {classifier} {language} {images}");
        }
    }

    // A saved head, module and rank dropout, texts of different lengths.
    private static string Classifier(string root, TrainingOptions options)
    {
        using LoKrModel model = ModelLoader.Load(Path.Combine(root, "model"), new() { Labels = TinyData.Labels, Seed = 1 });
        model.AddAdapter(new LoKrConfig
        {
            R = 2, Alpha = 4, ModuleDropout = 0.1, RankDropout = 0.1, TargetModules = ModuleSelector.FromNames(["query", "value"]), TaskType = TaskType.SequenceClassification,
        }, seed: Own(options));
        using ITrainingTask task = TrainingTaskFactory.Create(model, DataReader.ReadFile(Path.Combine(root, "train.jsonl")));
        using ITrainingTask validation = TrainingTaskFactory.Create(model, DataReader.ReadFile(Path.Combine(root, "eval.jsonl")));
        LoKrTrainingResult result = RunRecorder.Train(null, model, task, validation, options, null, null, null, CancellationToken.None);
        LoKrEvaluation evaluation = Evaluator.Evaluate(model, validation, 3, options.Workers, null, CancellationToken.None);
        return string.Create(CultureInfo.InvariantCulture, $"{Hash(model)}/{result.After!.Loss:R}/{evaluation.Loss:R}/{evaluation.F1:R}");
    }

    private static string Language(string root, TrainingOptions options)
    {
        using LoKrModel model = ModelLoader.Load(Path.Combine(root, "llama"), new());
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["q_proj", "v_proj"]), RankDropout = 0.2 }, seed: Own(options));
        using ITrainingTask task = TrainingTaskFactory.Create(model, DataReader.ReadFile(Path.Combine(root, "completions.jsonl")));
        Trainer.Run(model, task, null, options with { KeepBest = false, EvaluateEvery = null, GradientCheckpointing = true });
        return Hash(model);
    }

    private static string Diffusion(string root, TrainingOptions options)
    {
        using StableDiffusionPipeline pipeline = Pipeline(root);
        pipeline.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["to_q", "to_v", "q_proj"]), ModuleDropout = 0.1 }, seed: Own(options));
        Images(root, pipeline).Run(options with { BatchSize = 1, KeepBest = false, EvaluateEvery = null, GradientAccumulation = 4 });
        return string.Join('+', pipeline.Models.Values.Where(static model => model.Adapters.Count > 0).Select(Hash));
    }

    private static StableDiffusionPipeline Pipeline(string root) => StableDiffusionLoader.Load(Path.Combine(root, "pipeline"));

    private static ImageTraining Images(string root, StableDiffusionPipeline pipeline) => ImageTraining.Read(pipeline, [Path.Combine(root, "images")], [], new()
    {
        Images = new() { Resolution = 16, AspectBuckets = true, CachePath = Path.Combine(root, "latents") },
        Loss = new() { CaptionDropout = 0.2 },
    });

    // Every worker draws other values; all begin with those of the first.
    private static long Own(TrainingOptions options) => 1 + (options.Workers?.Rank ?? 0);

    private static string Hash(LoKrModel model) => Convert.ToHexString(SHA256.HashData([.. model.Adapters.SelectMany(static adapter => adapter.FlatParameters).SelectMany(static flat => flat.Value.detach().bytes.ToArray())]))[..16];
}
