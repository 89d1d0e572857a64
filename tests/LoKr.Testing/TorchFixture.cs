using LoKr.Core.Runtime;

namespace LoKr.Testing;

/// <summary>Loads libtorch once for a test assembly: <c>[assembly: AssemblyFixture(typeof(TorchFixture))]</c>.</summary>
public sealed class TorchFixture
{
    public TorchFixture() => TorchRuntime.EnsureLoaded();
}
