using LoKr.Core.Modeling;
using LoKr.Models.Generation;
using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Llama;

/// <summary>Embeddings, layers and the final norm.</summary>
internal sealed class LlamaModel : nn.Module<Tensor, Tensor?, KeyValueCache?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "embed_tokens")]
    private readonly Shared.Embedding _embeddings;

    [ComponentName(Name = "layers")]
    private readonly ModuleList<LlamaDecoderLayer> _layers;

    [ComponentName(Name = "norm")]
    private readonly RmsNorm _norm;

    private readonly RotaryEmbedding _rotary;
    private readonly IReadOnlyList<int?> _windows;

    public LlamaModel(LlamaSettings settings)
        : base(nameof(LlamaModel))
    {
        _rotary = new RotaryEmbedding(settings.Rope);
        _windows = settings.Windows;
        _embeddings = new Shared.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _layers = new ModuleList<LlamaDecoderLayer>(
            [.. Enumerable.Range(0, settings.LayerCount).Select(layer => new LlamaDecoderLayer(settings, layer))]);
        _norm = new RmsNorm(settings.HiddenSize, settings.NormEpsilon, settings.Device, settings.DType);
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
        long length = input.shape[1];
        Tensor x = _embeddings.call(input);
        RotaryTurn turn = _rotary.Get(cache?.Length ?? 0, length, x.device, x.dtype);
        DecoderPass pass = new(turn, Attention.PaddingMask(attentionMask), cache, length, _windows, x.device);
        DecoderPass kept = Checkpoints is null ? pass : pass.Keep(Checkpoints);
        foreach (LlamaDecoderLayer layer in _layers)
        {
            Tensor next = Checkpoints is null || cache is not null ? layer.call(x, pass) : Checkpoints.Run(layer, x, given => layer.call(given, kept));
            x.Dispose();
            x = next;
        }

        cache?.Advance(length);
        return _norm.call(x).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _rotary.Dispose();
        }

        base.Dispose(disposing);
    }
}
