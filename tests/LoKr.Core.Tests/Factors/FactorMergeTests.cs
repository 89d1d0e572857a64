using LoKr.Core.Factors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Factors;

/// <summary>w1 ⊗ w2 added into weights of every type and layout, against the sum in double precision.</summary>
public sealed class FactorMergeTests
{
    /// <summary>Largest relative error of a number rounded once.</summary>
    private static double HalfUlp(ScalarType type) => type switch
    {
        ScalarType.BFloat16 => Math.Pow(2, -8),
        ScalarType.Float16 => Math.Pow(2, -11),
        ScalarType.Float32 => 1e-7,
        _ => 1e-15,
    };

    public static TheoryData<ScalarType, int, int, int, string> Cases
    {
        get
        {
            TheoryData<ScalarType, int, int, int, string> cases = [];
            foreach (ScalarType type in (ScalarType[])[ScalarType.BFloat16, ScalarType.Float16, ScalarType.Float32, ScalarType.Float64])
            {
                cases.Add(type, 96, 60, 8, "plain");
                cases.Add(type, 7, 13, -1, "plain");
                cases.Add(type, 1, 34, 2, "plain");
                cases.Add(type, 1040, 2048, -1, "plain");
                cases.Add(type, 120, 84, -1, "transposed");
                cases.Add(type, 120, 84, -1, "columns of a wider one");
                cases.Add(type, 24, 36, 4, "kernel");
                cases.Add(type, 24, 36, 4, "reversed");
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Every_type_and_layout_is_rounded_once(ScalarType type, int outFeatures, int inFeatures, int factor, string layout)
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(outFeatures + inFeatures);
        long[] kernel = layout switch { "kernel" => [3, 3], "reversed" => [3], _ => [] };
        FactorShapes shapes = FactorShapes.Create(outFeatures, inFeatures, kernel, layout == "reversed" ? 100 : 2, new() { DecomposeFactor = factor });
        Assert.Equal(layout == "reversed", shapes.Reversed);
        ScalarType factorType = type == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;
        KroneckerFactors factors = new(shapes.Tensors().ToDictionary(static entry => entry.Suffix, entry => randn(entry.Shape, dtype: factorType)), kernel, shapes.Reversed);
        Tensor weight = Weight(layout, [outFeatures, inFeatures, .. kernel], type);
        Tensor before = weight.to(ScalarType.Float64).clone();

        KroneckerFactors exact = new(factors.Tensors.ToDictionary(static entry => entry.Key, static entry => entry.Value.to(ScalarType.Float64)), kernel, shapes.Reversed);
        Tensor product = exact.ToDense(0.3);
        Tensor expected = before + product;
        FactorMerge.AddTo(weight, factors, 0.3);

        // A sum near zero keeps the error of its terms, of which those of w2 may cancel too.
        Tensor allowed = (expected.abs() * HalfUlp(type) * 1.01) + ((before.abs() + product.abs() + 1) * (factorType == ScalarType.Float32 ? 1e-6 : 1e-14));
        Tensor error = (weight.to(ScalarType.Float64) - expected).abs();
        Assert.True(error.le(allowed).all().ToBoolean(), $"the largest excess is {(error - allowed).max().ToDouble()}");
        Assert.Equal(type, weight.dtype);
    }

    [Fact]
    public void What_is_not_finite_stays_so_in_bfloat16()
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors factors = new(new Dictionary<string, Tensor> { [FactorNames.W1] = ones(2, 2), [FactorNames.W2] = ones(3, 20) });
        Tensor weight = zeros([6, 40], dtype: ScalarType.BFloat16);
        weight[0, 0] = tensor(float.NaN);
        weight[1, 5] = tensor(float.PositiveInfinity);
        weight[2, 39] = tensor(float.NegativeInfinity);
        weight[3, 18] = tensor(3.3895314e38f);
        FactorMerge.AddTo(weight, factors, 1e36);
        Tensor result = weight.to(ScalarType.Float32);
        Assert.True(float.IsNaN(result[0, 0].ToSingle()));
        Assert.Equal(float.PositiveInfinity, result[1, 5].ToSingle());
        Assert.Equal(float.NegativeInfinity, result[2, 39].ToSingle());
        Assert.Equal(float.PositiveInfinity, result[3, 18].ToSingle());
        Assert.Equal(236, result.isfinite().sum().ToInt64());
    }

    private static Tensor Weight(string layout, long[] shape, ScalarType type) => layout switch
    {
        "transposed" => randn([shape[1], shape[0]]).to(type).t(),
        "columns of a wider one" => randn([shape[0], shape[1] + 9]).to(type).narrow(1, 4, shape[1]),
        _ => randn(shape).to(type),
    };
}
