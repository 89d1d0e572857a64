using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layouts;

/// <summary>The tensors of another kind of adapter of one module, carried as they are.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the module.</param>
/// <param name="IsDotted">Whether the name has its dots.</param>
/// <param name="Tensors">Tensors by the rest of their names.</param>
internal sealed record AdapterOther(AdapterComponent Component, string Name, bool IsDotted, IReadOnlyDictionary<string, Tensor> Tensors)
{
    private const string UpName = "lora_up.weight";
    private const string DownName = "lora_down.weight";

    /// <summary>Kind of its tensors.</summary>
    public OtherKind Kind => new(Tensors.Select(static pair => KeyValuePair.Create(pair.Key, (IReadOnlyList<long>)pair.Value.shape)));

    /// <summary>The tensors with PEFT's names of the two matrices, or kohya's where the name of the module has underscores in place of dots; a core has kohya's everywhere.</summary>
    /// <param name="module">Name of the module as it is written.</param>
    /// <param name="readsBoth">Whether both names are read after a name with dots, so that they stay as they are.</param>
    public IEnumerable<KeyValuePair<string, Tensor>> As(string module, bool readsBoth)
    {
        if (readsBoth && module.Contains('.', StringComparison.Ordinal))
        {
            return Tensors;
        }

        bool isKohya = !module.Contains('.', StringComparison.Ordinal) || Tensors.Keys.Any(static rest => rest.StartsWith("lora_mid", StringComparison.Ordinal));
        return Tensors.Select(pair => KeyValuePair.Create(isKohya ? AdapterSuffixes.Kohya(pair.Key) : AdapterSuffixes.Peft(pair.Key), pair.Value));
    }

    /// <summary>The same with its scale multiplied into the matrix of the rows, for readers of files without alpha.</summary>
    public AdapterOther WithoutAlpha()
    {
        OtherKind kind = Kind;
        if (!kind.IsLora || kind.IsEmbedding || !Tensors.TryGetValue(AdapterSuffixes.Alpha, out Tensor? alpha))
        {
            return this;
        }

        using IDisposable noGrad = no_grad();
        (string up, string down) = (kind.Parts[OtherKind.Up], kind.Parts[OtherKind.Down]);
        double scale = alpha.to(float64).ToDouble() / Tensors[down].shape[0];
        return this with
        {
            Tensors = Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha)
                .ToDictionary(static pair => pair.Key, pair => scale != 1 && pair.Key == up ? (pair.Value.to(float64) * scale).to(pair.Value.dtype) : pair.Value, StringComparer.Ordinal),
        };
    }

    /// <summary>LoRA as the product 1 ⊗ (up · down), with the same scale.</summary>
    public AdapterModule AsFactors()
    {
        OtherKind kind = Kind;
        (Tensor up, Tensor down) = (Tensors[kind.Parts[OtherKind.Up]], Tensors[kind.Parts[OtherKind.Down]]);
        (long rows, long rank, long columns) = (up.shape[0], down.shape[0], down.shape[1]);
        Tensor? core = kind.HasCore ? Tensors[kind.Parts[OtherKind.Core]] : null;
        long[] kernel = core is null ? down.shape[2..] : core.shape[2..];
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal)
        {
            [FactorNames.W1] = ones(1, 1, dtype: up.dtype),
            [FactorNames.W2A] = core is null ? up.reshape(rows, rank) : up.reshape(rows, -1).t().contiguous(),
            [FactorNames.W2B] = down.reshape(rank, -1),
        };
        if (core is not null)
        {
            tensors[FactorNames.T2] = core;
        }

        if (Tensors.TryGetValue(FactorNames.DoraScale, out Tensor? magnitude))
        {
            tensors[FactorNames.DoraScale] = magnitude;
        }

        double? alpha = Tensors.TryGetValue(AdapterSuffixes.Alpha, out Tensor? stored) ? stored.to(float64).ToDouble() : null;
        FactorGeometry geometry = core is null ? new(1, 1, rows, columns * kernel.Product(), null, null, rank, false) : new(1, 1, rows, columns, kernel, null, rank, true);
        return new(Component, Name, IsDotted, geometry, new(rank, alpha ?? rank, ScalingConvention.Lycoris, (alpha ?? rank) / rank), tensors)
        {
            WeightShape = [rows, columns, .. kernel],
            DoraAxis = magnitude is null ? null : OtherKind.AxisOf(magnitude.shape, rows),
        };
    }

    /// <summary>LoRA on a linear layer of the module that <see cref="AsFactors"/> made of it, or of rows of that.</summary>
    /// <param name="module">The module.</param>
    public static AdapterOther OfFactors(AdapterModule module)
    {
        Dictionary<string, Tensor> tensors = Lora(module.Tensors[FactorNames.W2A], module.Tensors[FactorNames.W2B], module.Scale.Factor);
        if (module.DoraAxis is not null)
        {
            tensors.Add(FactorNames.DoraScale, module.Tensors[FactorNames.DoraScale]);
        }

        return new(module.Component, module.Name, module.IsDotted, tensors);
    }

    /// <summary>
    /// LoRA of several parts of a weight as LoRA of the weight: the matrices of the columns one below the other, those of the rows block by block. Parts with
    /// the same matrix of the columns share it. Rows without a part are zero.
    /// </summary>
    /// <param name="name">Name of the weight.</param>
    /// <param name="parts">Modules that <see cref="AsFactors"/> made, of linear layers without magnitudes, with their first rows.</param>
    /// <param name="rows">Number of rows in all.</param>
    public static AdapterOther Join(string name, IReadOnlyList<(AdapterModule Module, long Start)> parts, long rows)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        double scale = parts.Select(static part => part.Module.Scale.Factor).FirstOrDefault(static factor => factor != 0, 1);
        List<(Tensor Down, long First)> blocks = [];
        List<(Tensor Up, long Row, long Column)> placed = [];
        long rank = 0;
        foreach ((AdapterModule module, long start) in parts)
        {
            Tensor down = module.Tensors[FactorNames.W2B];
            int index = blocks.FindIndex(block => IsSame(block.Down, down));
            if (index < 0)
            {
                index = blocks.Count;
                blocks.Add((down, rank));
                rank += down.shape[0];
            }

            // Parts mostly have one scale, and nothing is rounded.
            placed.Add((ScaledMatrix.Times(module.Tensors[FactorNames.W2A], module.Scale.Factor / scale), start, blocks[index].First));
        }

        ScalarType type = placed[0].Up.dtype;
        Tensor whole = zeros(rows, rank, dtype: placed.TrueForAll(part => part.Up.dtype == type) ? type : float32);
        placed.ForEach(part => whole.narrow(0, part.Row, part.Up.shape[0]).narrow(1, part.Column, part.Up.shape[1]).copy_(part.Up));
        Dictionary<string, Tensor> tensors = Lora(whole, cat([.. blocks.Select(static block => block.Down)], 0), scale);
        foreach (Tensor tensor in tensors.Values)
        {
            tensor.MoveToOuterDisposeScope();
        }

        return new(parts[0].Module.Component, name, IsDotted: true, tensors);
    }

    private static Dictionary<string, Tensor> Lora(Tensor up, Tensor down, double scale) => new(StringComparer.Ordinal)
    {
        [UpName] = up.contiguous(),
        [DownName] = down.contiguous(),
        [AdapterSuffixes.Alpha] = tensor((float)(scale * down.shape[0])),
    };

    private static bool IsSame(Tensor first, Tensor second) => first.dtype == second.dtype && first.shape.SequenceEqual(second.shape) && first.eq(second).all().ToBoolean();
}
