using LoKr.Core.Factors;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

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
