using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>Copies the tensors of a file into an adapter, all of them or none.</summary>
internal static class AdapterLoader
{
    /// <summary>Checks every key and shape, then copies.</summary>
    /// <exception cref="LoKrException">Keys are missing, unexpected or mis-shaped; all of them are named.</exception>
    public static void Load(LoKrAdapter adapter, IReadOnlyDictionary<string, Tensor> tensors)
    {
        IReadOnlyDictionary<string, Tensor> expected = adapter.GetTensors();

        // LyCORIS's files have the scalar multiplied into w1.
        string[] scalars = [.. expected.Keys.Where(key => key.EndsWith("." + FactorNames.Scalar, StringComparison.Ordinal) && !tensors.ContainsKey(key))];
        string[] missing = [.. expected.Keys.Where(key => !tensors.ContainsKey(key) && !scalars.Contains(key)).Order(StringComparer.Ordinal)];
        string[] unexpected = [.. tensors.Keys.Where(key => !expected.ContainsKey(key)).Order(StringComparer.Ordinal)];
        string[] misshaped = [.. expected
            .Where(pair => tensors.TryGetValue(pair.Key, out Tensor? given) && !Fits(pair.Key, given, pair.Value))
            .OrderBy(static pair => pair.Key, StringComparer.Ordinal)
            .Select(pair => $"{pair.Key} is {Shape(tensors[pair.Key])} and must be {Shape(pair.Value)}")];
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
                $"The tensors of adapter '{adapter.Name}' do not fit its configuration on this model: {string.Join("; ", problems)}.",
                "Check that the adapter was made for this model and that its adapter_config.json belongs to it.")
            { Target = missing.Concat(unexpected).Concat(misshaped).First() };
        }

        using IDisposable noGrad = no_grad();
        foreach ((string key, Tensor target) in expected)
        {
            if (scalars.Contains(key))
            {
                target.fill_(1);
                continue;
            }

            using Tensor shaped = tensors[key].reshape(target.shape);
            target.copy_(shaped);
        }
    }

    /// <summary>Shapes agree but for what programs write differently: the core of a one-dimensional convolution, magnitudes without their ones.</summary>
    private static bool Fits(string key, Tensor given, Tensor expected) => given.shape.SequenceEqual(expected.shape)
        || (key.EndsWith(FactorNames.T2, StringComparison.Ordinal) && given.numel() == expected.numel() && given.dim() is 3 or 4 && Trimmed(given).SequenceEqual(Trimmed(expected)))
        || (key.EndsWith(FactorNames.DoraScale, StringComparison.Ordinal) && given.dim() == 1 && given.numel() == expected.numel());

    private static long[] Trimmed(Tensor core) => core.dim() == 4 && core.shape[3] == 1 ? core.shape[..3] : core.shape;

    private static string Shape(Tensor tensor) => $"[{string.Join(", ", tensor.shape)}]";

    private static void Describe(List<string> problems, string what, string[] keys)
    {
        if (keys.Length > 0)
        {
            problems.Add($"{keys.Length} {what} ({string.Join("; ", keys)})");
        }
    }
}
