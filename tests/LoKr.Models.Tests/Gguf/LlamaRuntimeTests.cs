using LoKr.Core.Conversion;
using LoKr.Core.Gguf;
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

namespace LoKr.Models.Tests.Gguf;

/// <summary>llama.cpp runs what is written here: LoRA beside a model, and merged models. Its logits against PEFT's and against those of the same weights in torch.</summary>
public sealed class LlamaRuntimeTests : IDisposable
{
    // The runtime rounds activations: to half precision with weights of that type, to 8 bits with quantized ones.
    private const double HalfActivations = 3e-3;
    private const double QuantizedActivations = 1e-1;

    private readonly TempFolder _folder = new();

    public static TheoryData<string> Models => Fixtures.Cases("gguf", static folder => File.Exists(Path.Combine(folder, "model-Q8_0.gguf")) && File.Exists(Path.Combine(folder, "hf", "model.safetensors")));

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_LoRA_beside_the_model_gives_the_logits_of_PEFT()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", "llama");
        LlamaRuntime.Require();
        long[] ids = Ids(root);
        string model = Path.Combine(root, "model-F16.gguf");
        Tensor without = LlamaRuntime.Logits(model, ids);
        foreach (string adapter in Adapters(root))
        {
            GgufLoraConverter.Convert(adapter, _folder["lora.gguf"], null, new() { BasePath = Path.Combine(root, "hf"), Force = true }, out _);
            using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
            Tensor expected = io.Read("peft_output");
            TensorAssert.Close(expected, LlamaRuntime.Logits(model, ids, _folder["lora.gguf"]), HalfActivations, adapter);
            Assert.True(((expected - without).abs().max() / expected.abs().max()).ToDouble() > 3 * HalfActivations, "The adapter has no effect that could be missed.");
            if (io.Entries.ContainsKey("llama.lora_half"))
            {
                TensorAssert.Close(io.Read("llama.lora_half"), LlamaRuntime.Logits(model, ids, _folder["lora.gguf"], 0.5f), HalfActivations, $"{adapter}, half");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void A_merged_file_gives_the_logits_of_its_weights_in_torch(string model)
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", model);
        LlamaRuntime.Require();
        long[] ids = Ids(root);
        foreach (string adapter in Adapters(root))
        {
            using (GgufMerge merge = GgufMerge.Open(new() { Path = Path.Combine(root, "model-Q8_0.gguf"), Adapters = [new AdapterMergeSource(adapter)], Destination = _folder["merged.gguf"], Force = true }))
            {
                merge.Run(cancel: TestContext.Current.CancellationToken);
            }

            Tensor actual = LlamaRuntime.Logits(_folder["merged.gguf"], ids);
            using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(adapter, "io.safetensors"));
            if (io.Entries.ContainsKey("llama.merged.Q8_0"))
            {
                TensorAssert.Close(io.Read("llama.merged.Q8_0"), actual, QuantizedActivations, $"{adapter}, the other runtime");
            }

            TensorAssert.Close(io.Read("peft_output"), actual, QuantizedActivations, $"{adapter}, PEFT");
            if (Dequantized(root, _folder["merged.gguf"], ids) is Tensor expected)
            {
                TensorAssert.Close(expected, actual, QuantizedActivations, adapter);
                TensorAssert.Close(io.Read("peft_output"), expected, QuantizedActivations, $"{adapter}, torch against PEFT");
            }
        }
    }

    [Fact]
    public void A_LoRA_for_a_fused_model_gives_the_logits_of_the_split_one()
    {
        using DisposeScope scope = NewDisposeScope();
        string root = Fixtures.Require("gguf", "llama");
        LlamaRuntime.Require();
        long[] ids = Ids(root);
        string adapter = Path.Combine(root, "adapters", "lokr-r4-f4");
        foreach (string name in (string[])["model-Q8_0.gguf", "model-Q8_0-fused.gguf"])
        {
            GgufLoraConverter.Convert(adapter, _folder[$"lora-{name}"], LoraRank.OfSize(16), new() { BasePath = Path.Combine(root, name) }, out _);
        }

        Tensor split = LlamaRuntime.Logits(Path.Combine(root, "model-Q8_0.gguf"), ids, _folder["lora-model-Q8_0.gguf"]);
        TensorAssert.Close(split, LlamaRuntime.Logits(Path.Combine(root, "model-Q8_0-fused.gguf"), ids, _folder["lora-model-Q8_0-fused.gguf"]), 1e-4, "fused");
    }

    private static IEnumerable<string> Adapters(string root) => Directory.GetDirectories(Path.Combine(root, "adapters"), "lokr-*").Order(StringComparer.Ordinal);

    private static long[] Ids(string root)
    {
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(root, "io.safetensors"));
        return [.. io.Read("input_ids").data<long>()];
    }

    /// <summary>The logits of a GGUF file's weights in a float32 model; null for a family that is not built here.</summary>
    private Tensor? Dequantized(string root, string path, long[] ids)
    {
        string folder = _folder["dequantized"];
        Directory.CreateDirectory(folder);
        File.Copy(Path.Combine(root, "hf", "config.json"), Path.Combine(folder, "config.json"), overwrite: true);
        using (GgufModel source = GgufModel.Open(path))
        {
            if (ArchitectureRegistry.Default.Find(Core.Configuration.ModelConfig.Load(folder)) is null)
            {
                return null;
            }

            CheckpointWriter.Write(folder, source.Entries.Keys.ToDictionary(static name => name, name => source.Read(name), StringComparer.Ordinal));
        }

        using LoKrModel model = ModelLoader.Load(folder, new ModelLoadOptions { WithTokenizer = false, DType = ScalarType.Float32 });
        using IDisposable noGrad = no_grad();
        return ((ICausalLanguageModel)model.Module).Logits(tensor(ids).unsqueeze(0))[0];
    }
}
