using TorchSharp;

namespace LoKr.Core.Conversion;

/// <summary>A LoRA adapter made from a LoKr adapter: what PEFT's <c>convert_to_lora</c> gives. Owns its tensors.</summary>
public sealed class LoraAdapter : IDisposable
{
    internal LoraAdapter(LoraConfig config, IReadOnlyDictionary<string, torch.Tensor> tensors, IReadOnlyDictionary<string, int> ranks, double energy)
    {
        Config = config;
        Tensors = tensors;
        Ranks = ranks;
        Energy = energy;
    }

    /// <summary>Its configuration.</summary>
    public LoraConfig Config { get; }

    /// <summary>Tensors by name without <c>base_model.model.</c>: <c>MODULE.lora_A.weight</c> r×in×kernel, <c>MODULE.lora_B.weight</c> out×r, and saved modules.</summary>
    public IReadOnlyDictionary<string, torch.Tensor> Tensors { get; }

    /// <summary>Rank of each layer by full module name.</summary>
    public IReadOnlyDictionary<string, int> Ranks { get; }

    /// <summary>Share of the squared norm of all deltas that the LoRA weights hold; 1 for a conversion without loss.</summary>
    public double Energy { get; }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (torch.Tensor tensor in Tensors.Values)
        {
            tensor.Dispose();
        }
    }
}
