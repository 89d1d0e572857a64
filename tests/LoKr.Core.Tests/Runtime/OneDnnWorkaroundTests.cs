using System.Runtime.InteropServices;
using LoKr.Core.Runtime;
using LoKr.Testing;
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
        Assert.InRange(Error(inputs, outputs, kernel), 0, 1e-4);
    }

    /// <summary>oneDNN has other code for each instruction set, chosen once in a process.</summary>
    [Theory]
    [InlineData("SSE41")]
    [InlineData("AVX")]
    [InlineData("AVX2")]
    [InlineData("AVX512_CORE")]
    public async Task Convolutions_have_the_gradients_of_float64_with_every_instruction_set(string set) =>
        await TestProcess.RunTestAsync(typeof(OneDnnWorkaroundTests), nameof(Convolutions_of_all_kinds_have_the_gradients_of_float64), ("ONEDNN_MAX_CPU_ISA", set));

    [Fact(Explicit = true)]
    public void Convolutions_of_all_kinds_have_the_gradients_of_float64()
    {
        int[] channels = [1, 3, 4, 8, 12, 16, 20, 24, 40];
        IEnumerable<(int Inputs, int Outputs, int Kernel)> kinds = channels.SelectMany(inputs => channels.SelectMany(outputs => ((int[])[1, 3]).Select(kernel => (inputs, outputs, kernel))));
        Assert.Empty(string.Join(", ", kinds.Where(static kind => !(Error(kind.Inputs, kind.Outputs, kind.Kernel) < 1e-4))));
    }

    /// <summary>oneDNN tells every primitive that it runs; the switch is for a whole process, so it is tried in one of its own.</summary>
    [Fact]
    public async Task Without_oneDNN_convolutions_are_computed_by_libtorch()
    {
        Assert.SkipUnless(RuntimeInformation.ProcessArchitecture is System.Runtime.InteropServices.Architecture.X64, "libtorch has oneDNN on x64.");
        string output = await TestProcess.RunTestAsync(typeof(OneDnnWorkaroundTests), nameof(Turns_oneDNN_off), ("ONEDNN_VERBOSE", "1"));
        string[] parts = output.Split(TurnedOff);

        Assert.Equal(2, parts.Length);
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
        Assert.True(OneDnnWorkaround.ConvolutionsAreRight());
    }

    // The largest difference of an output or gradient from that of float64, relative to its largest value.
    private static double Error(int inputs, int outputs, int kernel)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = randn(4, inputs, 8, 8);
        Tensor weight = randn(outputs, inputs, kernel, kernel);
        Tensor slope = randn(4, outputs, 8, 8);
        return Gradients(x, weight, slope, ScalarType.Float64).Zip(Gradients(x, weight, slope, ScalarType.Float32))
            .Max(static pair => ((pair.Second.to(ScalarType.Float64) - pair.First).abs().max() / pair.First.abs().max()).ToDouble());
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
