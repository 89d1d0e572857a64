using System.Security.Cryptography;
using System.Text;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>
/// The components of Stable Diffusion (Rombach et al., arXiv:2112.10752) and Stable Diffusion XL (Podell et al., arXiv:2307.01952), read from
/// a diffusers folder. Text encoders and UNet take adapters like any model. Owns all of them. Not safe for use from several
/// threads at once.
/// </summary>
public sealed class StableDiffusionPipeline : IAdaptable
{
    private readonly PipelineIndex _index;
    private readonly Func<AutoencoderKL> _readVae;
    private readonly long _vaeParameters;
    private AutoencoderKL? _vae;
    private string? _vaeFingerprint;

    internal StableDiffusionPipeline(
        PipelineIndex index, LoKrModel textEncoder, LoKrModel? textEncoder2, LoKrModel unet, AutoencoderKL vae, Func<AutoencoderKL> readVae)
    {
        (_index, _readVae, _vae) = (index, readVae, vae);
        (LatentScale, DownsampleFactor) = (vae.ScalingFactor, vae.DownsampleFactor);
        (TextEncoder, TextEncoder2, UNet) = (textEncoder, textEncoder2, unet);
        _vaeParameters = vae.parameters().Sum(parameter => parameter.numel());
    }

    /// <summary>Class name of the pipeline, for example <c>StableDiffusionPipeline</c>.</summary>
    public string Name => _index.ClassName;

    /// <summary>Full path of the folder it was read from.</summary>
    public string SourcePath => _index.Folder;

    /// <summary>model_index.json.</summary>
    public ModelConfig Index => _index.Config;

    /// <summary>Names of the components in the folder, unused ones included.</summary>
    public IReadOnlyList<string> ComponentNames => ValueList.Of(_index.Components);

    /// <summary>The text encoder, a <see cref="Families.ClipTextModel"/>.</summary>
    public LoKrModel TextEncoder { get; }

    /// <summary>The second text encoder of Stable Diffusion XL, a <see cref="Families.ClipTextModelWithProjection"/>; null without one.</summary>
    public LoKrModel? TextEncoder2 { get; }

    /// <summary>The UNet; <see cref="Denoiser"/> is its module.</summary>
    public LoKrModel UNet { get; }

    /// <summary>The module of the UNet.</summary>
    public UNet2DConditionModel Denoiser => (UNet2DConditionModel)UNet.Module;

    /// <summary>The autoencoder between images and latents; loaded again after <see cref="ReleaseVae"/>.</summary>
    public AutoencoderKL Vae
    {
        get
        {
            if (IsDisposed)
            {
                throw new LoKrException(ErrorIds.ModelDisposed, LoKrErrorKind.InvalidOperation, $"{Name} was disposed: its weights are released.", "Load the pipeline again.") { Target = this };
            }

            return _vae ??= _readVae();
        }
    }

    /// <summary>Whether the autoencoder is in memory.</summary>
    public bool IsVaeLoaded => _vae is not null;

    /// <summary>Hash of the autoencoder's weights in hexadecimal digits; tells latents of different autoencoders apart.</summary>
    public string VaeFingerprint => _vaeFingerprint ??= WeightFingerprint.Compute(Vae);

    /// <summary>Factor that latents of the autoencoder are multiplied by for the UNet.</summary>
    public double LatentScale { get; }

    /// <summary>Height and width of an image over those of its latents.</summary>
    public int DownsampleFactor { get; }

    /// <summary>Tokenizer of the text encoder.</summary>
    public required ITextTokenizer Tokenizer { get; init; }

    /// <summary>Tokenizer of the second text encoder; null without one.</summary>
    public ITextTokenizer? Tokenizer2 { get; init; }

    /// <summary>Settings of the scheduler: scheduler/scheduler_config.json, with its class in <c>_class_name</c>.</summary>
    public required ModelConfig SchedulerConfig { get; init; }

    /// <summary>Whether the pipeline was disposed.</summary>
    public bool IsDisposed { get; private set; }

    /// <summary>Device of the UNet.</summary>
    public Device Device => UNet.Device;

    /// <summary>Element type of the UNet; the autoencoder's may be wider.</summary>
    public ScalarType DType => UNet.DType;

    /// <summary>The models that take adapters, by the name of their folders: text_encoder, text_encoder_2 where there is one, unet.</summary>
    public IReadOnlyDictionary<string, LoKrModel> Models => ValueList.Of(TextEncoder2 is null
        ? new Dictionary<string, LoKrModel> { ["text_encoder"] = TextEncoder, ["unet"] = UNet }
        : new Dictionary<string, LoKrModel> { ["text_encoder"] = TextEncoder, ["text_encoder_2"] = TextEncoder2, ["unet"] = UNet });

    /// <summary>Parameters of all components, adapters included.</summary>
    public long ParameterCount => _vaeParameters + Models.Values.Sum(model => model.CountParameters().Total);

    /// <inheritdoc/>
    public ParameterCount CountParameters() => new(TrainableParameterCount, ParameterCount);

    /// <summary>Parameters that training changes.</summary>
    public long TrainableParameterCount => Models.Values.Sum(model => model.CountParameters().Trainable);

    /// <summary>Names of the adapters with those of their components: <c>unet/default</c>.</summary>
    public IReadOnlyList<string> AdapterNames => ValueList.Of([.. Models.SelectMany(item => item.Value.Adapters.Select(adapter => $"{item.Key}/{adapter.Name}"))]);

    /// <summary>Steps and figures of the last training of its adapters; null before.</summary>
    public LoKrTrainingResult? LastTraining { get; set; }

    /// <summary>Releases the autoencoder's memory, for training on computed latents; the next use loads it again.</summary>
    public void ReleaseVae()
    {
        _vae?.Dispose();
        _vae = null;
    }

    /// <summary>Token ids of texts, cut and padded to the longest the text encoder takes.</summary>
    /// <param name="texts">At least one; an empty text is the unconditional prompt.</param>
    /// <returns>Ids on the device of the text encoder; the caller disposes them.</returns>
    public PromptTokens Tokenize(IReadOnlyList<string> texts)
    {
        ArgumentNullException.ThrowIfNull(texts);
        if (texts.Count == 0)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, "No text to encode was given.", "Give at least one text, which may be empty.") { Target = texts };
        }

        return new PromptTokens(
            Tokenize(Tokenizer, TextEncoder, texts),
            Tokenizer2 is null ? null : Tokenize(Tokenizer2, TextEncoder2!, texts));
    }

    /// <summary>Token ids of a text for the text encoder, or for the second one where it takes less of the text.</summary>
    /// <param name="text">The text.</param>
    public CutText Measure(string text)
    {
        CutText first = CutText.Encode(Tokenizer, text, LongestText(Tokenizer, TextEncoder));
        CutText? second = Tokenizer2 is null ? null : CutText.Encode(Tokenizer2, text, LongestText(Tokenizer2, TextEncoder2!));
        return second is { IsCut: true } && second.Ids.Length < first.Ids.Length ? second : first;
    }

    /// <summary>Hidden states of texts for the UNet, with gradients for adapters of the text encoders that train.</summary>
    /// <param name="tokens">Token ids; padding is attended to, as in diffusers.</param>
    /// <returns>
    /// The text encoder's last hidden state after its norm; with two text encoders both's hidden states before the last layer, side by side,
    /// and the pooled vector of the second. The caller disposes them.
    /// </returns>
    public TextConditioning EncodeText(PromptTokens tokens)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        using DisposeScope scope = NewDisposeScope();
        var first = (ITextEncoder)TextEncoder.Module;
        if (TextEncoder2 is null)
        {
            return new TextConditioning(first.Encode(tokens.Ids).LastHiddenState.MoveToOuterDisposeScope(), null);
        }

        TextEncoderOutput one = first.Encode(tokens.Ids, withPenultimate: true);
        TextEncoderOutput two = ((ITextEncoder)TextEncoder2.Module).Encode(tokens.Ids2!, withPenultimate: true);
        return new TextConditioning(cat([one.Penultimate!, two.Penultimate!], -1).MoveToOuterDisposeScope(), two.Pooled.MoveToOuterDisposeScope());
    }

    /// <summary>Hidden states of texts for the UNet.</summary>
    /// <param name="texts">At least one; an empty text is the unconditional prompt.</param>
    public TextConditioning EncodeText(IReadOnlyList<string> texts)
    {
        using PromptTokens tokens = Tokenize(texts);
        return EncodeText(tokens);
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>Releases every component.</summary>
    public void Dispose()
    {
        if (!IsDisposed)
        {
            // Refused while another thread uses it; then the rest is as it was.
            UNet.Dispose();
            TextEncoder.Dispose();
            TextEncoder2?.Dispose();
            ReleaseVae();
            IsDisposed = true;
        }
    }

    private static int LongestText(ITextTokenizer tokenizer, LoKrModel encoder) =>
        Math.Min(((ITextEncoder)encoder.Module).MaxSequenceLength, tokenizer.MaxLength ?? int.MaxValue);

    private static Tensor Tokenize(ITextTokenizer tokenizer, LoKrModel encoder, IReadOnlyList<string> texts)
    {
        int length = LongestText(tokenizer, encoder);

        // CLIP's tokenizer pads with the end of the text unless its files name another token.
        int padding = tokenizer.PadId ?? tokenizer.EosId ?? throw new LoKrException(ErrorIds.TokenizerUnsupported, LoKrErrorKind.NotSupported,
            "The tokenizer has neither a padding token nor an end-of-text token.", "Set pad_token in tokenizer_config.json.");
        TokenMatrix tokens = new([.. texts.Select(text => tokenizer.Encode(text, maxLength: length))], padding, length);
        return tokens.IdsOn(encoder.Device);
    }
}

/// <summary>Token ids of texts for the text encoders of a pipeline, cut and padded to the length these take.</summary>
/// <param name="Ids">For the text encoder, int64 [batch, length].</param>
/// <param name="Ids2">For the second one, int64 [batch, length]; null without one.</param>
public sealed record PromptTokens(Tensor Ids, Tensor? Ids2) : IDisposable
{
    /// <summary>Releases the tensors.</summary>
    public void Dispose()
    {
        Ids.Dispose();
        Ids2?.Dispose();
    }
}

/// <summary>The encoding of texts for the UNet of a pipeline.</summary>
/// <param name="HiddenStates">A vector for each token [batch, length, width]; of both text encoders side by side in Stable Diffusion XL.</param>
/// <param name="Pooled">A vector for each text [batch, projection] by the second text encoder; null without one.</param>
public sealed record TextConditioning(Tensor HiddenStates, Tensor? Pooled) : IDisposable
{
    /// <summary>Releases the tensors.</summary>
    public void Dispose()
    {
        HiddenStates.Dispose();
        Pooled?.Dispose();
    }
}

/// <summary>Identifies weights by their content.</summary>
internal static class WeightFingerprint
{
    /// <summary>SHA-256 over the names, types and bytes of all parameters, in hexadecimal digits.</summary>
    public static string Compute(nn.Module module)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in module.named_parameters().OrderBy(entry => entry.name, StringComparer.Ordinal))
        {
            using DisposeScope scope = NewDisposeScope();
            hash.AppendData(Encoding.UTF8.GetBytes($"{name} {parameter.dtype} {string.Join(' ', parameter.shape)}\n"));
            hash.AppendData(parameter.detach().cpu().contiguous().bytes);
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
