using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>The tensors of another kind of adapter of one module, carried as they are.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the module.</param>
/// <param name="IsDotted">Whether the name has its dots.</param>
/// <param name="Tensors">Tensors by the rest of their names.</param>
internal sealed record AdapterOther(AdapterComponent Component, string Name, bool IsDotted, IReadOnlyDictionary<string, torch.Tensor> Tensors)
{
    private static readonly string[] s_lora = ["lora_A", "lora_B", "lora_up", "lora_down", "lora_mid", "lora_embedding_A", "lora_embedding_B", AdapterSuffixes.Alpha, FactorNames.DoraScale];

    /// <summary>Whether there are the matrices of LoRA and what belongs to them, and nothing else.</summary>
    public bool IsLora => Tensors.Keys.All(static rest => s_lora.Contains(AdapterSuffixes.Part(rest)));

    /// <summary>Names of the kinds of its tensors.</summary>
    public IEnumerable<string> Kinds => Tensors.Keys.Select(static rest => AdapterSuffixes.Foreign.GetValueOrDefault(AdapterSuffixes.Part(rest))).OfType<string>().Distinct();

    /// <summary>Whether it is a table of embeddings under the names that PEFT alone has.</summary>
    public bool IsEmbedding => Tensors.ContainsKey("lora_embedding_A");

    /// <summary>Whether the layer is a convolution with a kernel.</summary>
    public bool HasKernel => Tensors.Any(static pair => pair.Key.StartsWith("lora_", StringComparison.Ordinal) && pair.Value.shape.Skip(2).Product() > 1);

    /// <summary>The tensors with PEFT's names of the two matrices, or kohya's where the name of the module has underscores in place of dots; a core has kohya's everywhere.</summary>
    /// <param name="module">Name of the module as it is written.</param>
    /// <param name="readsBoth">Whether both names are read after a name with dots, so that they stay as they are.</param>
    public IEnumerable<KeyValuePair<string, torch.Tensor>> As(string module, bool readsBoth)
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
        if (!IsLora || IsEmbedding || !Tensors.TryGetValue(AdapterSuffixes.Alpha, out torch.Tensor? alpha))
        {
            return this;
        }

        using IDisposable noGrad = torch.no_grad();
        double scale = alpha.to(torch.ScalarType.Float64).ToDouble() / Tensors.First(static pair => AdapterSuffixes.Part(AdapterSuffixes.Peft(pair.Key)) is "lora_A").Value.shape[0];
        return this with
        {
            Tensors = Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha)
                .ToDictionary(static pair => pair.Key, pair => scale != 1 && AdapterSuffixes.Part(AdapterSuffixes.Peft(pair.Key)) is "lora_B" ? (pair.Value.to(torch.ScalarType.Float64) * scale).to(pair.Value.dtype) : pair.Value, StringComparer.Ordinal),
        };
    }

    /// <summary>LoRA as the product 1 ⊗ (up · down), with the same scale.</summary>
    public AdapterModule AsFactors()
    {
        Dictionary<string, torch.Tensor> parts = Tensors.ToDictionary(static pair => AdapterSuffixes.Part(AdapterSuffixes.Peft(pair.Key)), static pair => pair.Value, StringComparer.Ordinal);
        (torch.Tensor up, torch.Tensor down) = (parts["lora_B"], parts["lora_A"]);
        (long rows, long rank, long columns) = (up.shape[0], down.shape[0], down.shape[1]);
        torch.Tensor? core = parts.GetValueOrDefault("lora_mid");
        long[] kernel = core is null ? down.shape[2..] : core.shape[2..];
        Dictionary<string, torch.Tensor> tensors = new(StringComparer.Ordinal)
        {
            [FactorNames.W1] = torch.ones(1, 1, dtype: up.dtype),
            [FactorNames.W2A] = core is null ? up.reshape(rows, rank) : up.reshape(rows, -1).t().contiguous(),
            [FactorNames.W2B] = down.reshape(rank, -1),
        };
        if (core is not null)
        {
            tensors[FactorNames.T2] = core;
        }

        if (parts.TryGetValue(FactorNames.DoraScale, out torch.Tensor? magnitude))
        {
            tensors[FactorNames.DoraScale] = magnitude;
        }

        double? alpha = parts.TryGetValue(AdapterSuffixes.Alpha, out torch.Tensor? stored) ? stored.to(torch.ScalarType.Float64).ToDouble() : null;
        FactorGeometry geometry = core is null ? new(1, 1, rows, columns * kernel.Product(), null, null, rank, false) : new(1, 1, rows, columns, kernel, null, rank, true);
        return new(Component, Name, IsDotted, geometry, new(rank, alpha ?? rank, ScalingConvention.Lycoris, (alpha ?? rank) / rank), tensors)
        {
            WeightShape = [rows, columns, .. kernel],
            DoraAxis = magnitude is null ? null : magnitude.shape is [1, > 1, ..] ? WeightDecomposeAxis.Input : WeightDecomposeAxis.Output,
        };
    }
}
