using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Merging;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>Adapter files of other kinds merged into a model in memory: the bits of the merge on disk, and every bit back when the merge is undone.</summary>
public sealed class FileMergeTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    public FileMergeTests() => random.manual_seed(51);

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.BFloat16)]
    public void Lora_of_any_layout_has_the_bits_of_the_merge_on_disk(ScalarType type)
    {
        using LoKrModel model = Model();
        model.MoveTo(dtype: type);
        Dictionary<string, Tensor> before = MergeFiles.State(model);
        MergeFiles.Base(_folder["base"], before);
        foreach (string adapter in (string[])[Kohya(), Peft()])
        {
            MergeFiles.Run(MergeFiles.Options(_folder["base"], _folder["merged"], adapter) with { Force = true, Adapters = [new AdapterMergeSource(adapter, 0.5)] });
            LoKrMergeResult result = FileMerge.Merge(model, [new AdapterMergeSource(adapter, 0.5)], cancellation: Token);
            Assert.Equal((2, 0), (result.ModuleCount, result.SavedModuleCount));
            Assert.Equal([Path.GetFileName(adapter)], result.Adapters);
            Assert.Equal([Path.GetFileName(adapter)], model.MergedAdapters);
            Assert.Empty(model.Adapters);
            Dictionary<string, Tensor> after = MergeFiles.State(model);
            Assert.Empty(MergeFiles.Differences(MergeFiles.Read(_folder["merged"]), after));
            Assert.Equal(["fc0.weight", "fc1.weight"], MergeFiles.Differences(before, after));
            model.UndoMerge();
            Assert.Empty(MergeFiles.Differences(before, MergeFiles.State(model)));
            Assert.Empty(model.MergedAdapters);
        }
    }

    [Fact]
    public void Merges_of_files_and_of_adapters_add_up_and_are_undone_together()
    {
        using LoKrModel model = Model();
        Dictionary<string, Tensor> before = MergeFiles.State(model);
        model.AddAdapter(new() { R = 2, TargetModules = ModuleSelector.FromNames(["fc0"]), InitWeights = InitWeights.Random }, seed: 1);
        Tensor delta = model.Adapters[0].Layers[0].GetDeltaWeight();
        string adapter = Kohya();
        FileMerge.Merge(model, [new AdapterMergeSource(adapter)], cancellation: Token);
        Tensor lora = MergeFiles.State(model)["fc0.weight"] - before["fc0.weight"];
        model.Merge(cancellationToken: Token);
        TensorAssert.Close(before["fc0.weight"] + lora + delta, MergeFiles.State(model)["fc0.weight"], 1e-6, "both");
        Assert.Equal(["default", "style.safetensors"], model.MergedAdapters.Order(StringComparer.Ordinal));

        // What is merged already is not added twice.
        ErrorAssert.Throws(ErrorIds.NothingToMerge, () => FileMerge.Merge(model, [new AdapterMergeSource(adapter)], cancellation: Token));
        model.UndoMerge();
        Assert.Empty(MergeFiles.Differences(before, MergeFiles.State(model)));
    }

    [Fact]
    public void A_file_that_does_not_fit_leaves_every_weight_as_it_is()
    {
        using LoKrModel model = Model();
        Dictionary<string, Tensor> before = MergeFiles.State(model);
        void Refused(string id, Dictionary<string, Tensor> tensors, bool safe = false)
        {
            SafetensorsWriter.Write(_folder["bad.safetensors"], tensors);
            ErrorAssert.Throws(id, () => FileMerge.Check(model, [new AdapterMergeSource(_folder["bad.safetensors"])], safe, Token));
            ErrorAssert.Throws(id, () => FileMerge.Merge(model, [new AdapterMergeSource(_folder["bad.safetensors"])], safe, Token));
            Assert.Empty(MergeFiles.Differences(before, MergeFiles.State(model)));
        }

        Refused(ErrorIds.AdapterModulesUnknown, new() { ["lora_unet_other.lora_down.weight"] = randn(2, 12), ["lora_unet_other.lora_up.weight"] = randn(12, 2) });
        Refused(ErrorIds.AdapterShapeMismatch, new() { ["lora_unet_fc0.lora_down.weight"] = randn(2, 8), ["lora_unet_fc0.lora_up.weight"] = randn(12, 2) });
        Refused(ErrorIds.AdapterTypeNotSupported, new() { ["lora_unet_fc0.oft_blocks"] = randn(2, 2, 2) });
        Refused(ErrorIds.MergeNotFinite, new() { ["lora_unet_fc0.lora_down.weight"] = full(2, 12, float.PositiveInfinity), ["lora_unet_fc0.lora_up.weight"] = randn(12, 2) }, safe: true);
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => FileMerge.Merge(model, [], cancellation: Token));
        FileMerge.Check(model, [new AdapterMergeSource(Kohya())], cancellation: Token);
        Assert.Empty(MergeFiles.Differences(before, MergeFiles.State(model)));
        Assert.Throws<OperationCanceledException>(() => FileMerge.Merge(model, [new AdapterMergeSource(Kohya())], cancellation: new(canceled: true)));
        Assert.Empty(MergeFiles.Differences(before, MergeFiles.State(model)));
    }

    [Fact]
    public void A_weight_that_two_modules_share_is_not_changed()
    {
        TorchSharp.Modules.Linear first = nn.Linear(12, 12);
        TorchSharp.Modules.Linear second = nn.Linear(12, 12);
        second.weight = first.weight;
        using LoKrModel model = new(TestNetworks.Network(("fc0", first), ("fc1", second)));
        Dictionary<string, Tensor> before = MergeFiles.State(model);
        SafetensorsWriter.Write(_folder["shared.safetensors"], new Dictionary<string, Tensor> { ["lora_unet_fc0.lora_down.weight"] = randn(2, 12), ["lora_unet_fc0.lora_up.weight"] = randn(12, 2) });
        ErrorAssert.Throws(ErrorIds.TiedWeight, () => FileMerge.Merge(model, [new AdapterMergeSource(_folder["shared.safetensors"])], cancellation: Token), "fc1");
        Assert.Empty(MergeFiles.Differences(before, MergeFiles.State(model)));
    }

    private static LoKrModel Model() => new(TestNetworks.Network(("fc0", nn.Linear(12, 12)), ("fc1", nn.Linear(12, 12)), ("norm", nn.LayerNorm(12))));

    private string Kohya()
    {
        Dictionary<string, Tensor> tensors = [];
        foreach (string module in (string[])["fc0", "fc1"])
        {
            tensors.Add($"lora_unet_{module}.lora_down.weight", randn(3, 12));
            tensors.Add($"lora_unet_{module}.lora_up.weight", randn(12, 3));
            tensors.Add($"lora_unet_{module}.alpha", tensor(2f));
        }

        SafetensorsWriter.Write(_folder["style.safetensors"], tensors);
        return _folder["style.safetensors"];
    }

    private string Peft()
    {
        Directory.CreateDirectory(_folder["peft"]);
        Dictionary<string, Tensor> tensors = [];
        foreach (string module in (string[])["fc0", "fc1"])
        {
            tensors.Add($"{PeftAdapterFolder.Prefix}{module}.lora_A.weight", randn(2, 12));
            tensors.Add($"{PeftAdapterFolder.Prefix}{module}.lora_B.weight", randn(12, 2));
        }

        SafetensorsWriter.Write(_folder["peft", PeftAdapterFolder.WeightsFile], tensors);
        File.WriteAllText(_folder["peft", PeftAdapterFolder.ConfigFile], """{"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["fc0", "fc1"]}""");
        return _folder["peft"];
    }
}
