using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Gguf;

namespace LoKr.Core.Conversion;

/// <summary>Where llama.cpp looks for the LoRA of a module.</summary>
/// <param name="Tensor">Name of the weight in the base model's file.</param>
/// <param name="FirstRow">First row of the module in that weight.</param>
/// <param name="TotalRows">Rows of that weight; those of the module where it is not fused.</param>
/// <param name="HeadRows">Rows of a head whose halves alternate in the file; 0 where the order of rows is that of transformers.</param>
internal sealed record GgufLoraSlot(string Tensor, long FirstRow, long TotalRows, long HeadRows);

/// <summary>The base model that a LoRA for llama.cpp is written for: its architecture, its heads, and whether attention is fused in its file.</summary>
internal sealed class GgufLoraBase
{
    private const string Weight = ".weight";

    private readonly GgufArchitecture _architecture;
    private readonly bool _ties;
    private readonly Func<string, GgufLoraSlot?> _find;

    private GgufLoraBase(GgufArchitecture architecture, bool ties, Func<string, GgufLoraSlot?> find) => (_architecture, _ties, _find) = (architecture, ties, find);

    /// <summary>Name in <c>general.architecture</c>; that of the LoRA has to be the same.</summary>
    public string Architecture => _architecture.Name;

    /// <summary>The base model is a GGUF file; it may be closed afterwards.</summary>
    public static GgufLoraBase Of(GgufModel model)
    {
        Dictionary<string, GgufLoraSlot> slots = model.Places.Where(static pair => pair.Key.EndsWith(Weight, StringComparison.Ordinal) && pair.Value.Tensor.Shape.Count == 2)
            .ToDictionary(static pair => pair.Key[..^Weight.Length], static pair => new GgufLoraSlot(pair.Value.Tensor.Name, pair.Value.FirstRow, pair.Value.Tensor.RowCount, pair.Value.HeadRows), StringComparer.Ordinal);
        return new(model.Architecture, model.TiesEmbeddings, slots.GetValueOrDefault);
    }

    /// <summary>The base model is known by its config.json; its file is as llama.cpp's converter writes it by default.</summary>
    /// <exception cref="LoKrException"><c>LoKr.ModelTypeUnknown</c>, <c>LoKr.ModelConfigInvalid</c>.</exception>
    public static GgufLoraBase Of(ModelConfig config)
    {
        GgufArchitecture architecture = GgufArchitecture.OfModelType(config.ModelType);
        return new(architecture, config.TiesEmbeddings ?? architecture.TiesByDefault, module =>
            architecture.TensorOf(module) is not string tensor ? null
            : new(tensor + Weight, 0, 0, architecture.IsPermuted(tensor) ? HeadSize(config) : 0));
    }

    /// <summary>Where the LoRA of a module goes.</summary>
    /// <param name="module">Full name of the module.</param>
    /// <param name="rows">Rows of its weight.</param>
    /// <exception cref="LoKrException"><c>LoKr.ConversionUnsupported</c>: the file has no weight for it, or the runtime cannot apply a LoRA to it.</exception>
    public GgufLoraSlot Find(string module, long rows)
    {
        GgufLoraSlot slot = _find(module) ?? _find("model." + module) ?? throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
            $"llama.cpp's {Architecture} has no weight for '{module}'.", "Train the adapter without this module, or merge it into the model.") { Target = module };
        return _ties && slot.Tensor is "token_embd.weight" or "output.weight"
            ? throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"'{module}' shares its weight with the {(slot.Tensor == "output.weight" ? "input embeddings" : "output")} of the base model, and llama.cpp has no LoRA for such a weight.",
                "Train the adapter without this module.") { Target = module }
            : slot.HeadRows > 0 && rows % slot.HeadRows != 0
            ? throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
                $"'{module}' has {rows} rows, which are not whole heads of {slot.HeadRows}.", "The adapter was made for another model.") { Target = module }
            : slot.TotalRows == 0 ? slot with { TotalRows = rows } : slot;
    }

    private static long HeadSize(ModelConfig config) => config.FindInt("head_dim") ?? (config.GetInt("hidden_size") / config.GetInt("num_attention_heads"));
}
