using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

/// <summary>Weights in the pages of their file, which every process that loads them shares.</summary>
public sealed class SharedPagesTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public SharedPagesTests() => TinyModel.WriteBert(_folder["model"]);

    private string WeightsFile => _folder["model", "model.safetensors"];

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_model_has_the_values_of_its_file_without_memory_of_its_own()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Files are mapped on Linux.");
        using LoKrModel read = Load(sharePages: false);
        Assert.Equal((0, 0), Mapped());
        using LoKrModel mapped = Load(sharePages: true);
        Dictionary<string, Tensor> expected = read.Module.named_parameters().ToDictionary(static pair => pair.name, static pair => (Tensor)pair.parameter);
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in mapped.Module.named_parameters())
        {
            Assert.False(parameter.requires_grad);
            Assert.True(TensorAssert.Same(parameter, expected[name]), name);
        }

        (long resident, long dirty) = Mapped();
        Assert.True(resident > 0);
        Assert.Equal(0, dirty);
    }

    [Fact]
    public void What_is_written_to_becomes_private_and_the_file_stays()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Files are mapped on Linux.");
        byte[] before = File.ReadAllBytes(WeightsFile);
        using LoKrModel mapped = Load(sharePages: true);
        using LoKrModel other = Load(sharePages: true);
        Tensor weight = mapped.Module.get_parameter("bert.encoder.layer.0.attention.self.query.weight")!;
        Tensor same = other.Module.get_parameter("bert.encoder.layer.0.attention.self.query.weight")!;
        using (no_grad())
        {
            weight.add_(1);
        }

        Assert.True(Mapped().Dirty > 0);
        Assert.Equal(1, (weight - same).mean().item<float>(), 1e-5);
        Assert.Equal(before, File.ReadAllBytes(WeightsFile));
    }

    [Fact]
    public void The_pages_outlive_the_reader_and_the_name_of_the_file()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Files are mapped on Linux.");
        Tensor mapped;
        Tensor read;
        using (SafetensorsReader reader = SafetensorsReader.Open(WeightsFile))
        {
            string name = reader.Entries.Keys.First();
            read = reader.Read(name);
            mapped = reader.Map(name, ScalarType.Float32)!;
            Assert.Null(reader.Map(name, ScalarType.BFloat16));
            ErrorAssert.Throws(LoKr.Core.Errors.ErrorIds.TensorNotFound, () => reader.Map("nothing", ScalarType.Float32));
        }

        // A new version of the folder takes its place, as every writer of this library does it.
        File.Delete(WeightsFile);
        File.WriteAllText(WeightsFile, "another file");
        Assert.True(TensorAssert.Same(mapped, read));
        mapped.Dispose();
        read.Dispose();
    }

    [Fact]
    public void Weights_of_another_type_are_read()
    {
        using LoKrModel model = ModelLoader.Load(_folder["model"], new() { Labels = ["a", "b"], Seed = 1, SharePages = true, DType = ScalarType.BFloat16 });
        Assert.All(model.Module.parameters(), static parameter => Assert.Equal(ScalarType.BFloat16, parameter.dtype));
        Assert.Equal((0, 0), Mapped());
    }

    private LoKrModel Load(bool sharePages) => ModelLoader.Load(_folder["model"], new() { Labels = ["a", "b"], Seed = 1, SharePages = sharePages });

    // Bytes of the file that this process has in memory, and of those the ones that are its own.
    private (long Resident, long Dirty) Mapped()
    {
        (long resident, long dirty) = (0, 0);
        if (!OperatingSystem.IsLinux())
        {
            return (resident, dirty);
        }

        bool inside = false;
        foreach (string line in File.ReadLines("/proc/self/smaps"))
        {
            string[] cells = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            inside = cells[0].EndsWith(':') ? inside : line.EndsWith(WeightsFile, StringComparison.Ordinal);
            if (inside)
            {
                resident += cells[0] == "Rss:" ? long.Parse(cells[1], System.Globalization.CultureInfo.InvariantCulture) : 0;
                dirty += cells[0] == "Private_Dirty:" ? long.Parse(cells[1], System.Globalization.CultureInfo.InvariantCulture) : 0;
            }
        }

        return (resident, dirty);
    }
}
