using LoKr.Core.Modeling;
using LoKr.Models.Generation;
using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Gpt2;

/// <summary>Token and position embeddings, layers and the final norm.</summary>
internal sealed class Gpt2Model : nn.Module<Tensor, Tensor?, KeyValueCache?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "wte")]
    private readonly Shared.Embedding _tokens;

    [ComponentName(Name = "wpe")]
    private readonly Shared.Embedding _positions;

    [ComponentName(Name = "h")]
    private readonly ModuleList<Gpt2Block> _layers;

    [ComponentName(Name = "ln_f")]
    private readonly LayerNorm _norm;

    private readonly double _dropout;

    public Gpt2Model(Gpt2Settings settings)
        : base(nameof(Gpt2Model))
    {
        _tokens = new Shared.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _positions = new Shared.Embedding(settings.PositionCount, settings.HiddenSize, settings.Device, settings.DType);
        _layers = new ModuleList<Gpt2Block>([.. Enumerable.Range(0, settings.LayerCount).Select(layer => new Gpt2Block(settings, layer))]);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _dropout = settings.EmbeddingDropout;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public ActivationCheckpoints? Checkpoints { get; set; }

    /// <summary>Token ids [batch, length] → hidden states [batch, length, hidden].</summary>
    /// <param name="input">Token ids; with a cache, those that follow what it holds.</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length], or null.</param>
    /// <param name="cache">Keys and values of earlier positions, to which those of the input are added; or null.</param>
    public override Tensor forward(Tensor input, Tensor? attentionMask, KeyValueCache? cache)
    {
        using DisposeScope scope = NewDisposeScope();
        long start = cache?.Length ?? 0;
        long length = input.shape[1];
        Tensor positions = arange(start, start + length, ScalarType.Int64, input.device).unsqueeze(0);
        Tensor x = nn.functional.dropout(_tokens.call(input) + _positions.call(positions), _dropout, training);
        Tensor? mask = CausalMask.Create(Attention.PaddingMask(attentionMask), length, window: null, x.device);
        Tensor? kept = Checkpoints?.Keep(mask);
        foreach (Gpt2Block layer in _layers)
        {
            Tensor next = Checkpoints is null || cache is not null
                ? layer.call(x, mask, cache)
                : Checkpoints.Run(layer, x, given => layer.call(given, kept, null));
            x.Dispose();
            x = next;
        }

        cache?.Advance(length);
        return _norm.call(x).MoveToOuterDisposeScope();
    }
}
