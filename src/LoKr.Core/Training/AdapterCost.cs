using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>
/// Cost of an adapter on a model: parameters, memory and multiply-adds of a training step. Shapes alone are read; no factor is
/// allocated, and the model may be one without weights, on <c>meta</c>.
/// </summary>
public static class AdapterCosts
{
    /// <summary>Measures a configuration on a model or on the components of a pipeline.</summary>
    /// <param name="target">The model or the pipeline; its own adapters play no part.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="tokens">Tokens in a batch. The cheapest order of contractions depends on it, and what is done once a step is divided by it.</param>
    /// <exception cref="LoKrException">As for adding the adapter.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The number of tokens is not positive.</exception>
    public static AdapterCost Measure(IAdaptable target, LoKrConfig config, long tokens = 512)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(config);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(tokens);
        List<LoKrModuleCost> modules = [];
        LoKrConfig? resolved = null;
        List<string> warnings = [];
        foreach ((string component, AdapterPlan plan) in target.PlanAdapter(config))
        {
            resolved ??= plan.Config;
            warnings.AddRange(plan.Warnings);
            modules.AddRange(plan.Layers.Select(layer => Describe(component, layer, tokens)));
            modules.AddRange(plan.Norms.Select(norm => Describe(component, norm.Name, norm.Module, LoKrModuleRole.Norm, norm.Tensors.Select(tensor => (tensor.Shape.Product(), norm.ChangeType)))));
            modules.AddRange(plan.SavedModules.Select(module => Describe(component, module.Name, module.Module, LoKrModuleRole.Saved,
                ModuleTree.Parameters(module.Module).Select(static entry => (entry.Parameter.numel(), entry.Parameter.dtype)))));
        }

        double work = modules.Sum(static module => module.MultiplyAdds);
        double model = target.Models.Values.Sum(ModelWork);
        return new(
            new()
            {
                Model = target.Name,
                SourcePath = target.SourcePath,
                R = config.R,
                Alpha = config.Alpha,
                DecomposeFactor = config.DecomposeFactor,
                TargetModules = resolved!.TargetModules?.ToString(),
                LayerCount = modules.Count(static module => module.Role == LoKrModuleRole.Layer),
                NormCount = modules.Count(static module => module.Role == LoKrModuleRole.Norm),
                SavedModuleCount = modules.Count(static module => module.Role == LoKrModuleRole.Saved),
                ParameterCount = modules.Sum(static module => module.ParameterCount),
                ModelParameterCount = target.Models.Values.Sum(static part => ModuleTree.Parameters(part.Module).Sum(static entry => entry.Parameter.numel())),
                ParameterBytes = modules.Sum(static module => module.ParameterBytes),
                GradientBytes = modules.Sum(static module => module.GradientBytes),
                OptimizerBytes = modules.Sum(static module => module.OptimizerBytes),
                TokenCount = tokens,
                MultiplyAdds = work,
                StepMultiplyAdds = modules.Sum(static module => module.StepMultiplyAdds),
                ModelMultiplyAdds = model,
                ModelStepMultiplyAdds = 2 * model,
            },
            modules,
            warnings);
    }

    private static LoKrModuleCost Describe(string component, LayerPlan layer, long tokens)
    {
        FactorShapes shapes = layer.Shapes;
        double forward = layer.Base is EmbeddingBaseLayer ? FactorWork.Row(shapes) : FactorWork.Forward(shapes, tokens) / tokens;
        forward += layer.Config.WeightDecompose ? FactorWork.Dora(shapes, layer.Config.WeightDecomposeAxis, tokens) / tokens : 0;
        long parameters = layer.Tensors.Sum(static tensor => tensor.Shape.Product());
        TrainingBytes bytes = TrainingBytes.Of(parameters, layer.Base.FactorType);
        return new()
        {
            Component = component,
            Name = ModuleTree.Join(component, layer.Base.Name),
            ModuleType = layer.Base.TypeName,
            Role = LoKrModuleRole.Layer,
            OutFeatures = layer.Base.OutFeatures,
            InFeatures = layer.Base.InFeatures,
            Kernel = layer.Base.Kernel.Count == 0 ? null : string.Join('×', layer.Base.Kernel),
            R = layer.Rank,
            Alpha = layer.Alpha,
            Scaling = layer.Settings.Scaling,
            FactorShapes = shapes.ToString(),
            ParameterCount = parameters,
            ParameterBytes = bytes.Values,
            GradientBytes = bytes.Gradients,
            OptimizerBytes = bytes.Optimizer,
            MultiplyAdds = forward,
            StepMultiplyAdds = 3 * forward,
            BaseMultiplyAdds = BaseWork(layer.Base),
        };
    }

    private static LoKrModuleCost Describe(string component, string name, nn.Module module, LoKrModuleRole role, IEnumerable<(long Count, ScalarType Type)> tensors)
    {
        (long Count, TrainingBytes Bytes)[] parts = [.. tensors.Select(static tensor => (tensor.Count, TrainingBytes.Of(tensor.Count, tensor.Type)))];
        return new()
        {
            Component = component,
            Name = ModuleTree.Join(component, name),
            ModuleType = module.GetType().Name.Split('`')[0],
            Role = role,
            ParameterCount = parts.Sum(static part => part.Count),
            ParameterBytes = parts.Sum(static part => part.Bytes.Values),
            GradientBytes = parts.Sum(static part => part.Bytes.Gradients),
            OptimizerBytes = parts.Sum(static part => part.Bytes.Optimizer),
        };
    }

    /// <summary>Multiply-adds of all layers with weights for one token, or one position of each convolution; an embedding looks up a row.</summary>
    private static double ModelWork(LoKrModel model) =>
        ModuleTree.Places(model.Module).Select(BaseLayer.TryCreate).OfType<BaseLayer>().Sum(BaseWork);

    private static double BaseWork(BaseLayer layer) => layer is EmbeddingBaseLayer ? 0 : (double)layer.OutFeatures * layer.InFeatures * layer.Kernel.Product();
}

/// <summary>The cost of an adapter, in total and by module.</summary>
/// <param name="Total">The totals.</param>
/// <param name="Modules">What it trains, by component: layers, norms, modules that are trained whole.</param>
/// <param name="Warnings">Entries of the configuration that are probably a mistake.</param>
public sealed record AdapterCost(LoKrConfigCost Total, IReadOnlyList<LoKrModuleCost> Modules, IReadOnlyList<string> Warnings);

/// <summary>The cost of a configuration on a model. Flat and serializable.</summary>
public sealed record LoKrConfigCost
{
    /// <summary>Number of the configuration among those that are measured side by side, from 1.</summary>
    public int Configuration { get; init; } = 1;

    /// <summary>Class name of the model or the pipeline.</summary>
    public required string Model { get; init; }

    /// <summary>Folder that it was read from, or null.</summary>
    public string? SourcePath { get; init; }

    /// <summary>Rank of the configuration.</summary>
    public required int R { get; init; }

    /// <summary>Alpha of the configuration.</summary>
    public required double Alpha { get; init; }

    /// <summary>Decompose factor of the configuration.</summary>
    public required int DecomposeFactor { get; init; }

    /// <summary>Target modules, the default of the architecture filled in.</summary>
    public string? TargetModules { get; init; }

    /// <summary>Layers with factors.</summary>
    public required int LayerCount { get; init; }

    /// <summary>Norms whose weights are trained.</summary>
    public required int NormCount { get; init; }

    /// <summary>Modules that are trained whole.</summary>
    public required int SavedModuleCount { get; init; }

    /// <summary>Trainable parameters.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Parameters of the components that take adapters.</summary>
    public required long ModelParameterCount { get; init; }

    /// <summary>Trainable parameters in percent of all, as PEFT prints them.</summary>
    public double TrainablePercent => 100.0 * ParameterCount / (ParameterCount + ModelParameterCount);

    /// <summary>Bytes of the trainable values.</summary>
    public required long ParameterBytes { get; init; }

    /// <summary>Bytes of their gradients.</summary>
    public required long GradientBytes { get; init; }

    /// <summary>Bytes of the optimizer's state, and of the copy of the last values with a finite loss.</summary>
    public required long OptimizerBytes { get; init; }

    /// <summary>All bytes that training the adapter takes beside the model and its activations.</summary>
    public long TotalBytes => ParameterBytes + GradientBytes + OptimizerBytes;

    /// <summary>Tokens in a batch for which the multiply-adds were counted.</summary>
    public required long TokenCount { get; init; }

    /// <summary>Multiply-adds of the adapter for one token in the forward pass; for a convolution of one position of its output.</summary>
    public required double MultiplyAdds { get; init; }

    /// <summary>The same in a training step: forward, gradients of the inputs and gradients of the factors.</summary>
    public required double StepMultiplyAdds { get; init; }

    /// <summary>Multiply-adds of the model's layers for one token in the forward pass, without the products of attention.</summary>
    public required double ModelMultiplyAdds { get; init; }

    /// <summary>The same in a training step: the weights are frozen, so forward and gradients of the inputs.</summary>
    public required double ModelStepMultiplyAdds { get; init; }

    /// <summary>Multiply-adds of the adapter in a step, in percent of the model's.</summary>
    public double StepPercent => ModelStepMultiplyAdds == 0 ? 0 : 100 * StepMultiplyAdds / ModelStepMultiplyAdds;

    /// <inheritdoc/>
    public override string ToString() => string.Create(System.Globalization.CultureInfo.InvariantCulture,
        $"{LayerCount} layers, {ParameterCount:N0} parameters ({TrainablePercent:F4}%), {TotalBytes:N0} bytes, {StepPercent:F1}% of the model's multiply-adds");
}

/// <summary>The cost of one module that an adapter trains. Flat and serializable.</summary>
public sealed record LoKrModuleCost
{
    /// <summary>Number of the configuration among those that are measured side by side, from 1.</summary>
    public int Configuration { get; init; } = 1;

    /// <summary>Component of the pipeline; empty for a single model.</summary>
    public required string Component { get; init; }

    /// <summary>Full name of the module; it begins with the component.</summary>
    public required string Name { get; init; }

    /// <summary>Class name of the module.</summary>
    public required string ModuleType { get; init; }

    /// <summary>Kind of its training.</summary>
    public required LoKrModuleRole Role { get; init; }

    /// <summary>Output size of a layer with factors; null otherwise, as below.</summary>
    public long? OutFeatures { get; init; }

    /// <summary>Input size, per group for a convolution.</summary>
    public long? InFeatures { get; init; }

    /// <summary>Kernel size of a convolution, for example <c>3×3</c>.</summary>
    public string? Kernel { get; init; }

    /// <summary>Rank from the configuration or its pattern.</summary>
    public int? R { get; init; }

    /// <summary>Alpha from the configuration or its pattern.</summary>
    public double? Alpha { get; init; }

    /// <summary>Factor of w1 ⊗ w2.</summary>
    public double? Scaling { get; init; }

    /// <summary>Shapes of the factors, for example <c>w1 16×16, w2_a 24×8, w2_b 8×24</c>.</summary>
    public string? FactorShapes { get; init; }

    /// <summary>Trainable parameters.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Bytes of the trainable values.</summary>
    public required long ParameterBytes { get; init; }

    /// <summary>Bytes of their gradients.</summary>
    public required long GradientBytes { get; init; }

    /// <summary>Bytes of the optimizer's state, and of the copy of the last values with a finite loss.</summary>
    public required long OptimizerBytes { get; init; }

    /// <summary>Multiply-adds of the contribution for one token in the forward pass; for a convolution of one position of its output.</summary>
    public double MultiplyAdds { get; init; }

    /// <summary>The same in a training step.</summary>
    public double StepMultiplyAdds { get; init; }

    /// <summary>Multiply-adds of the base layer in the forward pass.</summary>
    public double BaseMultiplyAdds { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>Ways in which an adapter trains a module.</summary>
public enum LoKrModuleRole
{
    /// <summary>Factors beside its weight.</summary>
    Layer,

    /// <summary>Changes of the weight and bias of a norm.</summary>
    Norm,

    /// <summary>The module itself, as a copy.</summary>
    Saved,
}

/// <summary>Bytes that training a number of values takes.</summary>
/// <param name="Values">The values.</param>
/// <param name="Gradients">Their gradients.</param>
/// <param name="Optimizer">The state of the optimizer, and the copy of the last values with a finite loss.</param>
internal readonly record struct TrainingBytes(long Values, long Gradients, long Optimizer)
{
    /// <summary>All of them.</summary>
    public long Total => Values + Gradients + Optimizer;

    /// <summary>The bytes for values of a type.</summary>
    public static TrainingBytes Of(long count, ScalarType dtype)
    {
        long bytes = count * dtype.ElementSize();
        return new(bytes, bytes, FlatAdamW.StateBytes(count, dtype) + KeptValues.Bytes(count, dtype));
    }
}
