using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

/// <summary>The labels and the fingerprint of the base model travel with an adapter and are checked where it is loaded.</summary>
public sealed class BaseModelTests : IDisposable
{
    private static readonly string[] s_labels = ["x", "y", "z"];
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Labels_in_another_order_are_refused_and_the_model_is_unchanged()
    {
        string adapter = WriteAdapter();
        Assert.Equal(s_labels, AdapterLabels.Read(adapter));
        using LoKrModel model = Load("y", "x", "z");
        ErrorAssert.Throws(ErrorIds.LabelsMismatch, () => AdapterImporter.Import(model, adapter), "x, y, z", "y, x, z");
        Assert.Empty(model.Adapters);
        using LoKrModel fewer = Load("x", "y");
        ErrorAssert.Throws(ErrorIds.LabelsMismatch, () => AdapterImporter.Import(fewer, adapter), "x, y, z");
        using LoKrModel same = Load([.. AdapterLabels.Read(adapter)]);
        Assert.Empty(AdapterImporter.Import(same, adapter)[""].Warnings);
    }

    [Fact]
    public void Labels_without_names_take_an_adapter_with_a_warning()
    {
        string adapter = WriteAdapter();
        using LoKrModel model = Load("LABEL_0", "LABEL_1", "LABEL_2");
        Assert.Contains("x, y, z", Assert.Single(AdapterImporter.Import(model, adapter)[""].Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void An_adapter_without_a_head_goes_onto_a_model_with_other_labels()
    {
        string adapter = WriteAdapter(new LoKrConfig { ModulesToSave = [] });
        using LoKrModel model = Load("a", "b");
        Assert.Single(model.FreshModules);
        Assert.Equal(model.GetAdapter(AdapterImporter.Import(model, adapter)[""].Name).UnsavedModules, model.FreshModules);
    }

    [Fact]
    public void Files_of_other_programs_have_no_labels_and_are_taken_as_they_are()
    {
        string adapter = WriteAdapter();
        using (PeftAdapterFolder folder = PeftAdapterFolder.Read(adapter))
        using (DisposeScope scope = NewDisposeScope())
        {
            PeftAdapterFolder.Write(_folder["peft"], folder.Config, folder.Tensors.Entries.Keys.ToDictionary(static name => name, name => folder.Tensors.Read(name), StringComparer.Ordinal));
        }

        ErrorAssert.Throws(ErrorIds.AdapterLabelsMissing, () => AdapterLabels.Read(_folder["peft"]), "peft");
        using LoKrModel model = Load("y", "x", "z");
        Assert.Empty(AdapterImporter.Import(model, _folder["peft"])[""].Warnings);
    }

    [Fact]
    public void The_configuration_stays_what_PEFT_reads()
    {
        string config = File.ReadAllText(Path.Combine(WriteAdapter(), PeftAdapterFolder.ConfigFile));
        Assert.DoesNotContain("lokr_ps", config, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(AdapterLayout.Kohya)]
    [InlineData(AdapterLayout.Diffusers)]
    [InlineData(AdapterLayout.DiffusersModel)]
    [InlineData(AdapterLayout.Comfy)]
    [InlineData(AdapterLayout.PeftInMemory)]
    public void Every_layout_carries_labels_and_fingerprint(AdapterLayout layout)
    {
        string source = WriteAdapter(new LoKrConfig { ModulesToSave = [] });
        string there = _folder[$"{layout}.safetensors"];
        AdapterConverter.Convert(source, there, layout, new() { BasePath = _folder["base"], Read = new() { Component = AdapterComponent.TextEncoder } }, out _);
        Assert.Equal(s_labels, AdapterLabels.Read(there));
        AdapterConverter.Convert(there, _folder["back"], AdapterLayout.Peft, new() { BasePath = _folder["base"] }, out _);
        Assert.Equal(s_labels, AdapterLabels.Read(_folder["back"]));
        string other = WriteBase("other", static tensors => tensors["bert.encoder.layer.0.attention.self.query.weight"].add_(1));
        using LoKrModel model = ModelLoader.Load(other, new ModelLoadOptions { Labels = s_labels, WithTokenizer = false });
        Assert.Contains(AdapterImporter.Import(model, _folder["back"])[""].Warnings, static warning => warning.Contains("another base model", StringComparison.Ordinal));
    }

    [Fact]
    public void LoRA_carries_labels_and_fingerprint()
    {
        using LoKrModel model = Load(s_labels);
        using LoraAdapter lora = LoraConverter.Convert(model.AddAdapter(new LoKrConfig(), seed: 1), LoraRank.OfSize(2), TestContext.Current.CancellationToken);
        PeftLoraFolder.Write(_folder["lora"], lora);
        using SafetensorsReader reader = SafetensorsReader.Open(_folder["lora/adapter_model.safetensors"]);
        Assert.Contains(model.Identity.Fingerprint!, reader.Metadata["lokr_ps"], StringComparison.Ordinal);
        Assert.Contains("\"z\"", reader.Metadata["lokr_ps"], StringComparison.Ordinal);
    }

    [Fact]
    public void Another_base_of_the_same_shape_is_a_warning()
    {
        string adapter = WriteAdapter();
        string other = WriteBase("other", static tensors => tensors["bert.encoder.layer.0.output.dense.bias"].add_(1));
        using LoKrModel model = ModelLoader.Load(other, new ModelLoadOptions { Labels = s_labels, WithTokenizer = false });
        Assert.Contains("another base model", Assert.Single(AdapterImporter.Import(model, adapter)[""].Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void The_same_base_is_known_wherever_it_lies_however_it_is_split_and_in_whatever_type_it_runs()
    {
        string adapter = WriteAdapter();
        using LoKrModel original = Load(s_labels);
        using (LoKrModel bare = ModelLoader.Load(_folder["base"], new ModelLoadOptions { Labels = s_labels, WithTokenizer = false, DType = ScalarType.BFloat16 }))
        {
            Assert.Equal(original.Identity.Fingerprint, bare.Identity.Fingerprint);
            Assert.Empty(AdapterImporter.Import(bare, adapter)[""].Warnings);
        }

        using (CheckpointReader source = CheckpointReader.Open(_folder["base"]))
        using (DisposeScope scope = NewDisposeScope())
        {
            Directory.CreateDirectory(_folder["split"]);
            CheckpointWriter.Write(_folder["split"], source.Entries.Keys.ToDictionary(static name => name, name => source.Read(name), StringComparer.Ordinal), maxShardBytes: 2000);
        }

        using CheckpointReader split = CheckpointReader.Open(_folder["split"]);
        Assert.True(split.Files.Count > 1);
        Assert.Equal(original.Identity.Fingerprint, CheckpointFingerprint.Compute(split));
    }

    [Fact]
    public void A_merge_on_disk_writes_the_labels_and_knows_the_base()
    {
        string adapter = WriteAdapter();
        LoKrMergeResult result = Merge(_folder["base"], adapter, _folder["merged"]);
        Assert.Empty(result.Warnings);
        using LoKrModel merged = ModelLoader.Load(_folder["merged"], new ModelLoadOptions { WithTokenizer = false });
        Assert.Equal(s_labels, ((ISequenceClassifier)merged.Module).Labels);

        string other = WriteBase("other", static tensors => tensors["bert.pooler.dense.bias"].add_(1));
        Assert.Contains("another base model", Assert.Single(Merge(other, adapter, _folder["other-merged"]).Warnings), StringComparison.Ordinal);
    }

    private static LoKrMergeResult Merge(string source, string adapter, string destination)
    {
        using CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions { Base = BaseModel.Read(source), Adapters = [new AdapterMergeSource(adapter)], Destination = destination });
        return merge.Run(cancel: TestContext.Current.CancellationToken);
    }

    // An encoder without a head.
    private string WriteBase(string name, Action<Dictionary<string, Tensor>>? edit = null)
    {
        JsonObject config = TinyModel.BertConfig();
        config["architectures"] = new JsonArray("BertModel");
        TinyModel.Write(_folder[name], config, tensors =>
        {
            tensors.Remove("classifier.weight");
            tensors.Remove("classifier.bias");
            edit?.Invoke(tensors);
        });
        return _folder[name];
    }

    private LoKrModel Load(params string[] labels)
    {
        if (!Directory.Exists(_folder["base"]))
        {
            WriteBase("base");
        }

        return ModelLoader.Load(_folder["base"], new ModelLoadOptions { Labels = labels, Seed = 1, WithTokenizer = false });
    }

    private string WriteAdapter(LoKrConfig? config = null)
    {
        using LoKrModel model = Load(s_labels);
        model.AddAdapter((config ?? new()) with { InitWeights = InitWeights.Random }, seed: 1);
        AdapterExporter.Export(model, "default", _folder["adapter"], AdapterLayout.Peft);
        return _folder["adapter"];
    }
}
