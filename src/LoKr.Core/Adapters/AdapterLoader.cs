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
        string[] missing = [.. expected.Keys.Where(key => !tensors.ContainsKey(key)).Order(StringComparer.Ordinal)];
        string[] unexpected = [.. tensors.Keys.Where(key => !expected.ContainsKey(key)).Order(StringComparer.Ordinal)];
        string[] misshaped = [.. expected
            .Where(pair => tensors.TryGetValue(pair.Key, out Tensor? given) && !given.shape.SequenceEqual(pair.Value.shape))
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
            target.copy_(tensors[key]);
        }
    }

    private static string Shape(Tensor tensor) => $"[{string.Join(", ", tensor.shape)}]";

    private static void Describe(List<string> problems, string what, string[] keys)
    {
        if (keys.Length > 0)
        {
            problems.Add($"{keys.Length} {what} ({string.Join("; ", keys)})");
        }
    }
}
