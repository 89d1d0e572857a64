using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Model;

/// <summary>Copies the tensors of a file into an adapter, all of them or none.</summary>
internal static class AdapterLoader
{
    /// <summary>Checks every key and shape, then copies.</summary>
    /// <exception cref="LoKrException">Keys are missing, unexpected or mis-shaped; all of them are named.</exception>
    public static void Load(LoKrAdapter adapter, IReadOnlyDictionary<string, Tensor> tensors)
    {
        IReadOnlyDictionary<string, Tensor> expected = adapter.GetTensors();
        Check(
            adapter.Name,
            expected.ToDictionary(static pair => pair.Key, static pair => pair.Value.shape, StringComparer.Ordinal),
            tensors.ToDictionary(static pair => pair.Key, static pair => (IReadOnlyList<long>)pair.Value.shape, StringComparer.Ordinal));

        using IDisposable noGrad = no_grad();
        foreach ((string key, Tensor target) in expected)
        {
            if (!tensors.TryGetValue(key, out Tensor? given))
            {
                // LyCORIS's files have the scalar multiplied into w1. Only changes of norms may be missing otherwise.
                target.fill_(IsNorm(key) ? 0 : 1);
                continue;
            }

            using Tensor shaped = given.reshape(target.shape);
            target.copy_(shaped);
        }
    }

    /// <summary>Compares the tensors of a file with those that a configuration asks for.</summary>
    /// <param name="name">Name of the adapter, for the error.</param>
    /// <param name="expected">Shapes by name.</param>
    /// <param name="given">Shapes by name; a trained scalar may be missing, and some of several norms.</param>
    /// <exception cref="LoKrException">Keys are missing, unexpected or mis-shaped; all of them are named.</exception>
    public static void Check(string name, IReadOnlyDictionary<string, long[]> expected, IReadOnlyDictionary<string, IReadOnlyList<long>> given)
    {
        // A norm that a file does not name is unchanged: programs train the norms of the layers that they adapt.
        bool withNorms = given.Keys.Any(IsNorm);
        string[] missing = [.. expected.Keys
            .Where(key => !given.ContainsKey(key) && !key.EndsWith("." + FactorNames.Scalar, StringComparison.Ordinal) && !(withNorms && IsNorm(key)))
            .Order(StringComparer.Ordinal)];
        string[] unexpected = [.. given.Keys.Where(key => !expected.ContainsKey(key)).Order(StringComparer.Ordinal)];
        string[] misshaped = [.. expected
            .Where(pair => given.TryGetValue(pair.Key, out IReadOnlyList<long>? shape) && !Fits(pair.Key, shape, pair.Value))
            .OrderBy(static pair => pair.Key, StringComparer.Ordinal)
            .Select(pair => $"{pair.Key} is {Shape(given[pair.Key])} and must be {Shape(pair.Value)}")];
        List<string> problems = [];
        Describe(problems, "missing", missing);
        Describe(problems, "unexpected", unexpected);
        Describe(problems, "of another shape", misshaped);
        if (problems.Count > 0)
        {
            bool keys = missing.Length + unexpected.Length > 0;
            throw new LoKrException(
                keys ? ErrorIds.AdapterKeysMismatch : ErrorIds.AdapterShapeMismatch,
                LoKrErrorKind.InvalidData,
                $"The tensors of adapter '{name}' do not fit its configuration on this model: {string.Join("; ", problems)}.",
                "Check that the adapter was made for this model and that its adapter_config.json belongs to it.")
            { Target = missing.Concat(unexpected).Concat(misshaped).First() };
        }
    }

    /// <summary>Shapes agree except where programs differ: the core of a one-dimensional convolution, and magnitudes without dimensions of size 1.</summary>
    private static bool Fits(string key, IReadOnlyList<long> given, long[] expected) => given.SequenceEqual(expected)
        || (key.EndsWith(FactorNames.T2, StringComparison.Ordinal) && given.Product() == expected.Product() && given.Count is 3 or 4 && Trimmed(given).SequenceEqual(Trimmed(expected)))
        || (key.EndsWith(FactorNames.DoraScale, StringComparison.Ordinal) && given.Product() == expected.Product() && (given.Count == 1 || WithoutOnes(given).SequenceEqual(WithoutOnes(expected))));

    private static IEnumerable<long> WithoutOnes(IReadOnlyList<long> shape) => shape.Reverse().SkipWhile(static size => size == 1).Reverse();

    private static bool IsNorm(string key) =>
        key.EndsWith("." + LoKrNorm.WeightSuffix, StringComparison.Ordinal) || key.EndsWith("." + LoKrNorm.BiasSuffix, StringComparison.Ordinal);

    private static IEnumerable<long> Trimmed(IReadOnlyList<long> core) => core.Count == 4 && core[3] == 1 ? core.Take(3) : core;

    private static string Shape(IReadOnlyList<long> shape) => $"[{string.Join(", ", shape)}]";

    private static void Describe(List<string> problems, string what, string[] keys)
    {
        if (keys.Length > 0)
        {
            problems.Add($"{keys.Length} {what} ({string.Join("; ", keys)})");
        }
    }
}
