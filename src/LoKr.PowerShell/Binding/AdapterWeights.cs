using LoKr.Core.Errors;

namespace LoKr.PowerShell.Binding;

/// <summary>The weights of several adapters.</summary>
internal static class AdapterWeights
{
    /// <summary>One weight for each adapter: the given ones, or the only one for all.</summary>
    /// <param name="weights">The value of -Weight.</param>
    /// <param name="adapters">Full paths.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>: there are too many or too few.</exception>
    public static IEnumerable<(string Path, double Weight)> For(double[] weights, IReadOnlyList<string> adapters) =>
        weights.Length == 1 || weights.Length == adapters.Count
            ? adapters.Select((path, index) => (path, weights[weights.Length == 1 ? 0 : index]))
            : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"-Weight has {weights.Length} numbers for {adapters.Count} adapters: {string.Join(", ", adapters)}.", "Give one number for all, or one for each.") { Target = weights };
}
