using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>Lets only one adapter of a model take gradients, its copies of saved modules included, until disposed.</summary>
internal sealed class TrainableOnly : IDisposable
{
    private readonly LoKrModel _model;
    private readonly (LoKrAdapter Adapter, bool Trainable)[] _before;

    public TrainableOnly(LoKrModel model, LoKrAdapter trained)
    {
        _model = model;
        _before = [.. model.Adapters.Select(static adapter => (adapter, adapter.IsTrainable))];
        foreach (LoKrAdapter adapter in model.Adapters)
        {
            Set(adapter, ReferenceEquals(adapter, trained));
        }
    }

    public void Dispose()
    {
        foreach ((LoKrAdapter adapter, bool trainable) in _before)
        {
            if (_model.Adapters.Contains(adapter))
            {
                Set(adapter, trainable);
            }
        }
    }

    private void Set(LoKrAdapter adapter, bool trainable)
    {
        if (adapter.IsTrainable != trainable)
        {
            _model.SetAdapterTrainable(adapter.Name, trainable);
        }
    }
}

/// <summary>A copy of the trained parameters beside those that the optimizer changes: the values that last gave a finite loss, or those of the best evaluation.</summary>
internal sealed class KeptValues : IDisposable
{
    private readonly (Tensor Current, Tensor Kept)[] _values;
    private readonly string _name;

    /// <summary>Keeps the values of now.</summary>
    /// <param name="parameters">The trained parameters.</param>
    /// <param name="name">What the values are, for <see cref="State"/>.</param>
    public KeptValues(IEnumerable<FlatParameter> parameters, string name)
    {
        using var noGrad = no_grad();
        _name = name;
        _values = [.. parameters.Select(static flat => (flat.Value, flat.Value.clone().DetachFromDisposeScope()))];
    }

    /// <summary>The kept values by name, live and not copied.</summary>
    public IEnumerable<(string Name, Tensor Tensor)> State => _values.Select((value, index) => ($"{_name}.{index}", value.Kept));

    /// <summary>Bytes for a buffer of a number of elements.</summary>
    public static long Bytes(long elements, ScalarType dtype) => elements * dtype.ElementSize();

    /// <summary>Keeps the values of now: one copy for each buffer.</summary>
    public void Store()
    {
        using var noGrad = no_grad();
        foreach ((Tensor current, Tensor kept) in _values)
        {
            kept.copy_(current);
        }
    }

    /// <summary>Puts the kept values back.</summary>
    public void Restore()
    {
        using var noGrad = no_grad();
        foreach ((Tensor current, Tensor kept) in _values)
        {
            current.copy_(kept);
        }
    }

    /// <summary>Whether every value of now is finite; it waits for the device.</summary>
    public bool AreCurrentFinite()
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        return _values.All(static value => value.Current.isfinite().all().item<bool>());
    }

    /// <inheritdoc/>
    public void Dispose() => Array.ForEach(_values, static value => value.Kept.Dispose());
}

/// <summary>Runs the blocks of the models with gradient checkpointing until disposed.</summary>
internal sealed class CheckpointedBlocks : IDisposable
{
    private readonly ICheckpointedBlocks[] _stacks;
    private readonly ActivationCheckpoints _checkpoints;

    /// <summary>Switches gradient checkpointing on for the parameters that take gradients now.</summary>
    public CheckpointedBlocks(IReadOnlyList<Trainee> trainees)
    {
        _stacks = [.. Stacks(trainees)];
        _checkpoints = new(trainees.SelectMany(static trainee => Modules(trainee)
            .Where(static module => module.parameters(recurse: false).Any(static parameter => parameter.requires_grad))
            .Concat(trainee.Adapter.Layers.Select(static layer => layer.BaseLayer.Module))));
        Set(_checkpoints);
    }

    /// <summary>Throws where no model has blocks that can run twice.</summary>
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

    /// <summary>Continues the backward pass of a loss through the blocks.</summary>
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

/// <summary>
/// Puts models into evaluation mode until disposed, on the same thread; then every module returns to the mode it was in. Meanwhile no other thread
/// may train or change them.
/// </summary>
public sealed class EvaluationMode : IDisposable
{
    private readonly ModelUses _uses;
    private readonly ModuleModes[] _modes;

    /// <summary>Puts every module of the models into evaluation mode.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelBusy"/>, <see cref="ErrorIds.ModelDisposed"/>.</exception>
    public EvaluationMode(IEnumerable<LoKrModel> models)
    {
        LoKrModel[] all = [.. models];
        _uses = ModelUses.Run(all, "run");
        _modes = [.. all.Select(model => new ModuleModes(model.Module))];
        Array.ForEach(all, static model => model.Module.eval());
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Array.ForEach(_modes, static modes => modes.Dispose());
        _uses.Dispose();
    }
}

/// <summary>
/// Finds adapted layers that never run, because their module is called through <c>forward</c> or only its weights are used: hooks do not
/// fire there, and the adapter would silently stay unchanged.
/// </summary>
/// <param name="adapter">The adapter.</param>
/// <param name="idle">Full names of modules that need not run.</param>
internal sealed class CallCheck(LoKrAdapter adapter, IReadOnlyList<string> idle)
{
    private readonly (LoKrLayer Layer, long Before)[] _layers = [.. adapter.Layers.Where(layer => !idle.Contains(layer.ModuleName, StringComparer.Ordinal)).Select(layer => (layer, layer.CallCount))];

    /// <summary>Throws when a layer has not run since this object was created.</summary>
    public void Require()
    {
        string[] silent = [.. _layers.Where(entry => entry.Layer.CallCount == entry.Before).Select(entry => entry.Layer.ModuleName)];
        if (silent.Length == 0)
        {
            return;
        }

        string named = string.Join(", ", silent.Take(10)) + (silent.Length > 10 ? ", …" : "");
        throw new LoKrException(
            ErrorIds.AdapterNotCalled,
            LoKrErrorKind.InvalidOperation,
            $"{silent.Length} of {_layers.Length} adapted layers did not run in the first step: {named}.",
            "Call modules with call(), not forward(), so that the adapter's hook runs; or exclude layers that the loss does not use.")
        { Target = silent };
    }
}
