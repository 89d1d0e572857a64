using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using TorchSharp;
using Xunit;

namespace LoKr.Core.Tests.Runtime;

public sealed class DeviceSelectorTests
{
    [Theory]
    [InlineData("auto", "cpu", "cpu")]
    [InlineData("auto", "cpu,cuda:0,cuda:1", "cuda:0")]
    [InlineData("cpu", "cpu,cuda:0", "cpu")]
    [InlineData("CUDA", "cpu,cuda:0", "cuda:0")]
    [InlineData(" cuda:1 ", "cpu,cuda:0,cuda:1", "cuda:1")]
    public void A_device_is_chosen_among_those_there_are(string asked, string there, string expected) =>
        Assert.Equal(expected, DeviceSelector.Choose(DeviceSelector.Normalize(asked), Runtime(there)));

    [Theory]
    [InlineData("cuda", "cpu")]
    [InlineData("cuda:2", "cpu,cuda:0,cuda:1")]
    public void A_GPU_that_is_missing_is_an_error_that_lists_what_there_is(string asked, string there)
    {
        LoKrException exception = Assert.Throws<LoKrException>(() => DeviceSelector.Choose(DeviceSelector.Normalize(asked), Runtime(there)));
        Assert.Equal(ErrorIds.DeviceNotFound, exception.ErrorId);
        Assert.Contains(there.Replace(",", ", ", StringComparison.Ordinal), exception.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("gpu")]
    [InlineData("cuda:")]
    [InlineData("cuda:-1")]
    [InlineData("cuda:x")]
    [InlineData("cuda:1:2")]
    [InlineData("cpu:0")]
    public void Other_names_are_refused(string asked) =>
        Assert.Equal(ErrorIds.DeviceInvalid, Assert.Throws<LoKrException>(() => DeviceSelector.Select(asked)).ErrorId);

    [Fact]
    public void The_CPU_can_always_be_selected() => Assert.Equal(DeviceType.CPU, DeviceSelector.Select("cpu").type);

    private static LoKrRuntimeInfo Runtime(string devices) => new()
    {
        TorchSharpVersion = "1",
        LibtorchVersion = "2",
        ExpectedLibtorchVersion = "2",
        Flavor = devices.Contains("cuda", StringComparison.Ordinal) ? "cuda" : "cpu",
        Path = "here",
        Source = "Parameter",
        IsLoaded = true,
        Devices = devices.Split(','),
        Workarounds = [],
    };
}
