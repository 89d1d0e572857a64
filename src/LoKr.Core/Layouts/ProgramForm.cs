using System.Collections.Frozen;
using LoKr.Core.Errors;

namespace LoKr.Core.Layouts;

/// <summary>The form in which a program reads the factors of a module. docs/files.md says where each rule comes from.</summary>
internal sealed record ProgramForm
{
    private static readonly FrozenDictionary<AdapterProgram, ProgramForm> s_forms = new Dictionary<AdapterProgram, ProgramForm>
    {
        [AdapterProgram.ComfyUI] = new() { Layout = AdapterLayout.Comfy, ReadsTucker = false, ReadsOddKernels = false, ReadsNorms = true, ReadsDora = true, ReadsOtherKinds = true },
        [AdapterProgram.Kohya] = new() { Layout = AdapterLayout.Kohya, ReadsTucker = false, ReadsLowRankW1 = false, PointwiseIsMatrix = true },
        [AdapterProgram.Musubi] = new() { Layout = AdapterLayout.Kohya, ReadsTucker = false, ReadsLowRankW1 = false, LinearOnly = true },
        [AdapterProgram.Diffusers] = new() { Layout = AdapterLayout.Diffusers, HasAlpha = false },
        [AdapterProgram.AiToolkit] = new() { Layout = AdapterLayout.Comfy, ReadsTucker = false },
        [AdapterProgram.OneTrainer] = new() { Layout = AdapterLayout.OneTrainer, ReadsTucker = false, ReadsDora = true },
        [AdapterProgram.SimpleTuner] = new() { Layout = AdapterLayout.Lycoris, ReadsTucker = false, ReadsNorms = true, ReadsDora = true, ReadsOtherKinds = true },
        [AdapterProgram.Peft] = new() { Layout = AdapterLayout.Peft, HasAlpha = false, ReadsOwnOptions = true, ReadsLoraFiles = false },
        [AdapterProgram.Vllm] = new() { Layout = AdapterLayout.Peft, HasAlpha = false, ReadsLoraFiles = false },
    }.ToFrozenDictionary();

    /// <summary>The layout whose names a module gets that the program has no name for.</summary>
    public required AdapterLayout Layout { get; init; }

    /// <summary>Whether alpha is a tensor; otherwise the scale is part of w1.</summary>
    public bool HasAlpha { get; init; } = true;

    /// <summary>Whether a core of a convolution is read. Multiplied into w2_b it is the same product with the same rank.</summary>
    public bool ReadsTucker { get; init; } = true;

    /// <summary>Whether a w1 of two factors is read.</summary>
    public bool ReadsLowRankW1 { get; init; } = true;

    /// <summary>Whether a whole w2 of a convolution over one or three dimensions is multiplied rightly.</summary>
    public bool ReadsOddKernels { get; init; } = true;

    /// <summary>Whether the whole w2 of a 1×1 convolution has two dimensions.</summary>
    public bool PointwiseIsMatrix { get; init; }

    /// <summary>Whether only linear layers are read.</summary>
    public bool LinearOnly { get; init; }

    /// <summary>Whether changes of norms are read.</summary>
    public bool ReadsNorms { get; init; }

    /// <summary>Whether other kinds of adapters of LyCORIS are read: LoCon, LoHa, full differences.</summary>
    public bool ReadsOtherKinds { get; init; }

    /// <summary>Whether one file with LoRA alone is read; PEFT and vLLM read folders.</summary>
    public bool ReadsLoraFiles { get; init; } = true;

    /// <summary>Whether DoRA's magnitudes are read.</summary>
    public bool ReadsDora { get; init; }

    /// <summary>Whether the options of this library are stored beside the file for readers that know them.</summary>
    public bool ReadsOwnOptions { get; init; }

    /// <summary>The form of a program.</summary>
    public static ProgramForm Of(AdapterProgram program) => s_forms[program];

    /// <summary>Why a program cannot hold a module in any form; null if it can.</summary>
    public string? Obstacle(AdapterModule module) =>
        LinearOnly && module.Kernel is { Count: > 0 } ? OtherObstacle.Kernel.Why
        : !ReadsDora && !ReadsOwnOptions && module.DoraAxis is not null ? OtherObstacle.Dora.Why
        : null;

    /// <summary>Obstacles for a program in another kind of adapter of a module, the one that counts most first.</summary>
    public IEnumerable<OtherObstacle> Obstacles(OtherKind other)
    {
        if (other.IsEmbedding)
        {
            yield return OtherObstacle.Embedding;
        }

        if (!ReadsOtherKinds && !other.IsLora)
        {
            yield return OtherObstacle.Kind;
        }

        if (LinearOnly && other.HasKernel)
        {
            yield return OtherObstacle.Kernel;
        }

        if (!ReadsDora && other.HasMagnitude)
        {
            yield return OtherObstacle.Dora;
        }
    }

    /// <summary>Why a program cannot hold another kind of adapter of a module; null if it can.</summary>
    public string? Obstacle(OtherKind other) => Obstacles(other).FirstOrDefault() is not OtherObstacle first ? null
        : first == OtherObstacle.Kind ? $"it does not read {string.Join(", ", other.All)}"
        : first.Why;

    /// <summary>The module with factors that the program multiplies to the same delta, and with alpha or its scale in w1.</summary>
    /// <exception cref="LoKrException"><c>LoKr.ConversionUnsupported</c>: there are no such factors.</exception>
    public AdapterModule Shape(AdapterModule module, AdapterProgram program)
    {
        AdapterModule result = AdapterTensors.FoldScalar(module);
        if (result.IsReversed)
        {
            result = AdapterTensors.Swap(result) ?? throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"PEFT computes w2 ⊗ w1 from the factors of '{module.Name}', a one-dimensional convolution, and {program} w1 ⊗ w2; with a kernel of {module.Geometry.Kernel![0]} no factors mean the same to both.",
                "Convert the adapter to LoRA.") { Target = module.Name };
        }

        result = AdapterTensors.WithCore(result, peft: false);
        result = ReadsTucker ? result : AdapterTensors.FoldCore(result);
        result = ReadsLowRankW1 ? result : AdapterTensors.WholeW1(result);
        result = !ReadsOddKernels && result.Geometry is { InnerRank: null, Kernel.Count: 1 or 3 } ? AdapterTensors.Flat(result) : result;
        result = PointwiseIsMatrix && result.Geometry is { InnerRank: null, Kernel.Count: > 0 } && result.Geometry.Kernel.All(static size => size == 1) ? AdapterTensors.WithoutKernel(result) : result;
        return HasAlpha ? AdapterTensors.WithAlpha(result) : AdapterTensors.WithoutAlpha(AdapterTensors.Scaled(result, result.Scale.Factor));
    }
}

/// <summary>Obstacles for some programs in other kinds of adapters than LoKr.</summary>
/// <param name="Why">The reason, for people.</param>
internal sealed record OtherObstacle(string Why)
{
    /// <summary>Tables of embeddings.</summary>
    public static readonly OtherObstacle Embedding = new("PEFT alone has LoRA on embeddings under such names");

    /// <summary>A kind that is not LoRA.</summary>
    public static readonly OtherObstacle Kind = new("it reads LoRA, and no other kind of adapter beside LoKr");

    /// <summary>Convolutions with a kernel.</summary>
    public static readonly OtherObstacle Kernel = new("it has adapters of linear layers only");

    /// <summary>DoRA's magnitudes.</summary>
    public static readonly OtherObstacle Dora = new("it does not apply DoRA's magnitudes");
}
