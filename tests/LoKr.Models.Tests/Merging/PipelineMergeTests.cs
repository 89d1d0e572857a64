using LoKr.Core.Layouts;
using LoKr.Core.Merging;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Merging;

/// <summary>Files of trainers merged into whole pipelines on disk: the result is the export of a merge in memory.</summary>
public sealed class PipelineMergeTests
{
    [Theory]
    [InlineData("network.safetensors", 1.0)]
    [InlineData("network-published-names.safetensors", 1.0)]
    [InlineData("network-published-names.safetensors", -0.3)]
    public void A_kohya_file_gives_the_bits_of_a_merge_in_memory(string file, double strength)
    {
        string source = Fixtures.Require("diffusers", "tiny-sd");
        string adapter = Fixtures.Require("lycoris", "kohya-tiny-sd", file);
        using TempFolder folder = new();
        using DisposeScope scope = NewDisposeScope();
        using (CheckpointMerge merge = CheckpointMerge.Open(new() { Base = BaseModel.Read(source), Adapters = [new AdapterMergeSource(adapter, strength)], Destination = folder["disk"] }))
        {
            Assert.True(merge.Run(cancel: TestContext.Current.CancellationToken).ModuleCount > 2);
        }

        using IAdaptable pipeline = ModelFolder.Load(source, cancellationToken: TestContext.Current.CancellationToken).Model;
        AdapterImporter.Import(pipeline, adapter);
        pipeline.SetAdapterScale(["default"], strength);
        pipeline.Merge();
        ModelFolder.Export(pipeline, folder["memory"], cancellationToken: TestContext.Current.CancellationToken);
        AssertSame(folder["disk"], folder["memory"]);

        // The same without an adapter on the model.
        pipeline.UndoMerge();
        pipeline.RemoveAdapter("default");
        FileMerge.Merge(pipeline, [new AdapterMergeSource(adapter, strength)], cancellation: TestContext.Current.CancellationToken);
        ModelFolder.Export(pipeline, folder["file"], cancellationToken: TestContext.Current.CancellationToken);
        AssertSame(folder["disk"], folder["file"]);
        using IAdaptable again = ModelFolder.Load(folder["disk"], cancellationToken: TestContext.Current.CancellationToken).Model;
        Assert.Equal(pipeline.Models.Count, again.Models.Count);
    }

    private static void AssertSame(string expected, string actual)
    {
        foreach (string component in (string[])["unet", "text_encoder", "vae"])
        {
            using CheckpointReader disk = Open(Path.Combine(expected, component));
            using CheckpointReader memory = Open(Path.Combine(actual, component));
            foreach (string key in memory.Entries.Keys.Intersect(disk.Entries.Keys))
            {
                Assert.True(memory.Read(key).bytes.SequenceEqual(disk.Read(key).bytes), $"{component}: {key}");
            }

            Assert.NotEmpty(memory.Entries.Keys.Intersect(disk.Entries.Keys));
        }
    }

    private static CheckpointReader Open(string folder) => CheckpointReader.Open(folder, File.Exists(Path.Combine(folder, "model.safetensors")) ? "model" : "diffusion_pytorch_model");
}
