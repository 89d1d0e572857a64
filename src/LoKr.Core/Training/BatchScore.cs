using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>What an evaluation adds up for one batch; stays on the device until the end.</summary>
/// <param name="LossSum">Sum (not mean) of the loss over <see cref="TrainingBatch.LossCount"/> items, a scalar.</param>
/// <param name="Correct">Number of right answers, a scalar; null where the task has none.</param>
public readonly record struct BatchScore(torch.Tensor LossSum, torch.Tensor? Correct = null);
