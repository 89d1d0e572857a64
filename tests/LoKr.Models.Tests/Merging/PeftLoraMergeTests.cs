using LoKr.Core.Configuration;
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

namespace LoKr.Models.Tests.Merging;

/// <summary>LoRA folders that PEFT itself saved, merged on disk: the model gives the logits that PEFT computed with the adapter beside it.</summary>
public sealed class PeftLoraMergeTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public static TheoryData<string> Adapters
    {
        get
        {
            TheoryData<string> data = [];
            string? root = Fixtures.Root is null ? null : Path.Combine(Fixtures.Root, "gguf");
            if (root is not null && Directory.Exists(root))
            {
                foreach (string folder in Directory.GetDirectories(root, "lora-*", SearchOption.AllDirectories).Order(StringComparer.Ordinal))
                {
                    data.Add(Path.GetRelativePath(root, folder));
                }
            }

            return data.Count > 0 ? data : [""];
        }
    }

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Adapters))]
    public void A_merge_on_disk_gives_the_logits_of_PEFT(string name)
    {
        string adapter = Fixtures.Require("gguf", name);
        string root = Path.GetDirectoryName(Path.GetDirectoryName(adapter))!;
        string hf = Path.Combine(root, "hf");
        Assert.SkipUnless(File.Exists(Path.Combine(hf, "model.safetensors")), $"{hf} has no weights.");
        Assert.SkipWhen(ArchitectureRegistry.Default.Find(ModelConfig.Load(hf)) is null, "No such family is built here.");
        using DisposeScope scope = NewDisposeScope();
        Directory.CreateDirectory(_folder["base"]);
        File.Copy(Path.Combine(hf, "config.json"), _folder["base", "config.json"]);
        using (SafetensorsReader weights = SafetensorsReader.Open(Path.Combine(hf, "model.safetensors")))
        {
            CheckpointWriter.Write(_folder["base"], weights.Entries.Keys.ToDictionary(static key => key, key => weights.Read(key).to(float32), StringComparer.Ordinal));
        }

        using (CheckpointMerge merge = CheckpointMerge.Open(new() { Base = BaseModel.Read(_folder["base"]), Destination = _folder["out"], Adapters = [new AdapterMergeSource(adapter)] }))
        {
            LoKrMergeResult result = merge.Run(cancel: TestContext.Current.CancellationToken);
            using AdapterFile file = AdapterFile.Open(adapter);
            Assert.Equal(file.Foreign.Select(static tensor => tensor.Module).Distinct().Count(), result.ModuleCount);
            Assert.Empty(result.Warnings);
        }

        using LoKrModel model = ModelLoader.Load(_folder["out"], new ModelLoadOptions { WithTokenizer = false });
        using IDisposable noGrad = no_grad();
        using SafetensorsReader inputs = SafetensorsReader.Open(Path.Combine(root, "io.safetensors"));
        using SafetensorsReader outputs = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
        TensorAssert.Close(outputs.Read("peft_output"), ((ICausalLanguageModel)model.Module).Logits(inputs.Read("input_ids").reshape(1, -1))[0], TensorAssert.Model, name);
    }
}
