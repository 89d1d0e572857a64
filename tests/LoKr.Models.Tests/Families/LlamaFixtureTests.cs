using System.Text.Json.Nodes;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>The causal language model folders that transformers wrote, against its outputs.</summary>
public sealed class LlamaFixtureTests
{
    private static readonly string[] s_names = ["llama", "llama-tied", "mistral", "qwen2", "qwen3"];
    private static readonly ModelLoadOptions s_noTokenizer = new() { WithTokenizer = false };

    public static TheoryData<string> Models() => [.. s_names];

    public static TheoryData<string, string> Adapters() => AdapterCases.Of("transformers", s_names);

    [Theory]
    [MemberData(nameof(Models))]
    public void Logits_are_those_of_transformers_where_padded_too(string name)
    {
        string folder = Fixtures.Require("transformers", name);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        Tensor logits = ((ICausalLanguageModel)model.Module).Logits(io.Read("in.input_ids"), io.Read("in.attention_mask"));
        TensorAssert.Close(io.Read("base_output"), logits, TensorAssert.Model, name);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Hidden_states_of_chosen_positions_without_a_mask_give_their_logits(string name)
    {
        string folder = Fixtures.Require("transformers", name);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        var language = (ICausalLanguageModel)model.Module;
        Tensor tokens = io.Read("in.attention_mask").flatten().nonzero().squeeze(1);
        Tensor logits = language.Project(language.HiddenStates(io.Read("in.input_ids")).flatten(0, 1).index_select(0, tokens));
        TensorAssert.Close(io.Read("base_output").flatten(0, 1).index_select(0, tokens), logits, TensorAssert.Model, name);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Greedy_ids_are_those_of_transformers(string name)
    {
        string folder = Fixtures.Require("transformers", name);
        JsonNode expected = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "generate.json")))!;
        int[] prompt = [.. expected["prompt_ids"]!.AsArray().Select(id => (int)id!)];
        int[] all = [.. expected["greedy_ids"]!.AsArray().Select(id => (int)id!)];
        using LoKrModel model = ModelLoader.Load(folder, s_noTokenizer);
        var language = (ICausalLanguageModel)model.Module;
        IReadOnlyList<int> generated = language.Generate(
            prompt, new GenerationOptions { MaxNewTokens = all.Length - prompt.Length }, TestContext.Current.CancellationToken);

        // transformers also returns the id that ended the text.
        int length = language.EosIds.Contains(all[^1]) ? all.Length - 1 : all.Length;
        Assert.Equal(all[prompt.Length..length], generated);
    }

    [Theory]
    [MemberData(nameof(Adapters))]
    public void Adapter_has_the_logits_layers_and_counts_of_PEFT(string name, string adapterName) => AdapterCases.Check(name, adapterName);

    [Theory]
    [MemberData(nameof(Models))]
    public void Configuration_of_an_older_release_gives_the_same_model(string name)
    {
        string folder = Fixtures.Require("transformers", name);
        JsonObject config = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "config.json")))!.AsObject();
        JsonObject rope = config["rope_parameters"]!.AsObject();
        config.Remove("rope_parameters");
        config["rope_theta"] = rope["rope_theta"]!.DeepClone();
        rope.Remove("rope_theta");
        if ((string?)rope["rope_type"] != "default")
        {
            // The first releases with scaling called the kind "type".
            rope["type"] = rope["rope_type"]!.DeepClone();
            rope.Remove("rope_type");
            config["rope_scaling"] = rope;
        }

        config["torch_dtype"] = config["dtype"]!.DeepClone();
        config.Remove("dtype");
        config.Remove("layer_types");

        using TempFolder old = new();
        File.WriteAllText(old["config.json"], config.ToJsonString());
        File.Copy(Path.Combine(folder, "model.safetensors"), old["model.safetensors"]);
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(old.Path, s_noTokenizer);
        using SafetensorsReader io = SafetensorsReader.Open(Path.Combine(folder, "io.safetensors"));
        using IDisposable noGrad = no_grad();
        Tensor logits = ((ICausalLanguageModel)model.Module).Logits(io.Read("in.input_ids"), io.Read("in.attention_mask"));
        TensorAssert.Close(io.Read("base_output"), logits, TensorAssert.Model, name);
    }
}
