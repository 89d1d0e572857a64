using TorchSharp;

namespace LoKr.Core.Modeling;

/// <summary>A model that gives one score per label for a batch of images.</summary>
public interface IImageClassifier : IPretrainedModel
{
    /// <summary>Label names in the order of the logits.</summary>
    IReadOnlyList<string> Labels { get; }

    /// <summary>Colour channels of an image.</summary>
    int ChannelCount { get; }

    /// <summary>Height of an image in pixels.</summary>
    int ImageHeight { get; }

    /// <summary>Width of an image in pixels.</summary>
    int ImageWidth { get; }

    /// <summary>Scores of a batch.</summary>
    /// <param name="pixelValues">Normalised images, floating point [batch, channels, height, width].</param>
    /// <returns>Logits [batch, labels].</returns>
    torch.Tensor Classify(torch.Tensor pixelValues);
}
