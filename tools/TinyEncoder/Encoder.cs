using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch.nn;
using static TorchSharp.torch;

namespace TinyEncoder;

/// <summary>
/// BERT (Devlin et al., arXiv:1810.04805) for pretraining, with parameters under the names of a published checkpoint. Written with torch's
/// own modules and independent of LoKr.Models, so that the two check each other.
/// </summary>
internal sealed class Encoder : Module
{
    private readonly EncoderSize _size;
    private readonly Dictionary<string, Module<Tensor, Tensor>> _parts = [];

    /// <summary>Makes an encoder with BERT's initialization.</summary>
    public Encoder(EncoderSize size)
        : base(nameof(Encoder))
    {
        _size = size;
        Add("embeddings.word_embeddings", Embedding(size.Vocabulary, size.Hidden));
        Add("embeddings.position_embeddings", Embedding(size.Positions, size.Hidden));
        Add("embeddings.token_type_embeddings", Embedding(2, size.Hidden));
        Add("embeddings.LayerNorm", LayerNorm(size.Hidden, 1e-12));
        for (int i = 0; i < size.Layers; i++)
        {
            foreach (string name in (string[])["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"])
            {
                Add($"encoder.layer.{i}.{name}", Linear(size.Hidden, size.Hidden));
            }

            Add($"encoder.layer.{i}.attention.output.LayerNorm", LayerNorm(size.Hidden, 1e-12));
            Add($"encoder.layer.{i}.intermediate.dense", Linear(size.Hidden, size.Intermediate));
            Add($"encoder.layer.{i}.output.dense", Linear(size.Intermediate, size.Hidden));
            Add($"encoder.layer.{i}.output.LayerNorm", LayerNorm(size.Hidden, 1e-12));
        }

        Add("pooler.dense", Linear(size.Hidden, size.Hidden));
        using (no_grad())
        {
            foreach (Module<Tensor, Tensor> part in _parts.Values.Where(part => part is not TorchSharp.Modules.LayerNorm))
            {
                foreach ((string name, Parameter parameter) in part.named_parameters())
                {
                    _ = name == "bias" ? init.zeros_(parameter) : init.normal_(parameter, 0, 0.02);
                }
            }
        }
    }

    /// <summary>Parameters under their published names.</summary>
    public IReadOnlyDictionary<string, Tensor> State => _parts
        .SelectMany(part => part.Value.named_parameters().Select(item => (Name: $"{part.Key}.{item.name}", Value: (Tensor)item.parameter)))
        .ToDictionary(item => item.Name, item => item.Value);

    /// <summary>Hidden states [batch, length, hidden] of ids [batch, length]; <paramref name="mask"/> is true for tokens.</summary>
    public Tensor Hidden(Tensor ids, Tensor mask)
    {
        Tensor positions = arange(ids.shape[1]).unsqueeze(0);
        Tensor x = Call("embeddings.word_embeddings", ids) + Call("embeddings.position_embeddings", positions)
            + Call("embeddings.token_type_embeddings", zeros_like(ids));
        x = Dropout(Call("embeddings.LayerNorm", x));
        for (int i = 0; i < _size.Layers; i++)
        {
            string layer = $"encoder.layer.{i}";
            Tensor attended = functional.scaled_dot_product_attention(
                Heads($"{layer}.attention.self.query", x), Heads($"{layer}.attention.self.key", x), Heads($"{layer}.attention.self.value", x),
                mask.unsqueeze(1).unsqueeze(1));
            attended = attended.transpose(1, 2).reshape(x.shape);
            x = Call($"{layer}.attention.output.LayerNorm", x + Dropout(Call($"{layer}.attention.output.dense", attended)));
            Tensor wide = functional.gelu(Call($"{layer}.intermediate.dense", x));
            x = Call($"{layer}.output.LayerNorm", x + Dropout(Call($"{layer}.output.dense", wide)));
        }

        return x;
    }

    /// <summary>Pooled vectors [batch, hidden] of hidden states.</summary>
    public Tensor Pool(Tensor hidden) => tanh(Call("pooler.dense", hidden[.., 0]));

    /// <summary>The word embeddings [vocabulary, hidden].</summary>
    public Tensor Words => ((TorchSharp.Modules.Embedding)_parts["embeddings.word_embeddings"]).weight!;

    private static Tensor Dropout(Tensor x) => functional.dropout(x, 0.1, training: true);

    private Tensor Heads(string name, Tensor x) => Call(name, x).view(x.shape[0], x.shape[1], _size.Heads, -1).transpose(1, 2);

    private Tensor Call(string name, Tensor x) => _parts[name].call(x);

    private void Add(string name, Module<Tensor, Tensor> part)
    {
        _parts.Add(name, part);
        register_module(name.Replace('.', '_'), part);
    }
}
