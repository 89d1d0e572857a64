using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>Whole training steps of an encoder: LoKr and LoRA on all linear layers with the head, and the head alone.</summary>
internal sealed class TrainingStepCase : IBenchmarkCase
{
    private const string Head = "classifier";
    private const int Rank = 8;

    /// <inheritdoc/>
    public string Name => "training-step";

    /// <inheritdoc/>
    public string Title => "training step of MiniLM-L6 on all linear layers, batch 16 x 64 tokens, rank 8";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        string? folder = FindModel();
        if (folder is null)
        {
            context.Note("Left out: ../shared/models/minilm is not there.");
            return;
        }

        using DisposeScope scope = NewDisposeScope();
        using LoKrModel lokrModel = Load(folder);
        using LoKrModel loraModel = Load(folder);
        using LoKrModel headModel = Load(folder);
        Tensor ids = randint(1000, 20000, [16, 64], device: context.Device);
        Tensor mask = ones_like(ids);
        Tensor labels = randint(0, 2, [16], device: context.Device);

        Adapters.Fill(lokrModel.AddAdapter(new() { R = Rank, Alpha = 2 * Rank, TargetModules = ModuleSelector.FromPattern("all-linear"), ModulesToSave = [Head] }));
        using FlatAdamW lokrOptimizer = new(lokrModel.Adapters[0].FlatParameters);

        // The head as a saved module of an adapter without layers: the same flat buffer in all three.
        LoKrConfig headOnly = new() { TargetModules = ModuleSelector.FromNames([]), ModulesToSave = [Head] };
        FlatParameter loraHead = loraModel.AddAdapter(headOnly).FlatParameters[0];
        string[] adapted = [.. lokrModel.Adapters[0].Layers.Select(static layer => layer.ModuleName)];
        using LoraReference lora = LoraReference.On(loraModel, adapted, Rank, 2);
        using FlatAdamW loraOptimizer = new([lora.Parameters, loraHead]);
        using FlatAdamW headOptimizer = new(headModel.AddAdapter(headOnly).FlatParameters);

        foreach (LoKrModel model in (LoKrModel[])[lokrModel, loraModel, headModel])
        {
            model.Module.train();
        }

        context.Compare(
            $"MiniLM-L6, {adapted.Length} layers",
            [
                new("LoKr", () => Step(lokrModel, lokrOptimizer, ids, mask, labels)),
                new("LoKr, checkpointing", () => CheckpointedStep(lokrModel, lokrOptimizer, ids, mask, labels)),
                new("LoRA", () => Step(loraModel, loraOptimizer, ids, mask, labels)),
                new("head alone", () => Step(headModel, headOptimizer, ids, mask, labels)),
            ],
            [new("LoKr", "LoRA", 1.05), new("LoKr", "head alone", 2.2), new("LoKr, checkpointing", "LoKr")],
            weight: 3);
    }

    internal static string? FindModel()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            string candidate = Path.Combine(folder.FullName, "shared", "models", "minilm");
            if (Directory.Exists(candidate))
            {
                return candidate;
            }
        }

        return null;
    }

    private static LoKrModel Load(string folder) => ModelLoader.Load(folder, new() { Labels = ["negative", "positive"] });

    private static void CheckpointedStep(LoKrModel model, FlatAdamW optimizer, Tensor ids, Tensor mask, Tensor labels)
    {
        ICheckpointedBlocks blocks = model.Module.modules().OfType<ICheckpointedBlocks>().Single();
        using ActivationCheckpoints checkpoints = new(model.Adapters[0].Layers.Select(static layer => layer.Module));
        blocks.Checkpoints = checkpoints;
        Step(model, optimizer, ids, mask, labels, checkpoints);
        blocks.Checkpoints = null;
    }

    private static void Step(LoKrModel model, FlatAdamW optimizer, Tensor ids, Tensor mask, Tensor labels, ActivationCheckpoints? checkpoints = null) =>
        TrainingStep.Run(optimizer, () => nn.functional.cross_entropy(((ISequenceClassifier)model.Module).Classify(ids, mask), labels), () => checkpoints?.Backward());
}
