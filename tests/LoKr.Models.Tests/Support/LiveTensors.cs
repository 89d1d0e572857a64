using TorchSharp;
using Xunit;

namespace LoKr.Models.Tests.Support;

/// <summary>Counts the tensors of this thread's dispose scopes.</summary>
internal static class LiveTensors
{
    /// <summary>Asserts that an action, once it has run, leaves as many live tensors as it found.</summary>
    public static void AssertFlat(Action action)
    {
        action();
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (int i = 0; i < 3; i++)
        {
            action();
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }
}
