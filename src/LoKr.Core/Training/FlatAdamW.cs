using LoKr.Core.Layers;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), with the numbers of <c>torch.optim.AdamW</c>,
/// on flat buffers: a step is about ten operations in place, whatever the number of layers, and a few more where the head has a learning rate of
/// its own. State is allocated once.
/// Parameters in half precision have a float32 copy, so that small steps are not rounded away.
/// </summary>
public sealed class FlatAdamW : IDisposable
{
    private readonly List<Slot> _slots = [];
    private readonly double _beta1;
    private readonly double _beta2;
    private readonly double _epsilon;
    private readonly double _weightDecay;

    /// <summary>Allocates the state.</summary>
    /// <param name="parameters">Buffers to train; the caller owns them.</param>
    /// <param name="beta1">Decay of the running mean of the gradient.</param>
    /// <param name="beta2">Decay of the running mean of the squared gradient.</param>
    /// <param name="epsilon">Added to the denominator.</param>
    /// <param name="weightDecay">Decoupled weight decay.</param>
    /// <param name="head">Parts of the buffers that may have a learning rate of their own, joined; null for none.</param>
    public FlatAdamW(
        IReadOnlyList<FlatParameter> parameters, double beta1 = 0.9, double beta2 = 0.999, double epsilon = 1e-8, double weightDecay = 0, IReadOnlyList<FlatRange>? head = null)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        (_beta1, _beta2, _epsilon, _weightDecay) = (beta1, beta2, epsilon, weightDecay);
        using var noGrad = no_grad();
        foreach (FlatParameter parameter in parameters)
        {
            bool half = parameter.Value.dtype is ScalarType.Float16 or ScalarType.BFloat16;
            Tensor values = half ? parameter.Value.detach().to(ScalarType.Float32).DetachFromDisposeScope() : parameter.Value;
            _slots.Add(new Slot(
                parameter,
                values,
                zeros_like(values).DetachFromDisposeScope(),
                zeros_like(values).DetachFromDisposeScope(),
                FlatPart.Divide(parameter, head ?? [])));
        }
    }

    /// <summary>
    /// The state by name, live and not copied: <c>mean.N</c> and <c>square.N</c>, and <c>master.N</c> where the parameters are in half
    /// precision, for buffer N. With <see cref="StepCount"/> it is all that the next step depends on beside the parameters.
    /// </summary>
    internal IEnumerable<(string Name, Tensor Tensor)> State => _slots.SelectMany(static (slot, index) => (IEnumerable<(string, Tensor)>)
    [
        ($"mean.{index}", slot.Mean),
        ($"square.{index}", slot.Square),
        .. ReferenceEquals(slot.Values, slot.Parameter.Value) ? ((string, Tensor)[])[] : [($"master.{index}", slot.Values)],
    ]);

    /// <summary>Number of steps that were made.</summary>
    internal int StepCount { get; set; }

    /// <summary>Bytes of optimizer state, without values and gradients, for a buffer of a number of elements.</summary>
    internal static long StateBytes(long elements, ScalarType dtype) =>
        dtype is ScalarType.Float16 or ScalarType.BFloat16 ? 12 * elements : 2 * elements * dtype.ElementSize();

    /// <summary>Computes the norm of all gradients together; reading it waits for the device.</summary>
    /// <returns>A scalar tensor of the current dispose scope.</returns>
    public Tensor GradientNorm()
    {
        using var noGrad = no_grad();
        Tensor[] norms = [.. _slots.Select(slot => slot.Parameter.Gradient.to(slot.Values.dtype).norm())];
        return norms.Length == 1 ? norms[0] : stack([.. norms.Select(norm => norm.to(ScalarType.Float32))]).norm();
    }

    /// <summary>Scales the gradients down to a maximum norm, as <c>torch.nn.utils.clip_grad_norm_</c> does.</summary>
    /// <param name="maxNorm">The norm; 0 leaves the gradients alone.</param>
    /// <param name="norm">Their norm, from <see cref="GradientNorm"/>.</param>
    public void Clip(double maxNorm, double norm)
    {
        double coefficient = maxNorm / (norm + 1e-6);
        if (maxNorm > 0 && coefficient < 1)
        {
            ScaleGradients(coefficient);
        }
    }

    /// <summary>Multiplies every gradient.</summary>
    internal void ScaleGradients(double factor)
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        foreach (Slot slot in _slots)
        {
            slot.Parameter.Gradient.mul_(factor);
        }
    }

    /// <summary>Sets every gradient to zero, in place.</summary>
    public void ZeroGradients()
    {
        using var noGrad = no_grad();
        foreach (Slot slot in _slots)
        {
            slot.Parameter.Gradient.zero_();
        }
    }

    /// <summary>Updates the parameters.</summary>
    /// <param name="learningRate">Learning rate of the step.</param>
    /// <param name="headLearningRate">That of the head; null for the same.</param>
    public void Step(double learningRate, double? headLearningRate = null)
    {
        StepCount++;
        double correction1 = 1 - Math.Pow(_beta1, StepCount);
        double correction2 = Math.Sqrt(1 - Math.Pow(_beta2, StepCount));
        double ofHead = headLearningRate ?? learningRate;
        using var noGrad = no_grad();
        foreach (Slot slot in _slots)
        {
            using var scope = NewDisposeScope();
            Tensor gradient = slot.Parameter.Gradient.to(slot.Values.dtype);
            slot.Mean.lerp_(gradient, 1 - _beta1);
            slot.Square.mul_(_beta2).addcmul_(gradient, gradient, 1 - _beta2);
            Tensor denominator = slot.Square.sqrt().div_(correction2).add_(_epsilon);
            if (ofHead == learningRate)
            {
                Update(slot.Values, slot.Mean, denominator, learningRate, correction1);
            }
            else
            {
                foreach (FlatPart part in slot.Parts)
                {
                    Update(part.Of(slot.Values), part.Of(slot.Mean), part.Of(denominator), part.IsHead ? ofHead : learningRate, correction1);
                }
            }

            if (!ReferenceEquals(slot.Values, slot.Parameter.Value))
            {
                slot.Parameter.Value.copy_(slot.Values);
            }
        }
    }

    /// <summary>Frees the state.</summary>
    public void Dispose()
    {
        foreach (Slot slot in _slots)
        {
            slot.Mean.Dispose();
            slot.Square.Dispose();
            if (!ReferenceEquals(slot.Values, slot.Parameter.Value))
            {
                slot.Values.Dispose();
            }
        }

        _slots.Clear();
    }

    private void Update(Tensor values, Tensor mean, Tensor denominator, double learningRate, double correction)
    {
        if (_weightDecay != 0)
        {
            values.mul_(1 - (learningRate * _weightDecay));
        }

        values.addcdiv_(mean, denominator, -learningRate / correction);
    }

    private sealed record Slot(FlatParameter Parameter, Tensor Values, Tensor Mean, Tensor Square, IReadOnlyList<FlatPart> Parts);

    /// <summary>A part of a buffer with one learning rate.</summary>
    private readonly record struct FlatPart(long Start, long Count, bool IsHead)
    {
        /// <summary>The parts of a buffer, in order.</summary>
        public static List<FlatPart> Divide(FlatParameter flat, IReadOnlyList<FlatRange> head)
        {
            List<FlatPart> parts = [];
            long end = 0;
            foreach (FlatRange range in head.Where(range => ReferenceEquals(range.Flat, flat)))
            {
                Add(range.Start, isHead: false);
                Add(range.Start + range.Count, isHead: true);
            }

            Add(flat.Value.numel(), isHead: false);
            return parts;

            void Add(long to, bool isHead)
            {
                if (to > end)
                {
                    parts.Add(new(end, to - end, isHead));
                    end = to;
                }
            }
        }

        public Tensor Of(Tensor flat) => flat.narrow(0, Start, Count);
    }
}
