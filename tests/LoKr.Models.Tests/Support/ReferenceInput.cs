using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Support;

/// <summary>Runs a model of any family on the inputs of its reference file.</summary>
internal static class ReferenceInput
{
    /// <summary>Logits, or the last hidden state of an encoder without a head.</summary>
    public static Tensor Run(LoKrModel model, ITensorSource io) => model.Module switch
    {
        VitForImageClassification images => images.call(io.Read("in.pixel_values")),
        ISequenceClassifier texts => texts.Classify(
            io.Read("in.input_ids"), io.Read("in.attention_mask"), io.Entries.ContainsKey("in.token_type_ids") ? io.Read("in.token_type_ids") : null),
        ITokenClassifier words => AtTokens(words.ClassifyTokens(io.Read("in.input_ids"), io.Read("in.attention_mask")), io),
        ITextEncoder encoder => encoder.Encode(io.Read("in.input_ids"), io.Read("in.attention_mask")).LastHiddenState,
        ICausalLanguageModel language => language.Logits(io.Read("in.input_ids"), io.Read("in.attention_mask")),
        _ => throw new NotSupportedException(model.Name),
    };

    /// <summary>An expected output; that of tokens without those of padding, which have no meaning.</summary>
    public static Tensor Expected(LoKrModel model, Tensor output, ITensorSource io) => model.Module is ITokenClassifier ? AtTokens(output, io) : output;

    private static Tensor AtTokens(Tensor logits, ITensorSource io) => logits * io.Read("in.attention_mask").unsqueeze(-1);

    /// <summary>The loss of the labels of the reference file: cross entropy over labels other than -100, in language models of the next token.</summary>
    public static Tensor Loss(LoKrModel model, ITensorSource io)
    {
        Tensor labels = io.Read("labels");
        if (model.Module is not ICausalLanguageModel language)
        {
            return nn.functional.cross_entropy(Run(model, io).flatten(0, -2), labels.flatten());
        }

        // Only the positions that carry loss are projected; no mask, because padding is on the right.
        Tensor next = nn.functional.pad(labels, [0, 1], PaddingModes.Constant, -100).narrow(1, 1, labels.shape[1]).flatten();
        Tensor positions = next.ne(-100).nonzero().flatten();
        Tensor hidden = language.HiddenStates(io.Read("in.input_ids")).flatten(0, 1).index_select(0, positions);
        return nn.functional.cross_entropy(language.Project(hidden), next.index_select(0, positions));
    }
}
