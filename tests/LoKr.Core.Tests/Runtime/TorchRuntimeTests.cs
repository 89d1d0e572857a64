using LoKr.Core.Runtime;
using TorchSharp;
using Xunit;

namespace LoKr.Core.Tests.Runtime;

public sealed class TorchRuntimeTests
{
    [Fact]
    public void Loads_and_computes()
    {
        LoKrRuntimeInfo info = TorchRuntime.EnsureLoaded();
        using torch.Tensor sum = torch.ones(2, 3).sum();
        Assert.Equal(6, sum.ToSingle());
        Assert.True(info.IsLoaded);
        Assert.Contains("cpu", info.Devices);
        Assert.Equal(info.ExpectedLibtorchVersion, RuntimeSearchPaths.ThreeParts(info.LibtorchVersion));
        Assert.Same(info, TorchRuntime.Current);
        Assert.Same(info, TorchRuntime.EnsureLoaded());
    }

    [Fact]
    public void TorchSharp_copies_nothing_beside_its_assembly()
    {
        TorchRuntime.EnsureLoaded();
        torch.random.manual_seed(1);
        string folder = Path.GetDirectoryName(typeof(torch).Assembly.Location)!;
        Assert.Empty(Directory.EnumerateFiles(folder, NativeNames.FileName("torch_cpu"), SearchOption.AllDirectories));
    }
}
