using System.Text;
using LoKr.Core.Distributed;
using LoKr.Core.Layers;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// The gradient of a step: the sum of those of its batches, along a binary tree over their index (<see cref="TreeSum"/>). So one process, and any number
/// of workers that have a share of the batches each, add the same numbers in the same order.
/// </summary>
/// <param name="parameters">What is trained.</param>
/// <param name="workers">The workers that share the batches; null for one process.</param>
internal sealed class StepGradients(IReadOnlyList<FlatParameter> parameters, WorkerGroup? workers)
{
    /// <summary>Why the workers end after the step: what the first of them said that has a reason. Empty while they go on.</summary>
    public string StopReason { get; set; } = "";

    /// <summary>Computes the gradient of a step into the flat parameters.</summary>
    /// <param name="count">Number of batches.</param>
    /// <param name="backward">Runs the backward pass of a batch, onto gradients of zero; returns its loss: float32, a scalar, detached.</param>
    /// <param name="stopReason">Why this worker would end after the step; empty where it would not.</param>
    /// <returns>The sum of the losses, a scalar.</returns>
    public Tensor Sum(int count, Func<int, Tensor> backward, Func<string> stopReason)
    {
        if (workers is null && count == 1)
        {
            return One(0, backward);
        }

        Terms sum = workers is null ? Compute(new(0, count), backward) : Together(workers, count, backward, stopReason);
        using var noGrad = no_grad();
        foreach ((FlatParameter flat, Tensor gradient) in parameters.Zip(sum.Gradients))
        {
            flat.Gradient.copy_(gradient);
        }

        sum.DisposeGradients();
        return sum.Loss;
    }

    private static Terms Add(Terms left, Terms right)
    {
        using var noGrad = no_grad();
        left.Loss.add_(right.Loss);
        foreach ((Tensor to, Tensor from) in left.Gradients.Zip(right.Gradients))
        {
            to.add_(from);
        }

        right.DisposeGradients();
        return left;
    }

    private Tensor One(int index, Func<int, Tensor> backward)
    {
        foreach (FlatParameter flat in parameters)
        {
            flat.Gradient.zero_();
        }

        return backward(index);
    }

    private Terms Compute(TermRange node, Func<int, Tensor> backward) =>
        TreeSum.Sum(node, one => one.Count == 1 ? new Terms(One(one.Start, backward), [.. parameters.Select(static flat => flat.Gradient.clone())]) : null, Add);

    private Terms Together(WorkerGroup group, int count, Func<int, Tensor> backward, Func<string> stopReason)
    {
        Terms[] mine = [.. TreeSum.NodesOf(count, TreeSum.ShareOf(count, group.Rank, group.Size)).Select(node => Compute(node, backward))];
        WorkerMessages messages = group.Exchange(WorkerCall.Step, [.. TensorBytes.Join(mine.SelectMany(static terms => terms.All)), .. Encoding.UTF8.GetBytes(stopReason())]);
        string[] reasons = new string[group.Size];
        Dictionary<TermRange, Terms> known = [];
        for (int rank = 0; rank < group.Size; rank++)
        {
            TensorBytes.Reader reader = new(messages[rank]);
            foreach (TermRange node in TreeSum.NodesOf(count, TreeSum.ShareOf(count, rank, group.Size)))
            {
                known.Add(node, new(reader.Next([], ScalarType.Float32, parameters[0].Value.device),
                    [.. parameters.Select(flat => reader.Next(flat.Value.shape, flat.Value.dtype, flat.Value.device))]));
            }

            reasons[rank] = Encoding.UTF8.GetString(reader.Rest.Span);
        }

        StopReason = reasons.FirstOrDefault(static reason => reason.Length > 0, "");
        Array.ForEach(mine, static terms => terms.DisposeGradients());
        return TreeSum.Sum(new(0, count), known.GetValueOrDefault, Add);
    }

    /// <summary>The sum over some batches.</summary>
    private sealed record Terms(Tensor Loss, Tensor[] Gradients)
    {
        public IEnumerable<Tensor> All => Gradients.Prepend(Loss);

        // The loss is read with the rest of the step; gradients are large, and gone when they are added.
        public void DisposeGradients() => Array.ForEach(Gradients, static gradient => gradient.Dispose());
    }
}

/// <summary>Values of tensors as bytes, for other workers.</summary>
internal static class TensorBytes
{
    /// <summary>The values of tensors, one after the other.</summary>
    public static byte[] Join(IEnumerable<Tensor> tensors)
    {
        Tensor[] all = [.. tensors];
        byte[] bytes = new byte[all.Sum(static tensor => tensor.numel() * tensor.element_size())];
        int offset = 0;
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        foreach (Tensor tensor in all)
        {
            Span<byte> values = tensor.detach().cpu().contiguous().bytes;
            values.CopyTo(bytes.AsSpan(offset));
            offset += values.Length;
        }

        return bytes;
    }

    /// <summary>Reads them one by one.</summary>
    /// <param name="bytes">The bytes.</param>
    public sealed class Reader(ReadOnlyMemory<byte> bytes)
    {
        private int _offset;

        /// <summary>The bytes behind the values that were read.</summary>
        public ReadOnlyMemory<byte> Rest => bytes[_offset..];

        /// <summary>The next values, as a tensor of the current dispose scope.</summary>
        public Tensor Next(long[] shape, ScalarType dtype, Device device)
        {
            Tensor values = empty(shape, dtype);
            Span<byte> memory = values.bytes;
            bytes.Span.Slice(_offset, memory.Length).CopyTo(memory);
            _offset += memory.Length;
            return values.to(device);
        }
    }
}
