using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Nn;

/// <summary>
/// The arguments of <c>torch.nn.MultiheadAttention</c> that it does not expose: number of heads, whether keys get a zero, dropout. They are
/// determined by running it once on inputs that reveal them, with unit matrices as its weights; the weights themselves are restored afterwards,
/// bit for bit and in their own memory.
/// </summary>
internal sealed class AttentionTraits(MultiheadAttention module)
{
    private const long DropoutRows = 1024;

    private (long Heads, bool AddsZero)? _structure;
    private double? _dropout;

    /// <summary>Number of heads, and whether a key and a value of zeros are added to every sequence.</summary>
    public (long Heads, bool AddsZero) Structure => _structure ??= FindStructure();

    /// <summary>Dropout of the attention weights in training, to 4 decimals (2 in half precision).</summary>
    public double Dropout => _dropout ??= FindDropout();

    /// <summary>
    /// The query matches the second of two keys in its first number only: the head with that number attends to the second key, whose value is
    /// one, and the other heads attend to all keys equally. The number of outputs near one is the width of a head.
    /// </summary>
    private (long, bool) FindStructure() => WithUnitWeights(training: false, parameters =>
    {
        Tensor weight = parameters.InputWeight;
        long embed = weight.shape[1];
        Tensor query = zeros([1, 1, embed], weight.dtype, weight.device);
        query[0, 0, 0] = 10 * Math.Sqrt(embed);
        Tensor keys = zeros([2, 1, embed], weight.dtype, weight.device);
        keys[1, 0, 0] = 1;
        Tensor values = zeros_like(keys);
        values[1] = 1;
        (Tensor output, Tensor weights) = module.forward(query, keys, values, null, true, null);
        long width = output.gt(0.75).sum().ToInt64();
        return (embed / width, weights.shape[2] > (parameters.ExtraKey is null ? 2 : 3));
    });

    /// <summary>With equal weights and a value of one, the outputs that are not dropped show the number they were divided by.</summary>
    private double FindDropout()
    {
        using Tensor state = random.get_rng_state();
        try
        {
            return WithUnitWeights(training: true, parameters =>
            {
                Tensor weight = parameters.InputWeight;
                Tensor rows = zeros([DropoutRows, 1, weight.shape[1]], weight.dtype, weight.device);
                Tensor one = ones([1, 1, weight.shape[1]], weight.dtype, weight.device);
                (Tensor output, Tensor weights) = module.forward(rows, zeros_like(one), one, null, true, null);
                double kept = output.max().ToDouble() * weights.shape[2];
                int digits = weight.dtype is ScalarType.Float32 or ScalarType.Float64 ? 4 : 2;
                return kept == 0 ? 1 : Math.Round(1 - (1 / kept), digits);
            });
        }
        finally
        {
            random.set_rng_state(state);
        }
    }

    private T WithUnitWeights<T>(bool training, Func<AttentionParameters, T> probe)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        AttentionParameters parameters = new(module);
        bool wasTraining = module.training;
        (Parameter Parameter, Tensor Value)[] kept = [.. parameters.All.Select(static parameter => (parameter, parameter.detach()))];
        try
        {
            module.train(training);
            long embed = parameters.InputWeight.shape[1];
            Tensor unit = eye(embed, dtype: parameters.InputWeight.dtype, device: parameters.InputWeight.device);
            foreach (Parameter parameter in parameters.All)
            {
                parameter.set_(zeros_like(parameter.detach()));
            }

            parameters.InputWeight.set_(cat([unit, unit, unit]));
            parameters.OutputWeight.set_(unit);
            return probe(parameters);
        }
        finally
        {
            foreach ((Parameter parameter, Tensor value) in kept)
            {
                parameter.set_(value);
            }

            module.train(wasTraining);
        }
    }
}

/// <summary>The parameters of <c>torch.nn.MultiheadAttention</c>, which has no properties for them. Looked up each time, because moving a model replaces parameters.</summary>
internal sealed class AttentionParameters(MultiheadAttention module)
{
    /// <summary>Name of the projection of the result below the attention, as PyTorch has it.</summary>
    public const string OutputName = "out_proj";

    private readonly Dictionary<string, Parameter> _parameters = module.named_parameters(recurse: false).ToDictionary(static entry => entry.name, static entry => entry.parameter, StringComparer.Ordinal);

    /// <summary>Weights of the projections of queries, keys and values in one, 3·embed×embed.</summary>
    public Parameter InputWeight => _parameters["in_proj_weight"];

    /// <summary>Their bias, or null.</summary>
    public Parameter? InputBias => _parameters.GetValueOrDefault("in_proj_bias");

    /// <summary>Weight of the projection of the result, embed×embed.</summary>
    public Parameter OutputWeight => _parameters["out_proj.weight"];

    /// <summary>Its bias, or null.</summary>
    public Parameter? OutputBias => _parameters.GetValueOrDefault("out_proj.bias");

    /// <summary>A key that every sequence gets, 1×1×embed, or null.</summary>
    public Parameter? ExtraKey => _parameters.GetValueOrDefault("bias_k");

    /// <summary>Its value, or null.</summary>
    public Parameter? ExtraValue => _parameters.GetValueOrDefault("bias_v");

    /// <summary>All of them.</summary>
    public IEnumerable<Parameter> All => _parameters.Values;

    /// <summary>Whether queries, keys and values are projected by one fused weight; with other widths of keys or values they are not.</summary>
    public static bool IsFused(MultiheadAttention module) => module.named_parameters(recurse: false).Any(static entry => entry.name == "in_proj_weight" && entry.parameter.numel() > 0);
}
