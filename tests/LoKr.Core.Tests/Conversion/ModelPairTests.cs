using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Conversion;

/// <summary>Reading one weight after the other of two models.</summary>
public sealed class ModelPairTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Weights_of_any_size_and_type_are_read_one_after_the_other()
    {
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, Tensor> before = new() { ["a.weight"] = randn(4, 6), ["b.weight"] = randn(8, 6).to(bfloat16), ["c.weight"] = randn(3, 2, 2).to(bfloat16), ["d.weight"] = randn(5, 5, dtype: float64) };
        Dictionary<string, Tensor> after = before.ToDictionary(static pair => pair.Key, static pair => (pair.Value + 1).to(pair.Key == "c.weight" ? float32 : pair.Value.dtype));
        using ModelPair pair = Open(before, after);
        using FitMemory memory = new();
        foreach (string name in before.Keys)
        {
            (Tensor own, Tensor tuned) = pair.Parts[0].ReadBoth(name, name, memory);
            Assert.True(own.Equals(before[name]) && own.dtype == before[name].dtype, name);
            Assert.True(tuned.Equals(after[name]) && tuned.dtype == after[name].dtype, name);
        }
    }

    [Fact]
    public void A_file_that_became_shorter_meanwhile_is_an_error_by_name()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows keeps files that are read.");
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, Tensor> weights = new() { ["a.weight"] = randn(64, 64) };
        using ModelPair pair = Open(weights, weights);
        using FitMemory memory = new();
        using (FileStream file = new(_folder["base.safetensors"], FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            file.SetLength(file.Length - 64);
        }

        Assert.Equal(ErrorIds.SafetensorsTruncated, Assert.Throws<LoKrException>(() => pair.Parts[0].ReadBoth("a.weight", "a.weight", memory)).ErrorId);
    }

    private ModelPair Open(Dictionary<string, Tensor> before, Dictionary<string, Tensor> after)
    {
        SafetensorsWriter.Write(_folder["base.safetensors"], before);
        SafetensorsWriter.Write(_folder["tuned.safetensors"], after);
        return ModelPair.Open(new() { BasePath = _folder["base.safetensors"], FineTunedPath = _folder["tuned.safetensors"], Destination = _folder["out"] });
    }
}
