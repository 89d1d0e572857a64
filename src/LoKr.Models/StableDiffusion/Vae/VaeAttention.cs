using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Vae;

/// <summary>Attention of all pixels over all, with one head, added to the input.</summary>
internal sealed class VaeAttention : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "group_norm")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "to_q")]
    private readonly Linear _query;

    [ComponentName(Name = "to_k")]
    private readonly Linear _key;

    [ComponentName(Name = "to_v")]
    private readonly Linear _value;

    [ComponentName(Name = "to_out")]
    private readonly ModuleList<Linear> _output;

    public VaeAttention(VaeSettings settings)
        : base("Attention")
    {
        int channels = settings.Channels[^1];
        _norm = settings.Norm(channels);
        _query = Project();
        _key = Project();
        _value = Project();
        _output = new ModuleList<Linear>(Project());
        RegisterComponents();

        Linear Project() => nn.Linear(channels, channels, device: settings.Device, dtype: settings.DType);
    }

    /// <summary>[batch, channels, height, width] → the same shape.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor rows = _norm.call(input).flatten(2).transpose(1, 2);
        Tensor mixed = Attention.ScaledDotProduct(
            Attention.SplitHeads(_query.call(rows), 1), Attention.SplitHeads(_key.call(rows), 1), Attention.SplitHeads(_value.call(rows), 1));
        Tensor map = _output[0].call(Attention.MergeHeads(mixed)).transpose(1, 2).reshape(input.shape);
        return (map + input).MoveToOuterDisposeScope();
    }
}
