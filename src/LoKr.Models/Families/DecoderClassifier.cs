using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// A <see cref="Decoder"/> that classifies a text by the last token that is not padding: <c>call(inputIds, attentionMask)</c> returns the logits
/// [batch, labels]. As in transformers, padding is known by its id alone, whatever the mask says, so that it may be on either side, and a text
/// that ends in that id loses it. Modules and parameters are named as in transformers.
/// </summary>
public sealed class DecoderClassifier : nn.Module<Tensor, Tensor?, Tensor>, ISequenceClassifier
{
    /// <summary>Name of the head of every classifier over a decoder but GPT-2's of tokens.</summary>
    internal const string HeadName = "score";

    private const string PadKey = "pad_token_id";

    private readonly DecoderSettings _settings;
    private readonly Decoder _decoder;
    private readonly Linear _head;

    /// <summary>Creates the modules.</summary>
    /// <param name="config">Configuration of the model.</param>
    /// <param name="options">Labels in the order of the logits, and the id of padding where the configuration has none.</param>
    /// <param name="settings">The family, with the sizes of the configuration and the class name of the classifier.</param>
    internal DecoderClassifier(ModelConfig config, ModelBuildOptions options, DecoderSettings settings)
        : base(settings.ClassName)
    {
        _settings = settings;
        ModelType = config.ModelType;
        Labels = ClassificationLabels.Resolve(config, options.Labels, headRows: null);
        PadId = config.FindInt(PadKey) ?? options.PadId;
        Config = ModelArchitecture.Describe(config, settings.ClassName);
        ModelLabels.Write(Config, Labels);
        settings.WriteSpellings(Config);
        if (PadId is int pad)
        {
            Config[PadKey] = pad;
        }

        _decoder = new Decoder(this, settings);
        StackSettings stack = settings.Stack;
        _head = this.Place(HeadName, nn.Linear(stack.HiddenSize, Labels.Count, hasBias: false, stack.Options.Device, stack.Options.DType));
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture => _settings.ClassName;

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public IReadOnlyList<string> Labels { get; }

    /// <inheritdoc/>
    public int? PadId { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength => _settings.MaxSequenceLength;

    /// <inheritdoc/>
    public Tensor Classify(Tensor inputIds, Tensor attentionMask, Tensor? tokenTypeIds = null)
    {
        TokenInput.CheckTypes(Architecture, inputIds, tokenTypeIds, typeCount: 0);
        return call(inputIds, attentionMask);
    }

    /// <summary>Logits [batch, labels] of token ids and their padding mask (or null), both int64 [batch, length].</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelInputInvalid"/>.</exception>
    public override Tensor forward(Tensor inputIds, Tensor? attentionMask)
    {
        _decoder.Check(inputIds, attentionMask);
        using DisposeScope scope = NewDisposeScope();
        Tensor last = BatchPlaces.Of(FindLast(inputIds), inputIds.shape[1]);
        return _head.call(_decoder.Run(inputIds, attentionMask, null, training, last)).MoveToOuterDisposeScope();
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
            _decoder.Dispose();
        }

        base.Dispose(disposing);
    }

    /// <summary>The layout of a classifier's checkpoint, from that of the language model.</summary>
    /// <param name="language">The layout of the language model.</param>
    /// <param name="head">Name of the head.</param>
    internal static CheckpointLayout Layout(CheckpointLayout language, string head = HeadName) => language with
    {
        HeadPrefixes = [head + "."],
        LabelWeight = head + ".weight",
        SkippedPrefixes = [.. language.SkippedPrefixes, "lm_head."],
    };

    // The last position with another id than padding, the first one in a row of padding only; [batch].
    private Tensor FindLast(Tensor inputIds)
    {
        (long rows, long length) = (inputIds.shape[0], inputIds.shape[1]);
        if (PadId is not int pad)
        {
            return rows == 1
                ? full([1], length - 1, ScalarType.Int64, inputIds.device)
                : throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument,
                    $"{Architecture}: {rows} texts were given in one batch, but the model has no {PadKey} to tell where each ends.",
                    $"Add {PadKey} to config.json, or give one text at a time.") { Target = PadKey };
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor places = arange(length, ScalarType.Int64, inputIds.device);
        return (places * inputIds.ne(pad).to(ScalarType.Int64)).argmax(-1).MoveToOuterDisposeScope();
    }
}
