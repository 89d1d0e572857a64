// Teaches a small encoder to sort support tickets: adds an adapter, trains it, and exports it as PEFT does.
// dotnet run --project examples/csharp -- [examples folder] [destination]
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Inference;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Models.Loading;

string examples = args.Length > 0 ? args[0] : "examples";
string destination = args.Length > 1 ? args[1] : Path.Combine(Path.GetTempPath(), "ticket-adapter");
string[] labels = ["access", "billing", "email", "hardware", "network", "software"];

// Loads libtorch too. A program that uses TorchSharp's own functions before calls TorchRuntime.EnsureLoaded() first.
using LoKrModel model = ModelLoader.Load(Path.Combine(examples, "models", "tiny-encoder"), new ModelLoadOptions { Labels = labels, Seed = 1 });
model.AddAdapter(
    new LoKrConfig { R = 8, Alpha = 16, TargetModules = ModuleSelector.FromPattern("all-linear") },
    seed: 1);

using ITrainingTask training = TrainingTaskFactory.Create(model, DataReader.ReadFile(Path.Combine(examples, "data", "tickets.train.jsonl")));
using ITrainingTask evaluation = TrainingTaskFactory.Create(model, DataReader.ReadFile(Path.Combine(examples, "data", "tickets.eval.jsonl")));
TrainingOptions options = new() { Epochs = 5, LearningRate = 5e-3, WarmupRatio = 0.06, Seed = 1 };
Trainer.Run(model, training, evaluation, options, step =>
{
    if (step.Accuracy is double accuracy)
    {
        Console.WriteLine(FormattableString.Invariant($"epoch {step.Epoch:N1}  loss {step.EvaluationLoss:N3}  accuracy {accuracy:P1}"));
    }
});

LoKrClassification answer = TextClassifier.Classify(model, ["The projector in the lecture hall has a burnt-out lamp."]).Single();
Console.WriteLine(FormattableString.Invariant($"{answer.Label} {answer.Score:P0}  {answer.Text}"));
AdapterExporter.Export(model, "default", destination, AdapterLayout.Peft, new AdapterWriteOptions { Force = true });
Console.WriteLine($"Adapter written to {destination}");
