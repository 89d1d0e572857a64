using LoKr.Core.Layouts.Names;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>Small random weights for every name that a table of names has.</summary>
internal static class TableWeights
{
    /// <summary>Columns of every weight.</summary>
    public const long Columns = 8;

    /// <summary>Adds the weights of a part of a model to a checkpoint under the names of its authors.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="part">The part.</param>
    /// <param name="prefix">Prefix of its names in the checkpoint.</param>
    /// <param name="block">The block that names are of.</param>
    /// <returns>Where the weights with published names are in the checkpoint, by these.</returns>
    public static Dictionary<string, TablePlace> Add(Dictionary<string, Tensor> checkpoint, ModelPart part, string prefix, BlockNumbers block)
    {
        Dictionary<string, TablePlace> places = new(StringComparer.Ordinal);

        // A model that diffusers does not have keeps its names in folders.
        bool hasPublished = part.Weights.Any(static weight => weight.Names.Of(NameSets.Diffusers).Count > 0);
        foreach (WeightNames weight in part.Weights.Where(static weight => !weight.IsParameter && weight.Names.Of(NameSets.File).Count > 0))
        {
            string own = weight.Names.Of(NameSets.File)[0].Fill(block);
            WeightRows[] rows = [.. weight.Rows.Where(static rows => !rows.IsBroken && rows.Names.Of(NameSets.Diffusers).Count > 0)];
            string? whole = weight.Names.Of(NameSets.Diffusers) is [NameTemplate first, ..] ? first.Fill(block) : hasPublished || rows.Length > 0 ? null : own;
            string tensor = $"{prefix}{own}.weight";
            if ((whole is null && rows.Length == 0) || checkpoint.ContainsKey(tensor))
            {
                continue;
            }

            long height = whole is not null ? weight.IsSwapped ? 2 * Columns : Columns : rows.Sum(static slice => slice.Length ?? 1) * Columns;
            checkpoint[tensor] = randn(height, Columns);
            foreach (WeightRows? slice in whole is not null ? new WeightRows?[] { null } : rows)
            {
                (long start, long length) = slice?.Range(height, Columns) ?? (0, height);
                places[(slice?.Names.Of(NameSets.Diffusers)[0].Fill(block) ?? whole!) + ".weight"] = new(tensor, start, length, weight.IsSwapped && slice is null);
            }
        }

        return places;
    }
}

/// <summary>Rows of a tensor of a checkpoint.</summary>
/// <param name="Tensor">Its name.</param>
/// <param name="Start">The first row.</param>
/// <param name="Count">Number of rows.</param>
/// <param name="Swaps">Whether their halves are the other way round under the published name.</param>
internal sealed record TablePlace(string Tensor, long Start, long Count, bool Swaps)
{
    /// <summary>The rows as they are under the published name.</summary>
    public Tensor In(Tensor tensor) => Swaps ? tensor.narrow(0, Start, Count).roll(Count / 2, 0) : tensor.narrow(0, Start, Count);

    /// <summary>The weights of a checkpoint under their published names.</summary>
    public static Dictionary<string, Tensor> Weights(Dictionary<string, TablePlace> places, Func<string, Tensor> read) =>
        places.ToDictionary(static pair => pair.Key, pair => pair.Value.In(read(pair.Value.Tensor)).clone(), StringComparer.Ordinal);
}
