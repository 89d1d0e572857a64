using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using TorchSharp;
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
            expected.Concat(BaseCopies.Find(adapter, tensors.Keys)).ToDictionary(static pair => pair.Key, static pair => pair.Value.shape, StringComparer.Ordinal),
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
                Grown(expected, given) is string module
                    ? $"'{module}' has more rows in the adapter than in the model: the adapter was trained after its vocabulary had grown. Give the model as many rows first."
                    : "Check that the adapter was made for this model and that its adapter_config.json belongs to it.")
            { Target = missing.Concat(unexpected).Concat(misshaped).First() };
        }
    }

    /// <summary>The embeddings of which the file holds more rows than the model has, or null.</summary>
    private static string? Grown(IReadOnlyDictionary<string, long[]> expected, IReadOnlyDictionary<string, IReadOnlyList<long>> given) => expected
        .Where(pair => pair.Value is [long rows, long columns] && given.GetValueOrDefault(pair.Key) is [long more, long same] && more > rows && same == columns)
        .Select(static pair => pair.Key[..Math.Max(pair.Key.LastIndexOf('.'), 0)].Replace(".base_layer", "", StringComparison.Ordinal))
        .FirstOrDefault(static module => EmbeddingNames.IsInput(module) || EmbeddingNames.IsOutput(module));

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

/// <summary>
/// Base weights that PEFT saves beside the factors where an adapter targets the embeddings or the output layer
/// (<c>lm_head.base_layer.weight</c>). They are the model's own; an adapter trained on other values is worth a warning.
/// </summary>
internal static class BaseCopies
{
    private const string Mark = ".base_layer.";

    /// <summary>The name in the model of a tensor that is a copy of an adapted layer's own, or null.</summary>
    /// <param name="key">Name of a tensor of an adapter.</param>
    /// <param name="isAdapted">Whether a module carries factors.</param>
    public static string? Original(string key, Func<string, bool> isAdapted) =>
        key.LastIndexOf(Mark, StringComparison.Ordinal) is int end and > 0 && key[(end + Mark.Length)..] is ("weight" or "bias") and string local && isAdapted(key[..end])
            ? $"{key[..end]}.{local}"
            : null;

    /// <summary>The model's tensors of which a file has copies, by the name of the copy.</summary>
    /// <param name="adapter">The adapter.</param>
    /// <param name="keys">Names of the tensors of the file.</param>
    public static IEnumerable<KeyValuePair<string, Tensor>> Find(LoKrAdapter adapter, IEnumerable<string> keys)
    {
        Dictionary<string, BaseLayer> layers = adapter.Layers.ToDictionary(static layer => layer.ModuleName, static layer => layer.BaseLayer, StringComparer.Ordinal);
        foreach (string key in keys)
        {
            if (Original(key, layers.ContainsKey) is string original
                && ModuleTree.Parameters(layers[key[..key.LastIndexOf(Mark, StringComparison.Ordinal)]].Module)
                    .FirstOrDefault(entry => original.EndsWith("." + entry.Name, StringComparison.Ordinal)).Parameter is Tensor parameter)
            {
                yield return new(key, parameter);
            }
        }
    }

    /// <summary>The warnings about copies of which the model has other values.</summary>
    /// <param name="adapter">The adapter; nothing is merged.</param>
    /// <param name="tensors">Tensors of the file.</param>
    public static IEnumerable<string> Warnings(LoKrAdapter adapter, IReadOnlyDictionary<string, Tensor> tensors)
    {
        using DisposeScope scope = NewDisposeScope();
        foreach ((string key, Tensor own) in Find(adapter, tensors.Keys).Where(static pair => pair.Value.device_type != DeviceType.META).ToArray())
        {
            if (!tensors[key].to(own.dtype).to(own.device).eq(own).all().ToBoolean())
            {
                yield return Differs(key);
            }
        }
    }

    /// <summary>The warning about a copy of which the model has other values.</summary>
    public static string Differs(string key) =>
        $"'{key}' in the adapter's file differs from the weight of this model, which is used instead: the adapter was trained on another base model, or on one whose weights have changed since.";
}
