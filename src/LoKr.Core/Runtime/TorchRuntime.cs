namespace LoKr.Core.Runtime;

/// <summary>
/// Finds libtorch and loads it before the first torch call, so that TorchSharp's own loader never runs.
/// The only static state of the library: native libraries are process-wide.
/// </summary>
public static class TorchRuntime
{
    /// <summary>The loaded runtime, or null.</summary>
    public static LoKrRuntimeInfo? Current => throw new NotImplementedException();

    /// <summary>Loads the runtime once; later calls return what is loaded.</summary>
    public static LoKrRuntimeInfo EnsureLoaded(RuntimeOptions? options = null) => throw new NotImplementedException();

    /// <summary>Finds the runtime without loading it.</summary>
    public static LoKrRuntimeInfo Find(RuntimeOptions? options = null) => throw new NotImplementedException();
}
