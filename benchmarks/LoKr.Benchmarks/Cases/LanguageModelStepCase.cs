using System.Globalization;
using System.Text.Json.Nodes;
using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using LoKr.Core.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>
/// Whole training steps of a language model in the shape of ../shared/models/debian-lm: ours with LoKr, and the operations of transformers with PEFT's
/// LoRA of equal rank. With factors of zero both have the same loss; the case fails otherwise.
/// </summary>
internal sealed class LanguageModelStepCase : IBenchmarkCase
{
    private const int Rank = 8;
    private const int BatchSize = 16;
    private const int ProbeSteps = 4;
    private const string Ours = "LoKr";
    private const string Theirs = "PEFT's LoRA";

    private static readonly JsonObject s_config = JsonNode.Parse("""
        {"model_type": "llama", "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 8,
         "num_key_value_heads": 4, "head_dim": 32, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
         "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
        """)!.AsObject();

    /// <inheritdoc/>
    public string Name => "language-model-step";

    /// <inheritdoc/>
    public string Title => $"training step of a Llama of 6 layers of 256, 4,096 tokens, on all linear layers, batch of {BatchSize}, rank {Rank}";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        string folder = RandomModel.Write(Path.Combine(context.Directory, "llama"), s_config);
        Compare(context, folder, "128 tokens a row, loss on all", 0, 128);
        Compare(context, folder, "33 tokens a row, loss on 14", 19, 14);
    }

    /// <summary>Runs a few steps of one side and prints the peak memory of this process.</summary>
    public static void RunProbe(string folder, string side, int prompt, int completion)
    {
        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = NewDisposeScope();
        using Side measured = Load(side, folder, CPU, RandomModel.Texts(BatchSize, prompt, completion, (int)s_config["vocab_size"]!));
        for (int i = 0; i < ProbeSteps; i++)
        {
            measured.Step();
        }

        Console.WriteLine(PeakMemory.Peak);
    }

    private static void Compare(BenchmarkContext context, string folder, string name, int prompt, int completion)
    {
        using DisposeScope scope = NewDisposeScope();
        LanguageTexts texts = RandomModel.Texts(BatchSize, prompt, completion, (int)s_config["vocab_size"]!);
        using Side ours = Load(Ours, folder, context.Device, texts);
        using Side theirs = Load(Theirs, folder, context.Device, texts);
        if (!(Math.Abs(ours.BaseLoss - theirs.BaseLoss) <= 1e-4 * theirs.BaseLoss))
        {
            throw new InvalidOperationException($"The losses differ: {ours.BaseLoss} and {theirs.BaseLoss}.");
        }

        context.Compare(name, [new(Ours, ours.Step), new(Theirs, theirs.Step)], [new(Ours, Theirs, 1)], weight: 3);
        if (PeakMemory.Peak > 0 && context.Device.type == DeviceType.CPU)
        {
            (long ourPeak, long theirPeak) = (Probe(Ours), Probe(Theirs));
            context.Note($"peak memory of a process of its own: {Ours} {PeakMemory.Format(ourPeak)}, {Theirs} {PeakMemory.Format(theirPeak)}");
            double ratio = ourPeak / (double)theirPeak;
            context.Report(new(name, new("LoKr's memory", "PEFT's LoRA's", 1), ratio, ratio, ratio));
        }

        long Probe(string side) => ProbeProcess.Run(
            new Dictionary<string, string>(), "language-model-step", folder, side, prompt.ToString(CultureInfo.InvariantCulture), completion.ToString(CultureInfo.InvariantCulture))[0];
    }

    private static Side Load(string side, string folder, Device device, LanguageTexts texts)
    {
        LoKrModel model = RandomModel.Load(folder, device);
        if (side == Theirs)
        {
            TransformersLlama llama = new(model, s_config, Rank, 2);
            (Tensor ids, Tensor labels) = (texts.Ids.to(device), texts.Labels.to(device));
            return Create(llama.Parameters, () => llama.Loss(ids, labels), llama, model);
        }

        Adapters.Fill(model.AddAdapter(new() { R = Rank, Alpha = 2 * Rank, TargetModules = ModuleSelector.FromPattern("all-linear") }));
        ITrainingTask task = TrainingTaskFactory.Create(model, texts.Rows, (int)texts.Ids.shape[1]);
        TrainingBatch batch = task.Batches(new BatchOrder(BatchSize)).Single();
        model.Module.train();
        return Create(model.Adapters[0].FlatParameters[0], () => task.Loss(model, batch), task, model);
    }

    private static Side Create(FlatParameter factors, Func<Tensor> loss, params IDisposable[] parts)
    {
        FlatAdamW optimizer = new([factors]);
        return new(() => TrainingStep.Run(optimizer, loss), BaseLoss(factors.Value, loss), [optimizer, .. parts]);
    }

    private static double BaseLoss(Tensor factors, Func<Tensor> loss)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        Tensor kept = factors.detach().clone();
        factors.zero_();
        double value = loss().ToDouble();
        factors.copy_(kept);
        return value;
    }

    /// <summary>One side of the comparison.</summary>
    /// <param name="Step">Makes a step.</param>
    /// <param name="BaseLoss">The loss with factors of zero.</param>
    /// <param name="Parts">What the step needs.</param>
    private sealed record Side(Action Step, double BaseLoss, IReadOnlyList<IDisposable> Parts) : IDisposable
    {
        public void Dispose()
        {
            foreach (IDisposable part in Parts)
            {
                part.Dispose();
            }
        }
    }
}
