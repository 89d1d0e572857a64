using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// A model of any text family without its head, with pooling: <c>call(inputIds, attentionMask)</c> returns one vector a text [batch, dimension].
/// Modules and parameters are named as in transformers' bare model (<c>BertModel</c>, <c>Qwen3Model</c>), which is what sentence-transformers and
/// PEFT's task FEATURE_EXTRACTION adapt.
/// </summary>
public sealed class SentenceEncoder : nn.Module<Tensor, Tensor, Tensor>, ISentenceEncoder, IBareModel
{
    private static readonly string[] s_poolers = ["pooler.dense", "pooler"];

    private readonly ITextBody _body;
    private readonly Func<string, string> _lower;

    private SentenceEncoder(
        ModelConfig config, string className, string basePrefix, nn.Module whole, SentenceSettings sentences, Func<string, string> lower, IReadOnlyList<string> idle)
        : base(className)
    {
        _lower = lower;
        (Architecture, BasePrefix, Sentences, ModelType) = (className, basePrefix, sentences, config.ModelType);
        Config = ModelArchitecture.Describe(config, className);
        StackSettings stack;
        switch (whole)
        {
            case EncoderClassifier { Settings: EncoderSettings settings }:
                _body = new Encoder(this, settings);
                (stack, MaxSequenceLength) = (settings.Stack, settings.MaxSequenceLength);
                settings.WriteSpellings(Config);
                break;
            case CausalLanguageModel { Settings: DecoderSettings settings }:
                _body = new Decoder(this, settings);
                (stack, MaxSequenceLength) = (settings.Stack, settings.MaxSequenceLength);
                settings.WriteSpellings(Config);
                break;
            default:
                throw new LoKrException(ErrorIds.TaskUnknown, LoKrErrorKind.NotSupported, $"A {whole} does not read texts, so it is not a sentence encoder.", "Load it without pooling.") { Target = config.Source };
        }

        IdleModules = idle;
        foreach (string name in idle)
        {
            this.Place(name, nn.Linear(stack.HiddenSize, stack.HiddenSize, device: stack.Options.Device, dtype: stack.Options.DType));
        }

        Dimension = stack.HiddenSize * sentences.Pooling.Count;
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture { get; }

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength { get; }

    /// <inheritdoc/>
    public int Dimension { get; }

    /// <inheritdoc/>
    public SentenceSettings Sentences { get; }

    /// <inheritdoc/>
    public IReadOnlyList<string> IdleModules { get; }

    /// <inheritdoc/>
    string IBareModel.BasePrefix => BasePrefix;

    private string BasePrefix { get; }

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public string Prepare(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return Sentences.LowerCase ? _lower(text) : text;
    }

    /// <inheritdoc/>
    public Tensor Embed(Tensor inputIds, Tensor attentionMask, int promptLength = 0)
    {
        ArgumentNullException.ThrowIfNull(attentionMask);
        _body.Check(inputIds, attentionMask);
        using DisposeScope scope = NewDisposeScope();
        Tensor hidden = _body.Run(inputIds, attentionMask, null, training, TokenPooling.Places(attentionMask, Sentences.Pooling, promptLength));
        Tensor vectors = TokenPooling.Pool(hidden, attentionMask, Sentences.Pooling, promptLength);
        return (Sentences.Normalize ? nn.functional.normalize(vectors, 2, 1) : vectors).MoveToOuterDisposeScope();
    }

    /// <summary>Vectors [batch, dimension] of token ids and their padding mask, both int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor attentionMask) => Embed(inputIds, attentionMask);

    /// <summary>The architecture of a family without its head.</summary>
    /// <param name="whole">The architecture with a head: an encoder's classifier, or a decoder's language model.</param>
    /// <param name="className">Class name of the bare model in transformers.</param>
    /// <param name="sentences">How texts become vectors.</param>
    /// <param name="lower">Lower-cases a text as tokenizers do.</param>
    /// <param name="hasWeight">Whether the checkpoint has a weight, by its name in the bare model.</param>
    internal static ModelArchitecture Architect(ModelArchitecture whole, string className, SentenceSettings sentences, Func<string, string> lower, Func<string, bool> hasWeight)
    {
        string[] idle = [.. s_poolers.Where(name => hasWeight(name + ".weight"))];
        CheckpointLayout layout = whole.Layout;
        return new(whole.ModelType, className, Build, new CheckpointLayout
        {
            WeightsName = layout.WeightsName,
            BasePrefix = layout.BasePrefix,
            IsBare = true,
            SkippedPrefixes = [.. layout.HeadPrefixes, .. layout.SkippedPrefixes, .. layout.OptionalPrefixes.Where(prefix => !prefix.StartsWith(layout.BasePrefix, StringComparison.Ordinal)), "lm_head.", "score."],
            SkippedSuffixes = layout.SkippedSuffixes,
            RenamedSuffixes = layout.RenamedSuffixes,
        });

        // The model with its head takes no memory on meta, and has the family's settings.
        nn.Module Build(ModelConfig config, ModelBuildOptions options)
        {
            using nn.Module model = whole.Build(config, options);
            return new SentenceEncoder(config, className, layout.BasePrefix, model, sentences, lower, idle);
        }
    }

    /// <summary>The names are the family's, not those of the fields: everything is registered by the constructor.</summary>
    protected override void RegisterComponents()
    {
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _body.Dispose();
        }

        base.Dispose(disposing);
    }
}
