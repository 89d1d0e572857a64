using LoKr.Models.Shared;
using static TorchSharp.torch;

namespace LoKr.Models.Llama;

/// <summary>The sizes and switches of a decoder, checked.</summary>
internal sealed record LlamaSettings
{
    /// <summary>Reads and checks a configuration.</summary>
    public LlamaSettings(ModelConfig config, ModelBuildOptions options, LlamaFamily family)
    {
        VocabularySize = config.GetSize("vocab_size");
        HiddenSize = config.GetSize("hidden_size");
        IntermediateSize = config.GetSize("intermediate_size");
        LayerCount = config.GetSize("num_hidden_layers");
        HeadCount = config.GetSize("num_attention_heads");

        // An explicit null means as many as query heads, which is not what the missing key means in every family.
        KeyHeadCount = config.GetSize("num_key_value_heads", config.Json.ContainsKey("num_key_value_heads") ? HeadCount : family.DefaultKeyHeads ?? HeadCount);
        HeadWidth = config.GetSize("head_dim", config.Json.ContainsKey("head_dim") ? HiddenSize / HeadCount : family.DefaultHeadWidth ?? HiddenSize / HeadCount);
        CheckHeads(config);

        NormEpsilon = config.GetDouble("rms_norm_eps", 1e-6);
        AttentionDropout = config.GetProbability("attention_dropout", 0);
        HasInputBias = family.InputBias(config);
        HasOutputBias = family.OutputBias(config);
        HasMlpBias = family.MlpBias(config);
        HasHeadNorms = family.HasHeadNorms;
        IsTied = config.GetBool("tie_word_embeddings", false);
        Activation = Shared.Activation.Get(config, "hidden_act", "silu");
        Windows = family.Windows(config, LayerCount);
        Rope = new RopeSettings(config, HeadWidth, config.GetSize("max_position_embeddings", family.DefaultPositions));
        Device = options.Device;
        DType = options.DType;
    }

    public int VocabularySize { get; }

    public int HiddenSize { get; }

    public int IntermediateSize { get; }

    public int LayerCount { get; }

    public int HeadCount { get; }

    public int KeyHeadCount { get; }

    public int HeadWidth { get; }

    public double NormEpsilon { get; }

    public double AttentionDropout { get; }

    public bool HasInputBias { get; }

    public bool HasOutputBias { get; }

    public bool HasMlpBias { get; }

    public bool HasHeadNorms { get; }

    public bool IsTied { get; }

    public Func<Tensor, Tensor> Activation { get; }

    public IReadOnlyList<int?> Windows { get; }

    public RopeSettings Rope { get; }

    public Device Device { get; }

    public ScalarType DType { get; }

    private void CheckHeads(ModelConfig config)
    {
        if (HeadWidth == 0 || HeadWidth % 2 != 0)
        {
            throw config.Invalid("head_dim", $"is {HeadWidth}; the channels of a head are turned in pairs");
        }

        if (!config.Has("head_dim") && HiddenSize % HeadCount != 0)
        {
            throw config.Invalid("num_attention_heads", $"is {HeadCount}, which does not divide the hidden_size {HiddenSize}");
        }

        if (HeadCount % KeyHeadCount != 0)
        {
            throw config.Invalid("num_key_value_heads", $"is {KeyHeadCount}, which does not divide the {HeadCount} attention heads");
        }
    }
}
