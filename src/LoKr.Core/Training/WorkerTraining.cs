using System.Security.Cryptography;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Common work of the workers of a training beside its steps: they begin with the same values, and check now and then that they still have the same.</summary>
/// <param name="workers">The workers.</param>
/// <param name="trainees">What is trained.</param>
/// <param name="tensors">All tensors on which the next step depends.</param>
internal sealed class WorkerTraining(WorkerGroup workers, IReadOnlyList<Trainee> trainees, TrainingTensors tensors)
{
    /// <summary>Steps between comparisons of the trained values.</summary>
    public const int CompareEvery = 100;

    private const int HashLength = 8;

    /// <summary>Gives all workers the state and the tensors of the first one: random initial values, or those of a checkpoint.</summary>
    /// <param name="own">The state of this worker.</param>
    /// <returns>The state to go on with; null for the first worker, which has it.</returns>
    public TrainingState? Begin(TrainingState own)
    {
        TrainingState first = workers.RecordOfFirst(WorkerCall.Begin, "the state", own)!;
        Share(tensors.Live.OrderBy(static pair => pair.Key, StringComparer.Ordinal).Select(static pair => pair.Value), workers);
        return workers.IsFirst ? null : first with { Tensors = tensors.Live };
    }

    /// <summary>Gives tensors the values that the first worker has.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.WorkersDiffer"/>: the tensors are not of the same size.</exception>
    public static void Share(IEnumerable<Tensor> values, WorkerGroup workers)
    {
        Tensor[] all = [.. values];
        WorkerMessages messages = workers.Exchange(WorkerCall.Begin, BitConverter.GetBytes(all.Sum(static tensor => tensor.numel() * tensor.element_size())));
        if (FirstOther(messages, workers) is int other)
        {
            throw workers.Differ(other, FormattableString.Invariant($"worker {other} trains a different number of parameters"));
        }

        using var noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        TensorBytes.Reader reader = new(workers.FromFirst(WorkerCall.Begin, workers.IsFirst ? TensorBytes.Join(all) : default).ToArray());
        foreach (Tensor tensor in workers.IsFirst ? [] : all)
        {
            tensor.copy_(reader.Next(tensor.shape, tensor.dtype, tensor.device));
        }
    }

    /// <summary>Compares the trained values of all workers, after the first step and the last and some in between.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.WorkersDiffer"/>, naming the first layer that differs.</exception>
    public void CompareIfDue(LoKrTrainingStep step)
    {
        if (step.Step != 1 && step.Step != step.TotalSteps && step.Step % CompareEvery != 0)
        {
            return;
        }

        using DisposeScope scope = NewDisposeScope();
        if (FirstOther(workers.Exchange(WorkerCall.Compare, ModelHash.BytesOfValues(trainees.SelectMany(static trainee => trainee.Adapter.FlatParameters))), workers) is null)
        {
            return;
        }

        KeyValuePair<string, Tensor>[] parts = [.. trainees.SelectMany(static trainee => trainee.Adapter.GetTensors())];
        WorkerMessages hashes = workers.Exchange(WorkerCall.Compare, [.. parts.SelectMany(static part => SHA256.HashData(TensorBytes.Join([part.Value])).Take(HashLength))]);
        int other = FirstOther(hashes, workers)!.Value;
        int first = hashes[0].Span.CommonPrefixLength(hashes[other].Span) / HashLength;
        throw workers.Differ(other, FormattableString.Invariant($"after step {step.Step} '{parts[first].Key}' has other values on worker {other} than on worker 0"));
    }

    /// <summary>Stops the other workers too where this one alone was canceled.</summary>
    /// <param name="exception">What ended the training.</param>
    public void Stop(OperationCanceledException exception)
    {
        if (exception is not WorkersStoppedException)
        {
            workers.Stop("");
        }
    }

    private static int? FirstOther(WorkerMessages messages, WorkerGroup workers)
    {
        int other = Enumerable.Range(0, workers.Size).FirstOrDefault(rank => !messages[rank].Span.SequenceEqual(messages[0].Span), -1);
        return other < 0 ? null : other;
    }
}
