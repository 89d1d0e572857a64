using LoKr.Core.Factors;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>Changes the output of a layer: implemented by whatever holds the adapters on it.</summary>
internal interface IOutputAdapter
{
    /// <summary>Whether any adapter contributes at present.</summary>
    bool IsRunning { get; }

    /// <summary>The adapted output, which then replaces the disposed base output; null where no adapter contributes.</summary>
    Tensor? Adapt(Tensor input, Tensor output);
}

/// <summary>
/// A layer as adapters see it: its sizes, how its output is intercepted and how a contribution is added. One subclass for each kind of layer
/// that can be adapted.
/// </summary>
internal abstract class BaseLayer(string name, nn.Module module)
{
    /// <summary>Kinds of layers that can be adapted, for messages.</summary>
    public const string SupportedTypes = "Linear, Conv1d, Conv2d, Conv3d, Embedding, GPT-2's Conv1D and a MultiheadAttention whose keys and values are as wide as its queries";

    private IDisposable? _hook;

    /// <summary>Full name of the layer.</summary>
    public string Name { get; } = name;

    /// <summary>The layer itself.</summary>
    public nn.Module Module { get; } = module;

    /// <summary>Kind of the layer, for display.</summary>
    public virtual string TypeName => Module.GetType().Name;

    /// <summary>The weight of the layer; looked up each time, because moving a model replaces parameters.</summary>
    public abstract TorchSharp.Modules.Parameter Weight { get; }

    /// <summary>Output size: rows of the delta weight.</summary>
    public abstract long OutFeatures { get; }

    /// <summary>Input size, per group for a grouped convolution: columns of the delta weight.</summary>
    public abstract long InFeatures { get; }

    /// <summary>Kernel size of a convolution; empty otherwise.</summary>
    public virtual IReadOnlyList<long> Kernel => [];

    /// <summary>Type of the factors: the weight's, but single precision for a weight of lower precision, as PEFT does.</summary>
    public ScalarType FactorType => Weight.dtype is ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;

    /// <summary>The layer as one that can be adapted, or null when its kind is not supported.</summary>
    public static BaseLayer? TryCreate(string name, nn.Module module) => module switch
    {
        TorchSharp.Modules.Linear linear when linear.weight.is_floating_point() => new LinearBaseLayer(name, linear),
        TorchSharp.Modules.Conv1d or TorchSharp.Modules.Conv2d or TorchSharp.Modules.Conv3d => new ConvolutionBaseLayer(name, (TorchSharp.Modules.Convolution)module),
        TorchSharp.Modules.Embedding embedding when embedding.weight?.is_floating_point() == true => new EmbeddingBaseLayer(name, embedding, () => embedding.weight!),
        Nn.Embedding embedding when embedding.Weight.is_floating_point() => new EmbeddingBaseLayer(name, embedding, () => embedding.Weight),
        Nn.Conv1D transposed => new TransposedLinearBaseLayer(name, transposed),
        TorchSharp.Modules.MultiheadAttention attention when AttentionParameters.IsFused(attention) => new AttentionInputBaseLayer(name, attention),
        _ => null,
    };

    /// <summary>A place in a module tree as a layer that can be adapted, or null when its kind is not supported.</summary>
    public static BaseLayer? TryCreate(ModulePlace place) => place.IsProjection
        ? new AttentionOutputBaseLayer(place.Name, (TorchSharp.Modules.MultiheadAttention)place.Module)
        : TryCreate(place.Name, place.Module);

    /// <summary>Whether PEFT has LoKr for this kind of layer: its <c>LoKrModel.layers_mapping</c>, which knows the projection out of an attention as a Linear.</summary>
    public virtual bool HasLoKrInPeft => Module is TorchSharp.Modules.Linear or TorchSharp.Modules.Conv1d or TorchSharp.Modules.Conv2d;

    /// <summary>Why a delta of this layer cannot be written as LoRA, or null when it can.</summary>
    public virtual string? LoraObstacle => null;

    /// <summary>Lets an adapter change the outputs from now on.</summary>
    public void Attach(ForwardHooks hooks, IOutputAdapter adapter) => _hook = Hook(hooks, adapter);

    /// <summary>Restores the layer's own outputs.</summary>
    public void Detach()
    {
        _hook?.Dispose();
        _hook = null;
    }

    /// <summary>The weight as out×in×kernel, the shape of the delta weight; shares memory.</summary>
    public virtual Tensor AsMatrix(Tensor weight) => weight.alias();

    /// <summary>The input in the type in which the factors are applied.</summary>
    public virtual Tensor CastInput(Tensor x, ScalarType type) => x.dtype == type ? x : x.to(type);

    /// <summary>The type of the adapted output: as in PEFT that of the input.</summary>
    public virtual ScalarType OutputType(Tensor input, Tensor output) => input.dtype;

    /// <summary>Adds scale·contribution of the factors to an output, both in the type of the factors.</summary>
    public abstract Tensor AddTo(Tensor y, Tensor x, KroneckerFactors factors, double scale);

    /// <summary>The contribution alone.</summary>
    public abstract Tensor Apply(Tensor x, KroneckerFactors factors, double scale);

    /// <summary>Multiplies the part of an output (without bias) that comes from each row of the weight with its number.</summary>
    public abstract Tensor ScaleRows(Tensor y, Tensor x, Tensor factors);

    /// <summary>The contribution of (base weight + delta)·diag(<paramref name="columns"/>) beyond the base weight's.</summary>
    /// <param name="x">Input in the type of the factors.</param>
    /// <param name="y">Base output without bias.</param>
    /// <param name="factors">Factors.</param>
    /// <param name="scale">Scale of the factors.</param>
    /// <param name="columns">One number for each column of the weight.</param>
    public abstract Tensor ApplyScaledColumns(Tensor x, Tensor y, KroneckerFactors factors, double scale, Tensor columns);

    /// <summary>A base output without its bias, in a type.</summary>
    public abstract Tensor WithoutBias(Tensor y, ScalarType type);

    /// <summary>Registers the hook; disposing of the result removes it.</summary>
    protected virtual IDisposable Hook(ForwardHooks hooks, IOutputAdapter adapter) => ForwardHooks.OnTensor((nn.Module<Tensor, Tensor>)Module, adapter.Adapt);
}

/// <summary>Base of linear layers, however they store the weight.</summary>
internal abstract class LinearKindBaseLayer(string name, nn.Module module) : BaseLayer(name, module)
{
    /// <inheritdoc/>
    public override long OutFeatures => Weight.shape[0];

    /// <inheritdoc/>
    public override long InFeatures => Weight.shape[1];

    /// <summary>The bias, or null.</summary>
    protected abstract Tensor? Bias { get; }

    /// <inheritdoc/>
    public override Tensor AddTo(Tensor y, Tensor x, KroneckerFactors factors, double scale) => factors.Linear.AddTo(y, x, scale);

    /// <inheritdoc/>
    public override Tensor Apply(Tensor x, KroneckerFactors factors, double scale) => factors.Linear.Apply(x, scale);

    /// <inheritdoc/>
    public override Tensor ScaleRows(Tensor y, Tensor x, Tensor factors) => y * factors;

    /// <inheritdoc/>
    public override Tensor ApplyScaledColumns(Tensor x, Tensor y, KroneckerFactors factors, double scale, Tensor columns)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor scaled = x * columns;
        Tensor weight = AsMatrix(Weight).to(x.dtype);
        return factors.Linear.AddTo(scaled.matmul(weight.t()) - y, scaled, scale).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor WithoutBias(Tensor y, ScalarType type) => Bias is Tensor bias ? y.to(type) - bias.to(type) : y.to(type);
}

/// <summary>A linear layer that can be adapted.</summary>
internal sealed class LinearBaseLayer(string name, TorchSharp.Modules.Linear linear) : LinearKindBaseLayer(name, linear)
{
    /// <inheritdoc/>
    public override TorchSharp.Modules.Parameter Weight => linear.weight;

    /// <inheritdoc/>
    protected override Tensor? Bias => linear.bias;
}

/// <summary>GPT-2's <c>Conv1D</c>: a linear layer whose weight is stored in×out. The delta is out×in, as for every layer, and is merged transposed.</summary>
internal sealed class TransposedLinearBaseLayer(string name, Conv1D layer) : LinearKindBaseLayer(name, layer)
{
    /// <inheritdoc/>
    public override TorchSharp.Modules.Parameter Weight => layer.Weight;

    /// <inheritdoc/>
    public override long OutFeatures => Weight.shape[1];

    /// <inheritdoc/>
    public override long InFeatures => Weight.shape[0];

    /// <inheritdoc/>
    protected override Tensor? Bias => layer.Bias;

    /// <inheritdoc/>
    public override Tensor AsMatrix(Tensor weight) => weight.t();
}

/// <summary>
/// An embedding, TorchSharp's or this library's: only the rows of the delta that the token ids name are computed, w1[i/k] ⊗ w2[i mod k],
/// never the whole table. The padding row gets a delta too, as it does in the merged table.
/// </summary>
internal sealed class EmbeddingBaseLayer(string name, nn.Module embedding, Func<Parameter> weight) : BaseLayer(name, embedding)
{
    /// <inheritdoc/>
    public override Parameter Weight => weight();

    /// <inheritdoc/>
    public override long OutFeatures => Weight.shape[0];

    /// <inheritdoc/>
    public override long InFeatures => Weight.shape[1];

    /// <inheritdoc/>
    public override Tensor CastInput(Tensor x, ScalarType type) => x;

    /// <inheritdoc/>
    public override ScalarType OutputType(Tensor input, Tensor output) => output.dtype;

    /// <inheritdoc/>
    public override Tensor AddTo(Tensor y, Tensor x, KroneckerFactors factors, double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        return (y + factors.Rows(x, scale)).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor Apply(Tensor x, KroneckerFactors factors, double scale) => factors.Rows(x, scale);

    /// <inheritdoc/>
    public override Tensor ScaleRows(Tensor y, Tensor x, Tensor factors) => y * factors[x].unsqueeze(-1);

    /// <inheritdoc/>
    public override Tensor ApplyScaledColumns(Tensor x, Tensor y, KroneckerFactors factors, double scale, Tensor columns)
    {
        using DisposeScope scope = NewDisposeScope();
        return (((y + factors.Rows(x, scale)) * columns) - y).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor WithoutBias(Tensor y, ScalarType type) => y.to(type);
}

/// <summary>The hooks of one model. Layers that live in one module, as the projections of an attention do, share a hook.</summary>
internal sealed class ForwardHooks
{
    private readonly Dictionary<MultiheadAttention, AttentionHook> _attentions = [];

    /// <summary>Changes the output of a layer from one tensor to one tensor.</summary>
    /// <param name="module">The layer.</param>
    /// <param name="adapt">Input and output to another output, or to null for the same.</param>
    public static IDisposable OnTensor(nn.Module<Tensor, Tensor> module, Func<Tensor, Tensor, Tensor?> adapt)
    {
        var hook = module.register_forward_hook((_, input, output) => adapt(input, output)!);
        return new Registration(hook.remove);
    }

    /// <summary>Changes the output of one of the projections of an attention.</summary>
    /// <param name="module">The attention.</param>
    /// <param name="isOutput">The projection of its result instead of the fused one of its inputs.</param>
    /// <param name="adapter">Changes the output.</param>
    public IDisposable OnAttention(MultiheadAttention module, bool isOutput, IOutputAdapter adapter)
    {
        if (!_attentions.TryGetValue(module, out AttentionHook? hook))
        {
            _attentions.Add(module, hook = new AttentionHook(module));
        }

        hook.Set(isOutput, adapter);
        return new Registration(() =>
        {
            hook.Set(isOutput, null);
            if (hook.IsIdle)
            {
                hook.Remove();
                _attentions.Remove(module);
            }
        });
    }

    private sealed class Registration(Action remove) : IDisposable
    {
        public void Dispose() => remove();
    }
}
