using LoKr.Core.Configuration;
using LoKr.Models.Families;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>The configuration of a conditional UNet, checked.</summary>
internal sealed record UNetSettings
{
    private static readonly HashSet<string> s_known = new(StringComparer.Ordinal)
    {
        "sample_size", "in_channels", "out_channels", "center_input_sample", "flip_sin_to_cos", "freq_shift", "down_block_types", "mid_block_type",
        "up_block_types", "only_cross_attention", "block_out_channels", "layers_per_block", "downsample_padding", "mid_block_scale_factor", "dropout",
        "act_fn", "norm_num_groups", "norm_eps", "cross_attention_dim", "transformer_layers_per_block", "attention_head_dim", "use_linear_projection",
        "addition_embed_type", "addition_time_embed_dim", "upcast_attention", "resnet_time_scale_shift", "resnet_out_scale_factor",
        "time_embedding_dim", "time_embedding_act_fn", "timestep_post_act", "conv_in_kernel", "conv_out_kernel", "projection_class_embeddings_input_dim",

        // Of kinds of blocks and embeddings that are refused by their types.
        "mid_block_only_cross_attention", "addition_embed_type_num_heads",
    };

    private static readonly Dictionary<string, string> s_only = new(StringComparer.Ordinal)
    {
        ["reverse_transformer_layers_per_block"] = "null",
        ["encoder_hid_dim"] = "null",
        ["encoder_hid_dim_type"] = "null",
        ["num_attention_heads"] = "null",
        ["dual_cross_attention"] = "false",
        ["class_embed_type"] = "null",
        ["num_class_embeds"] = "null",
        ["class_embeddings_concat"] = "false",
        ["resnet_skip_time_act"] = "false",
        ["time_embedding_type"] = "\"positional\"",
        ["time_cond_proj_dim"] = "null",
        ["attention_type"] = "\"default\"",
        ["cross_attention_norm"] = "null",
    };

    /// <summary>Reads and checks a configuration.</summary>
    public UNetSettings(ModelConfig config, ModelBuildOptions options)
    {
        DiffusersOptions.Check(config, s_known, s_only);
        Device = options.Device;
        DType = options.DType;
        DownBlockTypes = DiffusersOptions.BlockTypes(
            config, "down_block_types", ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"], "CrossAttnDownBlock2D", "DownBlock2D");
        UpBlockTypes = DiffusersOptions.BlockTypes(
            config, "up_block_types", ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"], "UpBlock2D", "CrossAttnUpBlock2D");
        int blocks = DownBlockTypes.Count;
        Channels = DiffusersOptions.Channels(config, blocks, UpBlockTypes.Count, [320, 640, 1280, 1280]);

        // Null means no middle block, an absent key the default one.
        HasMidBlock = !config.Contains("mid_block_type") || config.Has("mid_block_type");
        if (HasMidBlock && config.GetString("mid_block_type", "UNetMidBlock2DCrossAttn") is not "UNetMidBlock2DCrossAttn" and string mid)
        {
            throw config.Unsupported("mid_block_type", $"is '{mid}'; supported is UNetMidBlock2DCrossAttn");
        }

        SampleSize = config.Has("sample_size") ? ReadSampleSize(config) : null;
        InChannels = config.GetSize("in_channels", 4);
        OutChannels = config.GetSize("out_channels", 4);
        CentersInput = config.GetBool("center_input_sample", false);
        TimeProjection = new TimestepProjection(Channels[0], config.GetBool("flip_sin_to_cos", true), config.GetDouble("freq_shift", 0));
        TimeWidth = config.GetSize("time_embedding_dim", Channels[0] * 4);
        TimePostActivation = config.Has("timestep_post_act") ? Activation.Get(config, "timestep_post_act") : null;
        TimeActivation = config.Has("time_embedding_act_fn") ? Activation.Get(config, "time_embedding_act_fn") : null;
        OnlyCrossAttention = ReadOnlyCrossAttention(config, blocks);
        LayerCounts = DiffusersOptions.PerBlock(config, "layers_per_block", blocks, 2);
        TransformerDepths = DiffusersOptions.PerBlock(config, "transformer_layers_per_block", blocks, 1);
        ContextWidths = DiffusersOptions.PerBlock(config, "cross_attention_dim", blocks, 1280);

        // The name says width, but every published configuration and diffusers itself mean the number of heads.
        HeadCounts = DiffusersOptions.PerBlock(config, "attention_head_dim", blocks, 8);
        DownsamplePadding = config.GetInt("downsample_padding", 1);
        MidScale = config.GetDouble("mid_block_scale_factor", 1);
        ResnetScale = config.GetDouble("resnet_out_scale_factor", 1);
        Dropout = config.GetProbability("dropout", 0);
        Activate = Activation.Get(config, "act_fn", "silu");
        GroupCount = config.Contains("norm_num_groups") && !config.Has("norm_num_groups")
            ? throw config.Unsupported("norm_num_groups", "is null; only a UNet with group norms is supported")
            : config.GetSize("norm_num_groups", 32);
        NormEpsilon = config.GetDouble("norm_eps", 1e-5);
        HasLinearProjection = config.GetBool("use_linear_projection", false);
        UpcastsAttention = config.GetBool("upcast_attention", false);
        TimeScaleShift = config.GetString("resnet_time_scale_shift", "default") switch
        {
            "default" => false,
            "scale_shift" => true,
            var other => throw config.Unsupported("resnet_time_scale_shift", $"is '{other}'; supported are default and scale_shift"),
        };
        InKernel = ReadKernel(config, "conv_in_kernel");
        OutKernel = ReadKernel(config, "conv_out_kernel");
        ReadAddition(config);

        for (int i = 0; i < blocks; i++)
        {
            DiffusersOptions.CheckDivides(config, "norm_num_groups", GroupCount, Channels[i]);
            if (DownBlockTypes[i] == "CrossAttnDownBlock2D" || UpBlockTypes[^(i + 1)] == "CrossAttnUpBlock2D" || (HasMidBlock && i == blocks - 1))
            {
                DiffusersOptions.CheckDivides(config, "attention_head_dim", HeadCounts[i], Channels[i]);
            }
        }
    }

    /// <summary>Height and width of the latents the UNet was trained on; null if the configuration lacks them.</summary>
    public int? SampleSize { get; }

    public int InChannels { get; }

    public int OutChannels { get; }

    /// <summary>Whether latents are mapped from [0, 1] to [−1, 1] first.</summary>
    public bool CentersInput { get; }

    public IReadOnlyList<string> DownBlockTypes { get; }

    public bool HasMidBlock { get; }

    public IReadOnlyList<string> UpBlockTypes { get; }

    /// <summary>By down block, as all lists here; up blocks take them from the end.</summary>
    public IReadOnlyList<int> Channels { get; }

    public IReadOnlyList<int> LayerCounts { get; }

    public IReadOnlyList<int> TransformerDepths { get; }

    public IReadOnlyList<int> ContextWidths { get; }

    public IReadOnlyList<int> HeadCounts { get; }

    /// <summary>Whether the first attention of a block attends to the text, like the second.</summary>
    public IReadOnlyList<bool> OnlyCrossAttention { get; }

    public TimestepProjection TimeProjection { get; }

    public int TimeWidth { get; }

    public Func<Tensor, Tensor>? TimePostActivation { get; }

    public Func<Tensor, Tensor>? TimeActivation { get; }

    /// <summary>Projection of each number of the added conditions; null for a UNet without them.</summary>
    public TimestepProjection? AddedProjection { get; private set; }

    /// <summary>Width of the added conditions, text and numbers together.</summary>
    public int AddedWidth { get; private set; }

    public int DownsamplePadding { get; }

    public double MidScale { get; }

    public double ResnetScale { get; }

    public double Dropout { get; }

    public Func<Tensor, Tensor> Activate { get; }

    public int GroupCount { get; }

    public double NormEpsilon { get; }

    public bool HasLinearProjection { get; }

    public bool UpcastsAttention { get; }

    /// <summary>Whether the time scales and shifts the normalized features; otherwise it is added to them.</summary>
    public bool TimeScaleShift { get; }

    public int InKernel { get; }

    public int OutKernel { get; }

    public Device Device { get; }

    public ScalarType DType { get; }

    /// <summary>A residual block.</summary>
    public ResnetSettings Resnet(int inChannels, int outChannels, double scale) => new()
    {
        InChannels = inChannels,
        OutChannels = outChannels,
        TimeWidth = TimeWidth,
        GroupCount = GroupCount,
        NormEpsilon = NormEpsilon,
        Activate = Activate,
        Dropout = Dropout,
        Scale = scale,
        TimeScaleShift = TimeScaleShift,
        Device = Device,
        DType = DType,
    };

    /// <summary>The transformer of a block.</summary>
    /// <param name="block">Index of the down block with its width.</param>
    /// <param name="onlyCrossAttention">Whether its first attention attends to the text.</param>
    public TransformerSettings Transformer(int block, bool onlyCrossAttention) => new()
    {
        Channels = Channels[block],
        HeadCount = HeadCounts[block],
        Depth = TransformerDepths[block],
        ContextWidth = ContextWidths[block],
        GroupCount = GroupCount,
        HasLinearProjection = HasLinearProjection,
        OnlyCrossAttention = onlyCrossAttention,
        Upcasts = UpcastsAttention,
        Device = Device,
        DType = DType,
    };

    private static int? ReadSampleSize(ModelConfig config)
    {
        IReadOnlyList<int> sizes = config.GetInts("sample_size");
        return sizes.Count is 1 or 2 && sizes.All(size => size > 0)
            ? sizes[0] == sizes[^1] ? sizes[0] : null
            : throw config.Invalid("sample_size", $"is [{string.Join(", ", sizes)}], not one or two positive numbers");
    }

    private static IReadOnlyList<bool> ReadOnlyCrossAttention(ModelConfig config, int blocks)
    {
        IReadOnlyList<bool> values = config.GetBools("only_cross_attention");
        return values.Count == 0 ? [.. Enumerable.Repeat(false, blocks)]
            : values.Count == 1 ? [.. Enumerable.Repeat(values[0], blocks)]
            : values.Count == blocks ? values
            : throw config.Invalid("only_cross_attention", $"has {values.Count} values for {blocks} blocks");
    }

    private static int ReadKernel(ModelConfig config, string key)
    {
        int kernel = config.GetSize(key, 3);
        return kernel % 2 == 1 ? kernel : throw config.Invalid(key, $"is {kernel}, not odd");
    }

    private void ReadAddition(ModelConfig config)
    {
        switch (config.FindString("addition_embed_type"))
        {
            case null:
                break;
            case "text_time":
                AddedProjection = TimeProjection with { Width = config.GetSize("addition_time_embed_dim") };
                AddedWidth = config.GetSize("projection_class_embeddings_input_dim");
                break;
            case string other:
                throw config.Unsupported("addition_embed_type", $"is '{other}'; supported is text_time");
        }
    }
}

/// <summary>The parts of the transformer of a block.</summary>
internal sealed record TransformerSettings
{
    public required int Channels { get; init; }

    public required int HeadCount { get; init; }

    /// <summary>Number of layers.</summary>
    public required int Depth { get; init; }

    /// <summary>Width of the text's hidden states.</summary>
    public required int ContextWidth { get; init; }

    public required int GroupCount { get; init; }

    /// <summary>Whether the projections in and out are linear layers; otherwise convolutions of one pixel.</summary>
    public required bool HasLinearProjection { get; init; }

    public required bool OnlyCrossAttention { get; init; }

    /// <summary>Whether attention runs in single precision under a model of half precision.</summary>
    public required bool Upcasts { get; init; }

    public required Device Device { get; init; }

    public required ScalarType DType { get; init; }

    /// <summary>One of its attention layers.</summary>
    /// <param name="contextWidth">Width of the rows that it attends to.</param>
    public AttentionSettings Attention(int contextWidth) => new()
    {
        Channels = Channels,
        ContextWidth = contextWidth,
        HeadCount = HeadCount,
        Upcasts = Upcasts,
        Device = Device,
        DType = DType,
    };
}
