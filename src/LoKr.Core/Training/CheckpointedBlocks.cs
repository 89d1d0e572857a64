using LoKr.Core.Errors;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Gradient checkpointing in the models of a run while it lasts.</summary>
internal sealed class CheckpointedBlocks : IDisposable
{
    private readonly ICheckpointedBlocks[] _stacks;
    private readonly ActivationCheckpoints _checkpoints;

    /// <summary>Switches it on, for what takes gradients now.</summary>
    public CheckpointedBlocks(IReadOnlyList<Trainee> trainees)
    {
        _stacks = [.. Stacks(trainees)];
        _checkpoints = new(trainees.SelectMany(static trainee => Modules(trainee)
            .Where(static module => module.parameters(recurse: false).Any(static parameter => parameter.requires_grad))
            .Concat(trainee.Adapter.Layers.Select(static layer => layer.BaseLayer.Module))));
        Set(_checkpoints);
    }

    /// <summary>Throws when no model can do it.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>.</exception>
    public static void Require(IReadOnlyList<Trainee> trainees)
    {
        if (!Stacks(trainees).Any())
        {
            throw new LoKrException(
                ErrorIds.TrainingOptionInvalid,
                LoKrErrorKind.InvalidArgument,
                $"GradientCheckpointing is on, but {string.Join(", ", trainees.Select(static trainee => trainee.Model.Name))} has no blocks that can run twice.",
                "Train without it; with a smaller batch and GradientAccumulation where memory is short.") { Target = nameof(TrainingOptions.GradientCheckpointing) };
        }
    }

    /// <summary>After the backward pass of a loss: on through the blocks.</summary>
    public void Backward() => _checkpoints.Backward();

    /// <inheritdoc/>
    public void Dispose()
    {
        Set(null);
        _checkpoints.Dispose();
    }

    private static IEnumerable<nn.Module> Modules(Trainee trainee) => trainee.Model.Module.modules().Prepend(trainee.Model.Module);

    private static IEnumerable<ICheckpointedBlocks> Stacks(IReadOnlyList<Trainee> trainees) =>
        trainees.SelectMany(Modules).OfType<ICheckpointedBlocks>().Distinct();

    private void Set(ActivationCheckpoints? checkpoints)
    {
        foreach (ICheckpointedBlocks stack in _stacks)
        {
            stack.Checkpoints = checkpoints;
        }
    }
}
