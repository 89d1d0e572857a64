using System.Diagnostics;
using System.Runtime.InteropServices;
using LoKr.Core.Runtime;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Runtime;

public sealed class OneDnnWorkaroundTests
{
    private const string TurnedOff = "oneDNN is off from here";

    [Theory]
    [InlineData(24, 8, 3)]
    [InlineData(8, 4, 3)]
    [InlineData(320, 4, 3)]
    [InlineData(128, 3, 3)]
    [InlineData(16, 8, 1)]
    [InlineData(20, 20, 3)]
    public void Convolutions_have_the_gradients_of_float64(int inputs, int outputs, int kernel)
    {
        using Tensor x = randn(4, inputs, 8, 8);
        using Tensor weight = randn(outputs, inputs, kernel, kernel);
        using Tensor slope = randn(4, outputs, 8, 8);
        Tensor[] exact = Gradients(x, weight, slope, ScalarType.Float64);
        foreach ((Tensor expected, Tensor actual) in exact.Zip(Gradients(x, weight, slope, ScalarType.Float32)))
        {
            Assert.InRange((actual.to(ScalarType.Float64) - expected).abs().max().ToDouble(), 0, 1e-4 * expected.abs().max().ToDouble());
        }
    }

    /// <summary>oneDNN tells every primitive that it runs; the switch is for a whole process, so it is tried in one of its own.</summary>
    [Fact]
    public async Task Without_oneDNN_convolutions_are_computed_by_libtorch()
    {
        Assert.SkipUnless(RuntimeInformation.ProcessArchitecture is System.Runtime.InteropServices.Architecture.X64, "libtorch has oneDNN on x64.");
        ProcessStartInfo start = new("dotnet", [typeof(OneDnnWorkaroundTests).Assembly.Location, "-method", $"*{nameof(OneDnnWorkaroundTests)}.{nameof(Turns_oneDNN_off)}", "-explicit", "only"])
        {
            RedirectStandardOutput = true,
        };
        start.Environment["ONEDNN_VERBOSE"] = "1";
        using Process process = Process.Start(start)!;
        string output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        string[] parts = output.Split(TurnedOff);

        Assert.True(process.ExitCode == 0 && parts.Length == 2, output);
        Assert.Contains("convolution", parts[0]);
        Assert.DoesNotContain("convolution", parts[1]);
    }

    [Fact(Explicit = true)]
    public void Turns_oneDNN_off()
    {
        List<string> workarounds = [];
        Queue<bool> answers = new([false, true]);
        OneDnnWorkaround.Apply(TorchRuntime.EnsureLoaded().Path, workarounds, answers.Dequeue);
        Console.WriteLine(TurnedOff);

        Assert.Contains("turned off", Assert.Single(workarounds));
        Assert.True(OneDnnWorkaround.GradientIsRight());
    }

    private static Tensor[] Gradients(Tensor x, Tensor weight, Tensor slope, ScalarType type)
    {
        Tensor input = x.to(type, copy: true).requires_grad_(true);
        Tensor kernel = weight.to(type, copy: true).requires_grad_(true);
        long padding = weight.shape[^1] / 2;
        Tensor output = nn.functional.conv2d(input, kernel, padding: [padding, padding]);
        return [output.detach(), .. autograd.grad([output], [input, kernel], [slope.to(type)])];
    }
}
