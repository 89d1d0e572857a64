using System.Diagnostics;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;

namespace LoKr.Core.Tests.IO;

/// <summary>Links in model folders are followed inside the folder and in the cache layout of Hugging Face only.</summary>
public sealed class ModelLinksTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public ModelLinksTests()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Links need a privilege on Windows.");
        _folder.Write("secret", "secret").Write("elsewhere/inner.txt", "secret").Write("model/config.json", "{}").Write("model/real/a.txt", "a");
    }

    private string Model => _folder["model"];

    [Fact]
    public void A_link_to_a_place_outside_is_refused_at_every_depth()
    {
        Link("model/vocab.txt", "../secret");
        ErrorAssert.Throws(ErrorIds.LinkOutsideFolder, () => CompanionFiles.List(Model), "vocab.txt", _folder["secret"]);
        File.Delete(_folder["model", "vocab.txt"]);

        Link("model/real/deep.txt", "../../secret");
        ErrorAssert.Throws(ErrorIds.LinkOutsideFolder, () => CompanionFiles.List(Model), "deep.txt");
        File.Delete(_folder["model", "real", "deep.txt"]);

        SymbolicLink.ToFolder(_folder["model", "sub"], "../elsewhere");
        ErrorAssert.Throws(ErrorIds.LinkOutsideFolder, () => CompanionFiles.List(Model), "sub");
    }

    [Fact]
    public void Links_inside_the_folder_are_followed_and_circles_end()
    {
        Link("model/b.txt", "real/a.txt");
        SymbolicLink.ToFolder(_folder["model", "real", "up"], "..");
        Assert.Contains("b.txt", CompanionFiles.List(Model));
        Assert.Contains(Path.Combine("real", "a.txt"), CompanionFiles.List(Model));
        string alias = _folder["alias"];
        SymbolicLink.ToFolder(alias, Model);
        Assert.Contains("b.txt", CompanionFiles.List(alias));
        Assert.NotNull(ModelConfig.LoadIfPresent(alias));
    }

    [Fact]
    public void Links_of_the_cache_layout_are_followed_at_every_depth()
    {
        string snapshot = _folder["hub", "models--a--b", "snapshots", "0123"];
        _folder.Write("hub/models--a--b/blobs/aa", "{}").Write("hub/models--a--b/snapshots/0123/README.md", "").Write("hub/models--x--y/blobs/bb", "{}");
        Link("hub/models--a--b/snapshots/0123/config.json", "../../blobs/aa");
        Directory.CreateDirectory(Path.Combine(snapshot, "1_Pooling"));
        Link("hub/models--a--b/snapshots/0123/1_Pooling/config.json", "../../../blobs/aa");
        Assert.Equal(["config.json", Path.Combine("1_Pooling", "config.json")], CompanionFiles.List(snapshot));
        Assert.NotNull(ModelConfig.Load(snapshot));

        Link("hub/models--a--b/snapshots/0123/other.json", "../../../models--x--y/blobs/bb");
        ErrorAssert.Throws(ErrorIds.LinkOutsideFolder, () => CompanionFiles.List(snapshot), "other.json");
    }

    [Fact]
    public void A_configuration_behind_a_link_to_a_place_outside_is_refused()
    {
        File.Delete(_folder["model", "config.json"]);
        Link("model/config.json", "../secret");
        LoKrException error = Assert.Throws<LoKrException>(() => ModelConfig.Load(Model));
        Assert.Equal(ErrorIds.LinkOutsideFolder, error.ErrorId);
        Assert.Equal(ErrorIds.LinkOutsideFolder, Assert.Throws<LoKrException>(() => ModelConfig.LoadIfPresent(Model)).ErrorId);
    }

    [Fact]
    public void Weights_and_their_index_behind_links_to_places_outside_are_refused()
    {
        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = torch.NewDisposeScope();
        CheckpointWriter.Write(_folder["elsewhere"], new Dictionary<string, torch.Tensor> { ["a"] = torch.ones(8), ["b"] = torch.zeros(8) }, maxShardBytes: 40);
        string[] files = [.. Directory.EnumerateFiles(_folder["elsewhere"], "model*").Select(static file => Path.GetFileName(file)).Order(StringComparer.Ordinal)];
        Assert.Equal(3, files.Length);
        foreach (string file in files)
        {
            Link(Path.Combine("model", file), Path.Combine("..", "elsewhere", file));
        }

        ErrorAssert.Throws(ErrorIds.LinkOutsideFolder, () => CheckpointReader.Open(Model), files[2]);
        File.Delete(_folder["model", files[2]]);
        File.Copy(_folder["elsewhere", files[2]], _folder["model", files[2]]);
        ErrorAssert.Throws(ErrorIds.LinkOutsideFolder, () => CheckpointReader.Open(Model), files[0]);
        foreach (string file in files[..2])
        {
            File.Delete(_folder["model", file]);
            File.Copy(_folder["elsewhere", file], _folder["model", "real", file]);
            Link(Path.Combine("model", file), Path.Combine("real", file));
        }

        string alias = _folder["alias"];
        SymbolicLink.ToFolder(alias, Model);
        using CheckpointReader reader = CheckpointReader.Open(alias);
        Assert.Equal(["a", "b"], reader.Entries.Keys.Order(StringComparer.Ordinal));
    }

    [Theory]
    [InlineData(PeftAdapterFolder.ConfigFile)]
    [InlineData(PeftAdapterFolder.WeightsFile)]
    public void Files_of_an_adapter_behind_links_to_places_outside_are_refused(string file)
    {
        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = torch.NewDisposeScope();
        string adapter = _folder["adapter"];
        PeftAdapterFolder.Write(adapter, new LoKrConfig { TargetModules = ModuleSelector.FromNames(["q"]) }, new Dictionary<string, torch.Tensor> { ["q.lokr_w1"] = torch.ones(2, 2), ["q.lokr_w2"] = torch.ones(2, 2) });
        File.Move(Path.Combine(adapter, file), _folder["elsewhere", file]);
        Link(Path.Combine("adapter", file), Path.Combine("..", "elsewhere", file));
        foreach (Action read in (Action[])[() => PeftAdapterFolder.Read(adapter), () => AdapterFile.Open(adapter), () => AdapterInspector.Inspect(adapter)])
        {
            ErrorAssert.Throws(ErrorIds.LinkOutsideFolder, read, file);
        }

        // A file that the user names is the user's choice.
        Link("named.safetensors", Path.Combine(file == PeftAdapterFolder.WeightsFile ? "elsewhere" : "adapter", PeftAdapterFolder.WeightsFile));
        using AdapterFile named = AdapterFile.Open(_folder["named.safetensors"]);
        Assert.Single(named.Modules);
    }

    [Fact]
    public async Task Pipes_and_devices_are_refused_without_waiting()
    {
        string pipe = _folder["model", "pipe.json"];
        using (Process process = Process.Start("mkfifo", pipe))
        {
            await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        }

        string device = _folder["model", "device.safetensors"];
        SymbolicLink.ToFile(device, "/dev/zero");
        _folder.Write("model/empty.json", "");
        foreach (Action read in (Action[])[
            () => FileSystem.ReadBytes(pipe), () => FileSystem.ReadText(pipe), () => FileSystem.OpenRead(pipe), () => FileSystem.CopyContent(pipe, _folder["copy"]),
            () => SafetensorsReader.Open(pipe), () => SafetensorsReader.Open(device), () => FileSystem.ReadBytes(device), () => CompanionFiles.List(Model)])
        {
            LoKrException error = await Task.Run(() => Assert.Throws<LoKrException>(read)).WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);
            Assert.Equal(ErrorIds.FileNotReadable, error.ErrorId);
        }

        Assert.Empty(FileSystem.ReadBytes(_folder["model", "empty.json"]));
    }

    public void Dispose() => _folder.Dispose();

    private void Link(string path, string target) => SymbolicLink.ToFile(Path.Combine(_folder.Path, path), target);
}
