using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>A family that classifies tokens, as data.</summary>
/// <param name="ClassName">Class name in transformers.</param>
/// <param name="CreateBody">Creates what is before the head, in the tree of the model.</param>
/// <param name="Head">The head.</param>
/// <param name="Stack">The layers before it.</param>
/// <param name="WriteSpellings">Completes a configuration by the keys that other releases of transformers have for the same.</param>
internal sealed record TokenClassifierSettings(
    string ClassName, Func<nn.Module, ITextBody> CreateBody, HeadSettings Head, StackSettings Stack, Action<JsonObject> WriteSpellings)
{
    /// <summary>An encoder.</summary>
    /// <param name="className">Class name in transformers.</param>
    /// <param name="settings">The family.</param>
    public static TokenClassifierSettings Of(string className, EncoderSettings settings) =>
        new(className, root => new Encoder(root, settings with { ClassName = className }), settings.TokenHead, settings.Stack, settings.WriteSpellings);

    /// <summary>A decoder.</summary>
    /// <param name="className">Class name in transformers.</param>
    /// <param name="settings">The family.</param>
    /// <param name="head">Its head.</param>
    public static TokenClassifierSettings Of(string className, DecoderSettings settings, HeadSettings head) =>
        new(className, root => new Decoder(root, settings with { ClassName = className }), head, settings.Stack, settings.WriteSpellings);
}

/// <summary>
/// An encoder or a decoder that classifies every token: <c>call(inputIds, attentionMask, tokenTypeIds)</c> returns the logits
/// [batch, length, labels]. Modules and parameters are named as in transformers.
/// </summary>
public sealed class TokenClassifier : nn.Module<Tensor, Tensor, Tensor?, Tensor>, ITokenClassifier
{
    private readonly ITextBody _body;
    private readonly ClassificationHead _head;

    /// <summary>Creates the modules.</summary>
    /// <param name="config">Configuration of the model.</param>
    /// <param name="options">Labels in the order of the logits; null for those of the configuration.</param>
    /// <param name="settings">The family, with the sizes of the configuration.</param>
    internal TokenClassifier(ModelConfig config, ModelBuildOptions options, TokenClassifierSettings settings)
        : base(settings.ClassName)
    {
        (Architecture, ModelType) = (settings.ClassName, config.ModelType);
        Labels = ClassificationLabels.Resolve(config, options.Labels, headRows: null);
        Config = ModelArchitecture.Describe(config, settings.ClassName);
        ModelLabels.Write(Config, Labels);
        settings.WriteSpellings(Config);
        _body = settings.CreateBody(this);
        _head = new ClassificationHead(this, settings.Head, settings.Stack, Labels.Count);
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture { get; }

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public IReadOnlyList<string> Labels { get; }

    /// <inheritdoc/>
    public int MaxSequenceLength => _body.MaxSequenceLength;

    /// <inheritdoc/>
    public int TokenTypeCount => _body.TokenTypeCount;

    /// <inheritdoc/>
    public Tensor ClassifyTokens(Tensor inputIds, Tensor attentionMask, Tensor? tokenTypeIds = null) => call(inputIds, attentionMask, tokenTypeIds);

    /// <summary>Logits [batch, length, labels] of token ids, their padding mask and their segments (or null), all int64 [batch, length].</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelInputInvalid"/>.</exception>
    public override Tensor forward(Tensor inputIds, Tensor attentionMask, Tensor? tokenTypeIds)
    {
        _body.Check(inputIds, attentionMask, tokenTypeIds);
        using DisposeScope scope = NewDisposeScope();
        return _head.Score(_body.Run(inputIds, attentionMask, tokenTypeIds, training), training).MoveToOuterDisposeScope();
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
