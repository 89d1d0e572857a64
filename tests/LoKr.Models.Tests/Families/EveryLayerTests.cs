using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using LoKr.Models.Diffusion;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>Every layer of every model family takes an adapter that changes the output, merges and can be undone.</summary>
public sealed class EveryLayerTests : IDisposable
{
    private static readonly Dictionary<string, Func<JsonObject>> s_configs = new(StringComparer.Ordinal)
    {
        ["bert"] = () => TinyModel.BertConfig("a", "b"),
        ["bert, tokens"] = () => With(TinyModel.BertConfig("a", "b"), """{"architectures": ["BertForTokenClassification"]}"""),
        ["roberta"] = () => With(TinyModel.BertConfig("a", "b"), """{"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"], "pad_token_id": 1}"""),
        ["xlm-roberta"] = () => With(TinyModel.BertConfig("a", "b"), """{"model_type": "xlm-roberta", "architectures": null, "pad_token_id": 1, "type_vocab_size": 1}"""),
        ["modernbert"] = () => With(TinyModel.BertConfig("a", "b"), """{"model_type": "modernbert", "architectures": null, "num_hidden_layers": 2, "local_attention": 4}"""),
        ["modernbert, with biases"] = () => With(
            TinyModel.BertConfig("a", "b"),
            """{"model_type": "modernbert", "architectures": null, "norm_bias": true, "attention_bias": true, "mlp_bias": true, "classifier_bias": true, "classifier_pooling": "mean"}"""),
        ["modernbert, tokens"] = () => With(
            TinyModel.BertConfig("a", "b"), """{"model_type": "modernbert", "architectures": ["ModernBertForTokenClassification"], "num_hidden_layers": 2, "local_attention": 4}"""),
        ["deberta-v2"] = () => With(
            TinyModel.BertConfig("a", "b"),
            """
            {"model_type": "deberta-v2", "architectures": null, "relative_attention": true, "pos_att_type": "c2p|p2c", "share_att_key": true, "norm_rel_ebd": "layer_norm",
            "position_buckets": 4, "position_biased_input": false, "conv_kernel_size": 3}
            """),
        ["deberta-v2, plain"] = () => With(
            TinyModel.BertConfig("a", "b"),
            """{"model_type": "deberta-v2", "architectures": null, "relative_attention": true, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 4, "type_vocab_size": 2}"""),
        ["mpnet"] = () => With(TinyModel.BertConfig("a", "b"), """{"model_type": "mpnet", "architectures": null}"""),
        ["electra"] = () => With(TinyModel.BertConfig("a", "b"), """{"model_type": "electra", "architectures": null, "embedding_size": 6}"""),
        ["electra, of one width"] = () => With(TinyModel.BertConfig("a", "b"), """{"model_type": "electra", "architectures": null, "embedding_size": 8}"""),
        ["albert"] = () => With(
            TinyModel.BertConfig("a", "b"), """{"model_type": "albert", "architectures": null, "embedding_size": 6, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2}"""),
        ["distilbert"] = () => new JsonObject
        {
            ["model_type"] = "distilbert",
            ["architectures"] = new JsonArray("DistilBertForSequenceClassification"),
            ["vocab_size"] = 40,
            ["dim"] = 8,
            ["n_layers"] = 2,
            ["n_heads"] = 2,
            ["hidden_dim"] = 16,
            ["max_position_embeddings"] = 12,
            ["dtype"] = "float32",
        },
        ["llama"] = () => TinyDecoder.Config("llama"),
        ["llama, tied"] = () => TinyDecoder.Config("llama", """{"tie_word_embeddings": true}"""),
        ["llama, classifier"] = () => TinyDecoder.Config("llama", """{"architectures": ["LlamaForSequenceClassification"], "pad_token_id": 0}"""),
        ["llama, tokens"] = () => TinyDecoder.Config("llama", """{"architectures": ["LlamaForTokenClassification"]}"""),
        ["mistral"] = () => TinyDecoder.Config("mistral"),
        ["qwen2"] = () => TinyDecoder.Config("qwen2"),
        ["qwen3"] = () => TinyDecoder.Config("qwen3"),
        ["gemma3_text"] = () => TinyDecoder.Config("gemma3_text", """{"sliding_window": 3, "sliding_window_pattern": 2}"""),
        ["phi3"] = () => TinyDecoder.Config("phi3"),
        ["smollm3"] = () => TinyDecoder.Config("smollm3", """{"no_rope_layers": [1, 0]}"""),
        ["granite"] = () => TinyDecoder.Config("granite"),
        ["olmo2"] = () => TinyDecoder.Config("olmo2"),
        ["olmo3"] = () => TinyDecoder.Config("olmo3", """{"sliding_window": 3}"""),
        ["gpt2"] = TinyModel.Gpt2Config,
        ["gpt2, untied"] = () => With(TinyModel.Gpt2Config(), """{"tie_word_embeddings": false}"""),
        ["gpt2, classifier"] = () => With(TinyModel.Gpt2Config(), """{"architectures": ["GPT2ForSequenceClassification"], "pad_token_id": 0}"""),
        ["gpt2, tokens"] = () => With(TinyModel.Gpt2Config(), """{"architectures": ["GPT2ForTokenClassification"]}"""),
        ["vit"] = TinyModel.VitConfig,
        ["clip_text_model"] = TinyModel.ClipTextConfig,
        ["clip_text_model, projected"] = () => With(TinyModel.ClipTextConfig(), """{"architectures": ["CLIPTextModelWithProjection"]}"""),
        ["UNet2DConditionModel"] = () => TinyPipeline.UNet(),
        ["UNet2DConditionModel, large"] = () => TinyPipeline.UNet(large: true),
        ["AutoencoderKL"] = TinyPipeline.Vae,
    };

    private readonly SingleThread _thread = new();

    public static TheoryData<string> Families => [.. s_configs.Keys];

    public static TheoryData<string> FixtureModels => Fixtures.Cases("transformers");

    /// <summary>A small configuration of a family, by its name among <see cref="Families"/>.</summary>
    internal static JsonObject Config(string family) => s_configs[family]();

    public void Dispose() => _thread.Dispose();

    [Fact]
    public void Every_family_of_the_registry_is_here() => Assert.Equal(
        ArchitectureRegistry.Default.ModelTypes, s_configs.Keys.Select(name => name.Split(',')[0]).Distinct().Order(StringComparer.Ordinal));

    [Theory]
    [MemberData(nameof(Families))]
    public void A_random_model_of_every_family(string family)
    {
        using LoKrModel model = Random(Config(family));
        Check(model);
    }

    [Theory]
    [MemberData(nameof(FixtureModels))]
    public void A_reference_model_of_every_family(string name)
    {
        using LoKrModel model = ModelLoader.Load(Fixtures.Require("transformers", name), new ModelLoadOptions { WithTokenizer = false });
        Check(model);
    }

    /// <summary>One adapter on all layers and norms, saved as a PEFT folder: a merge on disk writes the bits of a merge in memory.</summary>
    [Theory]
    [MemberData(nameof(Families))]
    public void All_layers_of_every_family_merge_on_disk(string family)
    {
        using TempFolder folder = new();
        using LoKrModel model = Random(Config(family));
        ModelExporter.Export(model, folder["base"]);
        string[] targets = [.. model.GetModules().Where(module => module.IsSupported && !IsTied(model, module.Name)).Select(module => module.Name)];
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(targets), TrainNorm = true });
        Assert.Equal(targets, adapter.Layers.Select(layer => layer.ModuleName));
        Fill(adapter);
        AdapterExporter.Export(model, "default", folder["adapter"], AdapterLayout.Peft);
        LoKrMergeResult inMemory = model.Merge();
        ModelExporter.Export(model, folder["memory"]);
        using CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions
        {
            Base = BaseModel.Read(folder["base"]),
            Destination = folder["disk"],
            Adapters = [new AdapterMergeSource(folder["adapter"])],
        });
        Assert.Equal(inMemory.ModuleCount, merge.Run(cancel: TestContext.Current.CancellationToken).ModuleCount);
        string weights = Path.GetFileName(Assert.Single(Directory.GetFiles(folder["memory"], "*.safetensors")));
        using SafetensorsReader expected = SafetensorsReader.Open(folder["memory", weights]);
        using SafetensorsReader actual = SafetensorsReader.Open(folder["disk", weights]);
        Assert.Equal(expected.Entries.Keys.Order(StringComparer.Ordinal), actual.Entries.Keys.Order(StringComparer.Ordinal));
        using DisposeScope scope = NewDisposeScope();
        Assert.All(expected.Entries.Keys, key => Assert.True(TensorAssert.Same(expected.Read(key), actual.Read(key)), key));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_family_without_default_targets_in_PEFT_has_those_that_a_warning_names(string family)
    {
        using LoKrModel model = Random(Config(family));
        string type = model.Pretrained!.ModelType;
        bool isBeyond = DefaultTargets.BeyondPeft.Contains(type);
        if (DefaultTargets.Find(type) is not ModuleSelector targets)
        {
            ErrorAssert.Throws(ErrorIds.TargetModulesRequired, () => model.AddAdapter(new LoKrConfig { R = 2 }), type);
            return;
        }

        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 2 });
        Assert.NotEmpty(adapter.Layers);
        Assert.Equal(targets, adapter.Config.TargetModules);
        Assert.Equal(isBeyond, adapter.Warnings.Any(warning => warning.Contains($"'{type}'", StringComparison.Ordinal) && targets.Names!.All(name => warning.Contains(name, StringComparison.Ordinal))));
    }

    private static void Check(LoKrModel model)
    {
        IReadOnlyList<LoKrModuleInfo> modules = model.GetModules();
        HashSet<string> norms = [.. NormNames(model)];
        string[] leaves = [.. modules
            .Where(module => module.ParameterCount > 0 && !modules.Any(other => other.Name.StartsWith(module.Name + ".", StringComparison.Ordinal)))
            .Select(module => module.Name)];
        Assert.NotEmpty(leaves);
        Assert.All(leaves, leaf => Assert.True(norms.Contains(leaf) || modules.First(module => module.Name == leaf).IsSupported, $"{leaf} takes no adapter."));
        foreach (string name in modules.Where(module => module.IsSupported).Select(module => module.Name).Concat(norms))
        {
            LoKrConfig config = new() { R = 2, TargetModules = ModuleSelector.FromNames([name]) };
            CheckOne(model, name, norms.Contains(name)
                ? config with { TargetModules = ModuleSelector.FromNames([]), TrainNorm = true, ExcludeModules = norms.Count == 1 ? null : ModuleSelector.FromNames(norms.Where(other => other != name)) }
                : config);
        }
    }

    private static void CheckOne(LoKrModel model, string name, LoKrConfig config)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        Tensor before = Run(model);
        LoKrAdapter adapter = model.AddAdapter(config);
        Assert.Equal([name], adapter.Layers.Select(layer => layer.ModuleName).Concat(adapter.Norms.Select(norm => norm.ModuleName)));
        Fill(adapter);
        Tensor adapted = Run(model);
        Assert.All(adapter.Layers, layer => Assert.True(layer.CallCount > 0, $"{name} never ran."));
        Assert.True((adapted - before).abs().max().ToDouble() > 1e-6 * before.abs().max().ToDouble(), $"{name}: the adapter changes nothing.");
        if (IsTied(model, name))
        {
            Assert.Contains(adapter.Warnings, warning => warning.Contains(name, StringComparison.Ordinal));
            ErrorAssert.Throws(ErrorIds.TiedWeight, () => model.Merge(), name);
        }
        else
        {
            Dictionary<string, Tensor> weights = model.GetBaseState().ToDictionary(entry => entry.Key, entry => entry.Value.clone(), StringComparer.Ordinal);
            model.Merge(safe: true);
            TensorAssert.Close(adapted, Run(model), TensorAssert.Model, $"{name}, merged");
            model.UndoMerge();
            Assert.All(model.GetBaseState(), entry => Assert.True(TensorAssert.Same(weights[entry.Key], entry.Value), $"{entry.Key} after undoing {name}"));
            Assert.True(TensorAssert.Same(adapted, Run(model)), $"{name}, undone");
        }

        model.RemoveAdapter("default");
        Assert.True(TensorAssert.Same(before, Run(model)), $"{name}, removed");
    }

    private static bool IsTied(LoKrModel model, string name) =>
        model.Pretrained!.TiedParameters.Any(pair => pair.Key == name + ".weight" || pair.Value == name + ".weight");

    private static void Fill(LoKrAdapter adapter)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        using Generator generator = new(11, CPU);
        foreach (FlatParameter flat in adapter.FlatParameters)
        {
            flat.Value.copy_(empty(flat.Value.shape).normal_(0, 0.2, generator));
        }
    }

    private static IEnumerable<string> NormNames(LoKrModel model)
    {
        using DisposeScope scope = NewDisposeScope();
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames([]), TrainNorm = true });
        string[] names = [.. adapter.Norms.Select(norm => norm.ModuleName)];
        model.RemoveAdapter("default");
        return names;
    }

    /// <summary>All outputs of a model on a fixed input, in one vector.</summary>
    private static Tensor Run(LoKrModel model)
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        Tensor[] outputs = model.Module switch
        {
            ISequenceClassifier classifier => [classifier.Classify(ids, mask)],
            ITokenClassifier tagger => [tagger.ClassifyTokens(ids, mask)],
            ICausalLanguageModel language => [language.Logits(ids, mask)],
            ITextEncoder encoder => Outputs(encoder.Encode(ids, mask)),
            VitForImageClassification images => [images.call(Values(2, images.ChannelCount, images.ImageHeight, images.ImageWidth))],
            UNet2DConditionModel unet => [unet.call(
                Values(2, 4, 8, 8),
                tensor([3L, 500L]),
                Values(2, 5, unet.Config["cross_attention_dim"]!.GetValue<long>()),
                unet.TakesAddedConditions ? new AddedConditions(Values(2, 6), Values(2, 6)) : null)],
            AutoencoderKL vae => Outputs(vae.Encode(Values(1, 3, 16, 16)), vae.Decode(Values(1, 4, 8, 8))),
            _ => throw new InvalidOperationException($"No input for a {model.Name}."),
        };
        return cat([.. outputs.Select(output => output.reshape(-1))]).MoveToOuterDisposeScope();
    }

    private static Tensor[] Outputs(TextEncoderOutput output) => [output.LastHiddenState, output.Pooled];

    private static Tensor[] Outputs(LatentDistribution latents, Tensor images) => [latents.Mean, latents.LogVariance, images];

    private static LoKrModel Random(JsonObject config)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        nn.Module module = ModelLoader.Build(new ModelConfig(config), new ModelBuildOptions { Device = CPU });
        using Generator generator = new(7, CPU);
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in module.named_parameters())
        {
            parameter.normal_(name.Contains("norm", StringComparison.OrdinalIgnoreCase) && name.EndsWith("weight", StringComparison.Ordinal) ? 1 : 0, 0.3, generator);
        }

        return new LoKrModel(module);
    }

    private static Tensor Values(params long[] shape) => linspace(-1, 1, shape.Aggregate(1L, (product, size) => product * size)).mul(29).sin().view(shape);

    private static JsonObject With(JsonObject config, string overlay)
    {
        foreach ((string key, JsonNode? value) in JsonNode.Parse(overlay)!.AsObject())
        {
            config[key] = value?.DeepClone();
        }

        return config;
    }
}
