using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Support;

/// <summary>Runs a model of any family on the inputs of its reference file.</summary>
internal static class ReferenceInput
{
    /// <summary>Logits, or the last hidden state of an encoder without a head.</summary>
    public static Tensor Run(LoKrModel model, ITensorSource io) => model.Module switch
    {
        VitForImageClassification images => images.call(io.Read("in.pixel_values")),
        ISequenceClassifier texts => texts.Classify(io.Read("in.input_ids"), io.Read("in.attention_mask")),
        ITextEncoder encoder => encoder.Encode(io.Read("in.input_ids"), io.Read("in.attention_mask")).LastHiddenState,
        ICausalLanguageModel language => language.Logits(io.Read("in.input_ids"), io.Read("in.attention_mask")),
        _ => throw new NotSupportedException(model.Name),
    };
}
