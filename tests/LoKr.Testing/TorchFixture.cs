using LoKr.Core.Runtime;

namespace LoKr.Testing;

/// <summary>Loads libtorch once for a test assembly: <c>[assembly: AssemblyFixture(typeof(TorchFixture))]</c>.</summary>
public sealed class TorchFixture
{
    /// <summary>Environment variable of a test process that starts without libtorch.</summary>
    public const string FreshProcess = "LOKR_TEST_FRESH_PROCESS";

    public TorchFixture()
    {
        if (Environment.GetEnvironmentVariable(FreshProcess) is null)
        {
            TorchRuntime.EnsureLoaded();
        }
    }
}
