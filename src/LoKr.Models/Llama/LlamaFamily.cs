namespace LoKr.Models.Llama;

/// <summary>What tells Llama, Mistral, Qwen2 and Qwen3 apart: everything else of the decoder is the same.</summary>
internal sealed record LlamaFamily
{
    public static LlamaFamily Llama { get; } = new()
    {
        ModelType = "llama",
        Name = "LlamaForCausalLM",
        DefaultPositions = 2048,
        DefaultEosId = 2,
        InputBias = config => config.GetBool("attention_bias", false),
        OutputBias = config => config.GetBool("attention_bias", false),
        MlpBias = config => config.GetBool("mlp_bias", false),
        Windows = (_, layers) => new int?[layers],
    };

    public static LlamaFamily Mistral { get; } = new()
    {
        ModelType = "mistral",
        Name = "MistralForCausalLM",
        DefaultPositions = 131072,
        DefaultKeyHeads = 8,
        DefaultEosId = 2,
        Windows = SlidingWindow.OfMistral,
    };

    public static LlamaFamily Qwen2 { get; } = new()
    {
        ModelType = "qwen2",
        Name = "Qwen2ForCausalLM",
        DefaultPositions = 32768,
        DefaultKeyHeads = 32,
        InputBias = _ => true,
        Windows = SlidingWindow.OfQwen,
    };

    public static LlamaFamily Qwen3 { get; } = new()
    {
        ModelType = "qwen3",
        Name = "Qwen3ForCausalLM",
        DefaultPositions = 32768,
        DefaultKeyHeads = 32,
        DefaultHeadWidth = 128,
        InputBias = config => config.GetBool("attention_bias", false),
        OutputBias = config => config.GetBool("attention_bias", false),
        HasHeadNorms = true,
        Windows = SlidingWindow.OfQwen,
    };

    /// <summary>The <c>model_type</c>.</summary>
    public required string ModelType { get; init; }

    /// <summary>Class name as transformers has it.</summary>
    public required string Name { get; init; }

    /// <summary>Longest sequence where the configuration leaves it out.</summary>
    public required int DefaultPositions { get; init; }

    /// <summary>Key and value heads where the configuration leaves the key out; null for as many as query heads, which an explicit null means too.</summary>
    public int? DefaultKeyHeads { get; init; }

    /// <summary>Width of a head where the configuration leaves it out; null for hidden size / heads.</summary>
    public int? DefaultHeadWidth { get; init; }

    /// <summary>End of text where the configuration leaves the key out.</summary>
    public int? DefaultEosId { get; init; }

    /// <summary>Whether query, key and value projections have a bias.</summary>
    public Func<ModelConfig, bool> InputBias { get; init; } = _ => false;

    /// <summary>Whether the output projection of the attention has a bias.</summary>
    public Func<ModelConfig, bool> OutputBias { get; init; } = _ => false;

    /// <summary>Whether the feed-forward layers have biases.</summary>
    public Func<ModelConfig, bool> MlpBias { get; init; } = _ => false;

    /// <summary>Whether queries and keys are normalised per head.</summary>
    public bool HasHeadNorms { get; init; }

    /// <summary>Attention window of each of so many layers; null for all positions.</summary>
    public required Func<ModelConfig, int, int?[]> Windows { get; init; }
}
