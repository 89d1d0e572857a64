using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

public sealed class PeftAdapterFolderTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void Adapters_that_PEFT_saved_are_rewritten_byte_for_byte()
    {
        string root = Fixtures.Require();
        int compared = 0;
        foreach (string weights in Directory.EnumerateFiles(root, PeftAdapterFolder.WeightsFile, SearchOption.AllDirectories))
        {
            string source = Path.GetDirectoryName(weights)!;
            string config = Path.Combine(source, PeftAdapterFolder.ConfigFile);
            if (!File.Exists(config) || !File.ReadAllText(config).Contains("\"LOKR\"", StringComparison.Ordinal))
            {
                continue;
            }

            using var scope = NewDisposeScope();
            using PeftAdapterFolder adapter = PeftAdapterFolder.Read(source);
            Assert.Empty(adapter.Warnings);
            string copy = _folder["copy"];
            PeftAdapterFolder.Write(copy, adapter.Config, adapter.Tensors.Entries.Keys.ToDictionary(name => name, name => adapter.Tensors.Read(name)), force: true);
            Assert.True(File.ReadAllBytes(weights).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(copy, PeftAdapterFolder.WeightsFile))), weights);
            Assert.Equal(File.ReadAllText(config), File.ReadAllText(Path.Combine(copy, PeftAdapterFolder.ConfigFile)));
            compared++;
        }

        Assert.True(compared > 20, $"Only {compared} folders were compared.");
    }

    [Fact]
    public void Tensors_are_named_without_the_prefix_and_read_into_existing_memory()
    {
        Write(_folder["a"]);
        using PeftAdapterFolder adapter = PeftAdapterFolder.Read(_folder["a"]);
        Assert.Equal(["classifier.weight", "lin.lokr_w1", "lin.lokr_w2"], adapter.Tensors.Entries.Keys.Order(StringComparer.Ordinal));
        Assert.Equal("lin.lokr_w1", adapter.Tensors.Entries["lin.lokr_w1"].Name);
        Assert.True(adapter.Config.InferenceMode);
        Tensor flat = zeros(10);
        adapter.Tensors.ReadInto("lin.lokr_w1", flat.narrow(0, 3, 4).view(2, 2));
        Assert.Equal(4, flat.sum().ToSingle());
        LoKrException exception = Assert.Throws<LoKrException>(() => adapter.Tensors.Read("lin.lokr_w3"));
        Assert.Equal(ErrorIds.TensorNotFound, exception.ErrorId);
    }

    [Fact]
    public void An_existing_adapter_needs_force_and_other_files_of_the_folder_stay()
    {
        string path = _folder["a"];
        Write(path);
        Write(Path.Combine(path, "second"));
        Assert.Equal(ErrorIds.DestinationExists, Assert.Throws<LoKrException>(() => Write(path)).ErrorId);
        Write(path, force: true);
        using PeftAdapterFolder second = PeftAdapterFolder.Read(Path.Combine(path, "second"));
        Assert.Equal(3, second.Tensors.Entries.Count);
        Assert.Equal(["a"], Directory.GetFileSystemEntries(_folder.Path).Select(entry => Path.GetFileName(entry)));
    }

    [Fact]
    public void A_failed_write_leaves_the_existing_adapter_and_nothing_else()
    {
        string path = _folder["a"];
        Write(path);
        byte[] before = File.ReadAllBytes(Path.Combine(path, PeftAdapterFolder.WeightsFile));
        Dictionary<string, Tensor> bad = new() { ["x"] = zeros([1], dtype: ScalarType.ComplexFloat32) };
        Assert.Throws<LoKrException>(() => PeftAdapterFolder.Write(path, new LoKrConfig(), bad, force: true));
        Assert.Equal(before, File.ReadAllBytes(Path.Combine(path, PeftAdapterFolder.WeightsFile)));
        Assert.Single(Directory.GetFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void Missing_files_are_named_with_advice()
    {
        Assert.Equal(ErrorIds.PathNotFound, Error(_folder["absent"]).ErrorId);

        LoKrException exception = Error(_folder.Path);
        Assert.Equal(ErrorIds.AdapterFileNotFound, exception.ErrorId);
        Assert.Contains(PeftAdapterFolder.ConfigFile, exception.Message, StringComparison.Ordinal);

        Write(_folder["inner"]);
        Assert.Contains("inner", Error(_folder.Path).Message, StringComparison.Ordinal);

        string weights = _folder[$"inner/{PeftAdapterFolder.WeightsFile}"];
        Assert.Equal(ErrorIds.AdapterFileNotFound, Error(weights).ErrorId);

        File.Delete(weights);
        exception = Error(_folder["inner"]);
        Assert.Equal(ErrorIds.AdapterFileNotFound, exception.ErrorId);
        Assert.Contains(PeftAdapterFolder.WeightsFile, exception.Message, StringComparison.Ordinal);

        File.WriteAllText(_folder["inner/adapter_model.bin"], "x");
        Assert.Equal(ErrorIds.PickleRefused, Error(_folder["inner"]).ErrorId);
    }

    [Theory]
    [InlineData("lin.lokr_w1")]
    [InlineData("base_model.model.")]
    [InlineData("lora_unet_x.lokr_w1")]
    public void A_name_without_the_prefix_is_refused(string name)
    {
        Write(_folder["a"]);
        SafetensorsWriter.Write(_folder[$"a/{PeftAdapterFolder.WeightsFile}"], new Dictionary<string, Tensor> { [name] = ones(1) });
        LoKrException exception = Error(_folder["a"]);
        Assert.Equal(ErrorIds.AdapterKeyInvalid, exception.ErrorId);
        Assert.Contains($"'{name}'", exception.Message, StringComparison.Ordinal);
    }

    private static LoKrException Error(string path) => Assert.Throws<LoKrException>(() => PeftAdapterFolder.Read(path).Dispose());

    private static void Write(string path, bool force = false) => PeftAdapterFolder.Write(
        path,
        new LoKrConfig { R = 2, Alpha = 2, TargetModules = ModuleSelector.FromNames(["lin"]), ModulesToSave = ["classifier"] },
        new Dictionary<string, Tensor> { ["lin.lokr_w1"] = ones(2, 2), ["lin.lokr_w2"] = zeros(3, 4), ["classifier.weight"] = ones(5) },
        force);
}
