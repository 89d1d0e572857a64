using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>Embeddings that a file of PEFT has whole, on a model whose input and output embeddings are one weight: one table stands for both.</summary>
internal static class TiedTables
{
    private const string Weight = ".weight";

    /// <summary>Lets the input embeddings stand for output embeddings that share their weight.</summary>
    /// <param name="root">The model.</param>
    /// <param name="adapter">Name of the adapter, for the error.</param>
    /// <param name="tables">Embeddings that the file has whole.</param>
    /// <param name="tensors">Tensors of the file.</param>
    /// <returns>The same without those output embeddings.</returns>
    /// <exception cref="Errors.LoKrException"><c>LoKr.TiedWeight</c>: the file has other values for each.</exception>
    public static (SavedEmbeddings Tables, IReadOnlyDictionary<string, Tensor> Tensors) Join(
        nn.Module root, string adapter, SavedEmbeddings tables, IReadOnlyDictionary<string, Tensor> tensors)
    {
        ILookup<nint, (string Name, nn.Module Module)> owners = TiedWeights.Owners(root);
        foreach ((string output, nn.Module module) in ModuleTree.Modules(root).Where(entry => EmbeddingNames.IsOutput(entry.Name) && tables.Modules.Contains(entry.Name)))
        {
            if (TiedWeights.PartnerOf(root, output, module, owners) is not string input || !EmbeddingNames.IsInput(input))
            {
                continue;
            }

            Dictionary<string, Tensor> joined = new(tensors, StringComparer.Ordinal);
            joined.Remove(output + Weight, out Tensor? table);
            if (!joined.TryAdd(input + Weight, table!) && !Same(joined[input + Weight], table!))
            {
                throw ModelErrors.TiedTables(adapter, input, output);
            }

            (tables, tensors) = (tables.Replace(output, input), joined);
        }

        return (tables, tensors);
    }

    private static bool Same(Tensor first, Tensor second)
    {
        using DisposeScope scope = NewDisposeScope();
        return first.dtype == second.dtype && first.shape.SequenceEqual(second.shape) && first.eq(second).all().ToBoolean();
    }
}
