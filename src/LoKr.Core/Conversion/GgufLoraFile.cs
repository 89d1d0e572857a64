using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Gguf;
using LoKr.Core.IO;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Conversion;

/// <summary>
/// Writes LoRA as llama.cpp loads it beside a model: <c>NAME.weight.lora_a</c> and <c>.lora_b</c> in F32, the rows of B in the order of the
/// base model's file. The scale of the adapter is in B, and there is no alpha: the runtime divides an alpha by the rank of each tensor, and
/// takes a missing one as scale 1.
/// </summary>
internal static class GgufLoraFile
{
    private const string SuffixA = ".lora_A.weight";
    private const string SuffixB = ".lora_B.weight";
    private const string EmbeddingA = ".lora_embedding_A";
    private const string EmbeddingB = ".lora_embedding_B";

    /// <summary>Writes a file; it appears complete or not at all.</summary>
    /// <param name="path">File to write.</param>
    /// <param name="lora">The adapter.</param>
    /// <param name="model">Its base model.</param>
    /// <param name="name">Name of the adapter.</param>
    /// <param name="force">Whether to replace an existing file.</param>
    /// <param name="checkOnly">Whether to throw what writing would throw, and write nothing.</param>
    /// <returns>Warnings: tensors with NaN or infinity.</returns>
    /// <exception cref="LoKrException"><c>LoKr.ConversionUnsupported</c>, <c>LoKr.DestinationExists</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public static IReadOnlyList<string> Write(string path, LoraAdapter lora, GgufLoraBase model, string name, bool force, bool checkOnly)
    {
        FileSystem.CheckReplaceable(path, force);
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        string[] warnings = [.. NonFinite.Warnings(lora.Tensors)];
        (string Name, Tensor Values)[] tensors = [.. Arrange(lora, model)];
        if (checkOnly)
        {
            return warnings;
        }

        KeyValuePair<string, string>[] metadata =
        [
            new("general.architecture", model.Architecture), new("general.type", "adapter"), new("adapter.type", "lora"), new("general.name", name),
        ];
        GgufItem[] items = [.. tensors.Select(static tensor => new GgufItem(tensor.Name, GgmlType.F32, tensor.Values.shape))];
        (byte[] header, IReadOnlyList<GgufTensor> places) = GgufHeaderWriter.Build(metadata, items);
        FileSystem.CreateFolder(Path.GetDirectoryName(path)!);
        AtomicFile.Write(path, stream =>
        {
            stream.Write(header);
            foreach (((string Name, Tensor Values) tensor, GgufTensor place) in tensors.Zip(places))
            {
                stream.SetLength(place.Offset);
                stream.Position = place.Offset;
                stream.Write(tensor.Values.bytes);
            }

            stream.SetLength(GgufHeader.Align(stream.Length, GgufHeader.DefaultAlignment));
        });
        return warnings;
    }

    private static IEnumerable<(string Name, Tensor Values)> Arrange(LoraAdapter lora, GgufLoraBase model)
    {
        Part[] parts = [.. lora.Ranks.Keys.Select(module => Read(lora, model, module))];
        int used = parts.Length * 2;
        if (used != lora.Tensors.Count)
        {
            string other = lora.Tensors.Keys.First(key => !lora.Ranks.Keys.Any(module => key.StartsWith(module + ".lora_", StringComparison.Ordinal)));
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported,
                $"'{other}' belongs to a module that was trained whole, which llama.cpp does not take beside a LoRA.", "Merge the adapter into the model, or train it without such modules.") { Target = other };
        }

        foreach (IGrouping<string, Part> weight in parts.GroupBy(static part => part.Slot.Tensor, StringComparer.Ordinal).OrderBy(static group => group.Key, StringComparer.Ordinal))
        {
            Part[] ordered = [.. weight.OrderBy(static part => part.Slot.FirstRow)];
            (Tensor a, Tensor b) = ordered is [Part only] && only.B.shape[0] == only.Slot.TotalRows ? (only.A, only.B) : Join(ordered);
            yield return (weight.Key + ".lora_a", a.to(float32).cpu().contiguous());
            yield return (weight.Key + ".lora_b", b.to(float32).cpu().contiguous());
        }
    }

    private static Part Read(LoraAdapter lora, GgufLoraBase model, string module)
    {
        if (lora.Tensors.TryGetValue(module + EmbeddingA, out Tensor? tokens))
        {
            // A table of rows: the runtime takes the rows of the tokens from A.
            Tensor table = tokens.t();
            return new(model.Find(module, table.shape[0]) with { TotalRows = lora.Tensors[module + EmbeddingB].shape[0] }, table, lora.Tensors[module + EmbeddingB]);
        }

        (Tensor a, Tensor b) = (lora.Tensors[module + SuffixA], lora.Tensors[module + SuffixB]);
        if (a.dim() != 2)
        {
            throw new LoKrException(ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, $"'{module}' is a convolution, which no language model of llama.cpp has.", "Merge the adapter into the model.") { Target = module };
        }

        GgufLoraSlot slot = model.Find(module, b.shape[0]);
        if (slot.Tensor == "token_embd.weight")
        {
            return new(slot with { TotalRows = a.shape[1] }, b, a.t());
        }

        return new(slot, a, slot.HeadRows == 0 ? b : Permute(b, slot.HeadRows));
    }

    // Rows of a head: first half above second half → alternating.
    private static Tensor Permute(Tensor b, long headRows) => b.reshape(-1, 2, headRows / 2, b.shape[1]).transpose(1, 2).reshape(b.shape);

    /// <summary>One LoRA for a weight that holds several modules: A stacked, B block-diagonal; rows of modules without a LoRA are zero.</summary>
    private static (Tensor A, Tensor B) Join(Part[] parts)
    {
        Tensor a = cat([.. parts.Select(static part => part.A.to(float32))], 0);
        Tensor b = zeros(parts[0].Slot.TotalRows, a.shape[0]);
        long column = 0;
        foreach (Part part in parts)
        {
            (long rows, long rank) = (part.B.shape[0], part.B.shape[1]);
            b.narrow(0, part.Slot.FirstRow, rows).narrow(1, column, rank).copy_(part.B);
            column += rank;
        }

        return (a, b);
    }

    private sealed record Part(GgufLoraSlot Slot, Tensor A, Tensor B);
}
