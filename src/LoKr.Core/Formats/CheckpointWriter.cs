using TorchSharp;

namespace LoKr.Core.Formats;

/// <summary>Writes a model's weights as Hugging Face folders hold them, in one file or in shards with an index.</summary>
public static class CheckpointWriter
{
    /// <summary>Writes the weights into a folder that exists.</summary>
    public static void Write(string folder, IReadOnlyDictionary<string, torch.Tensor> tensors, long maxShardBytes = long.MaxValue, string baseName = "model") => throw new NotImplementedException();
}
