using System.Diagnostics;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Targeting;
using LoKr.Core.Tests.Support;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Targeting;

/// <summary>Which modules a configuration means; the expected sets follow PEFT's documented rules.</summary>
public sealed class TargetMatchingTests
{
    private const string Q0 = "model.layers.0.self_attn.q_proj";
    private const string Q1 = "model.layers.1.self_attn.q_proj";
    private const string V0 = "model.layers.0.self_attn.v_proj";
    private const string V1 = "model.layers.1.self_attn.v_proj";

    [Fact]
    public void A_list_matches_names_and_endings_after_a_dot()
    {
        Assert.Equal([Q0, Q1], Targets(Names("q_proj")));
        Assert.Equal([Q0], Targets(Names(Q0)));
        Assert.Equal([Q0, V1], Targets(Names("0.self_attn.q_proj", "1.self_attn.v_proj")));
        Assert.Equal(ErrorIds.TargetModuleNotFound, Error(Names("proj")).ErrorId);
    }

    [Fact]
    public void A_string_is_one_regular_expression_over_the_whole_name()
    {
        Assert.Equal([Q0, V0], Targets(Pattern(@".*\.0\.self_attn\.(q|v)_proj")));
        Assert.Equal(ErrorIds.TargetModuleNotFound, Error(Pattern("q_proj")).ErrorId);
        Assert.Equal(ErrorIds.PatternInvalid, Error(Pattern("(q_proj")).ErrorId);
        Assert.Equal([Q0, Q1], Targets(Pattern(@"(?P<path>.*)q_proj\Z")));
    }

    [Fact]
    public void All_linear_leaves_the_output_embeddings_out()
    {
        string[] all = Targets(Pattern("All-Linear"));
        Assert.Equal(8, all.Length);
        Assert.DoesNotContain("lm_head", all);

        using LoKrModel plain = new(TestNetworks.Network(("lin0", nn.Linear(4, 4)), ("act", nn.ReLU()), ("gpt", new Conv1D(4, 4)), ("lin1", nn.Linear(4, 4))));
        Assert.Equal(["lin0", "gpt", "lin1"], plain.AddAdapter(new() { TargetModules = ModuleSelector.FromPattern("all-linear") }).Layers.Select(static layer => layer.ModuleName));
    }

    [Fact]
    public void Exclusion_comes_first_by_name_ending_or_pattern()
    {
        Assert.Equal([Q1], Targets(Names("q_proj") with { ExcludeModules = ModuleSelector.FromNames([Q0]) }));
        Assert.Equal([Q0, Q1], Targets(Names("q_proj", "v_proj") with { ExcludeModules = ModuleSelector.FromNames(["v_proj"]) }));
        Assert.Equal([V0, V1], Targets(Names("q_proj", "v_proj") with { ExcludeModules = ModuleSelector.FromPattern(@".*q_proj") }));
        Assert.Equal(ErrorIds.NoModuleTargeted, Error(Names("q_proj") with { ExcludeModules = ModuleSelector.FromNames(["q_proj"]) }).ErrorId);
        Assert.Equal(ErrorIds.AllModulesExcluded, Error(Names("q_proj") with { ExcludeModules = ModuleSelector.FromPattern(".*") }).ErrorId);
    }

    [Fact]
    public void Saved_modules_are_not_adapted()
    {
        Assert.Equal([Q1], Targets(Names("q_proj") with { ModulesToSave = ["layers.0"] }));
        Assert.Equal(ErrorIds.NoModuleTargeted, Error(Names("lm_head") with { ModulesToSave = ["lm_head"] }).ErrorId);
        Assert.Equal(ErrorIds.TargetModuleNotFound, Error(Names("no_such_module") with { ModulesToSave = ["lm_head"] }).ErrorId);
        Assert.Equal(ErrorIds.SavedModuleInvalid, Error(Names("q_proj") with { ModulesToSave = ["nope"] }).ErrorId);
    }

    [Fact]
    public void Layers_filter_names_by_index_but_not_exact_names_and_never_patterns()
    {
        Assert.Equal([Q1], Targets(Names("q_proj") with { LayersToTransform = [1] }));
        Assert.Equal([Q0, Q1], Targets(Names("q_proj") with { LayersToTransform = [] }));
        Assert.Equal([Q0, V1], Targets(Names(Q0, "v_proj") with { LayersToTransform = [1] }));
        Assert.Equal([Q0, Q1], Targets(Pattern(".*q_proj") with { LayersToTransform = [1] }));
        Assert.Equal([Q0], Targets(Names("q_proj") with { LayersToTransform = [0], LayersPattern = ["layers"] }));
        Assert.Equal([Q0], Targets(Names("q_proj") with { LayersToTransform = [0], LayersPattern = ["(layers|h)"] }));
        LoKrException none = Error(Names("q_proj") with { LayersToTransform = [0], LayersPattern = ["blocks"] });
        Assert.Equal(ErrorIds.TargetModuleNotFound, none.ErrorId);
        Assert.Contains("blocks", none.Message, StringComparison.Ordinal);
        Assert.Equal(ErrorIds.LayersPatternInvalid, Error(Names("q_proj") with { LayersPattern = ["layers"] }).ErrorId);
    }

    [Fact]
    public void A_list_at_the_root_needs_its_name_as_layers_pattern()
    {
        using LoKrModel model = new(TestNetworks.Network(("layers", nn.Sequential(
            ("0", nn.Sequential(("q", nn.Linear(4, 4)))), ("1", nn.Sequential(("q", nn.Linear(4, 4))))))));
        Assert.Equal(ErrorIds.TargetModuleNotFound, Assert.Throws<LoKrException>(() => model.AddAdapter(Names("q") with { LayersToTransform = [1] })).ErrorId);
        Assert.Equal("layers.1.q", Assert.Single(model.AddAdapter(Names("q") with { LayersToTransform = [1], LayersPattern = ["layers"] }).Layers).ModuleName);
    }

    [Theory]
    [InlineData("llama", "q_proj|v_proj")]
    [InlineData("gemma3_text", "q_proj|v_proj")]
    [InlineData("nemotron_h", "q_proj|k_proj|v_proj|o_proj")]
    public void The_default_depends_on_the_model_type(string modelType, string names)
    {
        using LoKrModel model = new(TestNetworks.Decoder(modelType));
        LoKrAdapter adapter = model.AddAdapter(new());
        Assert.Equal(names.Split('|'), adapter.Config.TargetModules!.Names);
        Assert.Equal([Q0, V0, Q1, V1], adapter.Layers.Select(static layer => layer.ModuleName));
    }

    [Fact]
    public void Forty_architectures_have_a_default_and_others_must_name_targets()
    {
        Assert.Equal(40, DefaultTargets.ModelTypes.Count);
        using LoKrModel model = new(TestNetworks.Decoder("unheard-of"));
        Assert.Equal(ErrorIds.TargetModulesRequired, Assert.Throws<LoKrException>(() => model.AddAdapter(new())).ErrorId);
        Assert.Equal(ErrorIds.TargetModulesRequired, Error(Names()).ErrorId);
    }

    [Fact]
    public void Rank_and_alpha_patterns_are_independent_and_the_first_match_wins()
    {
        LoKrConfig config = Names("q_proj", "v_proj") with
        {
            R = 2,
            Alpha = 4,
            RankPattern = [KeyValuePair.Create("q_proj", 1), KeyValuePair.Create(Q0, 3)],
            AlphaPattern = [KeyValuePair.Create(@"^model.layers.1.*", 6.0), KeyValuePair.Create("v_proj", 8.0)],
        };
        using LoKrModel model = new(TestNetworks.Decoder());
        Dictionary<string, LoKrLayer> layers = model.AddAdapter(config).Layers.ToDictionary(static layer => layer.ModuleName);
        Assert.Equal((1, 4.0, 4.0), (layers[Q0].R, layers[Q0].Alpha, layers[Q0].Scaling));
        Assert.Equal((1, 6.0), (layers[Q1].R, layers[Q1].Alpha));
        Assert.Equal((2, 8.0, 4.0), (layers[V0].R, layers[V0].Alpha, layers[V0].Scaling));
        Assert.Equal((2, 6.0), (layers[V1].R, layers[V1].Alpha));
    }

    [Fact]
    public void What_has_no_effect_is_said()
    {
        using LoKrModel model = new(TestNetworks.Decoder(tied: true));
        LoKrAdapter adapter = model.AddAdapter(
            Names("q_proj", "query", "lm_head") with
            {
                RankPattern = [KeyValuePair.Create("nope", 1)],
                AlphaPattern = [KeyValuePair.Create("neither", 1.0)],
                ExcludeModules = ModuleSelector.FromNames(["nothing"]),
            },
            "ok");
        Assert.Contains(adapter.Warnings, static warning => warning.Contains("'ok'", StringComparison.Ordinal));
        foreach (string word in (string[])["query", "nope", "neither", "nothing", "lm_head"])
        {
            Assert.Single(adapter.Warnings, warning => warning.Contains(word, StringComparison.Ordinal));
        }

        Assert.Empty(new LoKrModel(TestNetworks.Decoder()).AddAdapter(Names("q_proj")).Warnings);
        Assert.Equal(ErrorIds.TiedWeight, Assert.Throws<LoKrException>(() => model.Merge()).ErrorId);
    }

    [Fact]
    public void Containers_are_refused_by_type()
    {
        LoKrException error = Error(Names("self_attn"));
        Assert.Equal(ErrorIds.ModuleTypeNotSupported, error.ErrorId);
        Assert.Contains("Sequential", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_task_adds_its_head_to_the_saved_modules()
    {
        using LoKrModel model = new(TestNetworks.Network(("query", nn.Linear(4, 4)), ("pre_classifier", nn.Linear(4, 4)), ("classifier", nn.Linear(4, 2))));
        LoKrAdapter adapter = model.AddAdapter(Names("query") with { TaskType = TaskType.SequenceClassification });
        Assert.Equal(["pre_classifier", "classifier"], adapter.SavedModules);
        Assert.Equal(["classifier", "score"], adapter.Config.ModulesToSave!);
        Assert.Equal(ErrorIds.SavedModuleConflict, Assert.Throws<LoKrException>(() => new LoKrModel(model.Module).AddAdapter(
            Names("query", "pre_classifier") with { TaskType = TaskType.SequenceClassification })).ErrorId);

        // What is trained whole is not one of all linear layers to adapt.
        LoKrAdapter all = new LoKrModel(model.Module).AddAdapter(new() { TargetModules = ModuleSelector.FromPattern("all-linear"), TaskType = TaskType.SequenceClassification }, "all");
        Assert.Equal(["query"], all.Layers.Select(static layer => layer.ModuleName));
        Assert.Equal(["pre_classifier", "classifier"], all.SavedModules);
        Assert.DoesNotContain("pre_classifier", all.Config.TargetModules!.Names!);
    }

    [Fact]
    public void Twenty_full_names_are_written_as_endings()
    {
        using LoKrModel model = new(TestNetworks.Network([.. Enumerable.Range(0, 12).Select(static index =>
            ($"b{index}", (nn.Module<Tensor, Tensor>)nn.Sequential(("q", nn.Linear(4, 4)), ("v", nn.Linear(4, 4)), ("norm", nn.LayerNorm(4)))))]));
        LoKrAdapter adapter = model.AddAdapter(new() { TargetModules = ModuleSelector.FromPattern("all-linear") });
        Assert.Equal(24, adapter.Layers.Count);
        Assert.Equal(["q", "v"], adapter.Config.TargetModules!.Names);
    }

    [Theory]
    [InlineData("(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!")]
    public void A_pattern_that_never_ends_is_stopped(string pattern, string text) =>
        Assert.Equal(ErrorIds.PatternInvalid, Assert.Throws<LoKrException>(() => new PythonRegex(pattern, whole: true).IsMatch(text)).ErrorId);

    [Fact]
    public void A_pattern_that_is_slow_on_every_name_is_stopped()
    {
        // Each name takes a good part of a second, so no single match reaches its limit.
        Stopwatch watch = Stopwatch.StartNew();
        PythonRegex regex = new("(a+)+$", whole: true);
        LoKrException error = Assert.Throws<LoKrException>(() =>
        {
            for (int module = 0; module < 100_000; module++)
            {
                regex.IsMatch(new string('a', 20 + (module % 2)) + "!");
            }
        });
        Assert.Equal((ErrorIds.PatternInvalid, LoKrErrorKind.LimitExceeded), (error.ErrorId, error.Kind));
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 30);
    }

    public static TheoryData<string> HugePatterns => new(
        new string('(', 20_000) + "a" + new string(')', 20_000),
        string.Concat(Enumerable.Repeat("(?P<n>", 20_000)) + "a",
        string.Join('|', Enumerable.Range(0, 50_000).Select(static number => $"w{number}")));

    [Theory]
    [MemberData(nameof(HugePatterns))]
    public void Patterns_that_are_too_long_or_too_deep_are_refused_at_once(string pattern)
    {
        Stopwatch watch = Stopwatch.StartNew();
        foreach (LoKrConfig config in new[]
        {
            Pattern(pattern), Names("q_proj") with { ExcludeModules = ModuleSelector.FromPattern(pattern) },
            Names("q_proj") with { RankPattern = [KeyValuePair.Create(pattern, 4)] }, Names("q_proj") with { AlphaPattern = [KeyValuePair.Create(pattern, 4.0)] },
            Names("q_proj") with { LayersToTransform = [1], LayersPattern = [pattern] }, Names("q_proj") with { ModulesToSave = [pattern] },
        })
        {
            LoKrException error = Error(config);
            Assert.Equal((ErrorIds.PatternInvalid, LoKrErrorKind.LimitExceeded), (error.ErrorId, error.Kind));
            Assert.InRange(error.Message.Length, 1, 1_000);
        }

        LoKrException read = Assert.Throws<LoKrException>(() => LoKrConfigJson.Parse($$"""{"peft_type":"LOKR","target_modules":"{{pattern}}"}""", "adapter_config.json", out _));
        Assert.Equal(ErrorIds.PatternInvalid, read.ErrorId);
        Assert.Contains("'target_modules'", read.Message, StringComparison.Ordinal);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 5);
    }

    [Fact]
    public void The_longest_patterns_are_built_and_matched_in_seconds()
    {
        Stopwatch watch = Stopwatch.StartNew();
        string names = string.Join('|', Enumerable.Range(0, 9_000).Select(static number => $"w{number}"));
        Assert.True(new PythonRegex(names, whole: true).IsMatch("w8999"));
        Assert.True(new PythonRegex(string.Concat(Enumerable.Repeat("a?|", 20_000)), whole: true).IsMatch("a"));
        Assert.True(new PythonRegex(string.Concat(Enumerable.Repeat("[(]", 200)), whole: true).IsMatch(new string('(', 200)));
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 10);
    }

    [Fact]
    public void A_layer_number_of_many_digits_is_not_a_layer() => Assert.False(
        new TargetMatcher(Names("q_proj") with { LayersToTransform = [1] }).IsChosenLayer("model.layers.99999999999999999999.self_attn.q_proj"));

    [Theory]
    [InlineData(@"a{,2}", "aa", true)]
    [InlineData(@"a{,2}", "aaa", false)]
    [InlineData(@"[]a]+", "a]", true)]
    [InlineData(@"[+-[b]+", "[b", true)]
    [InlineData(@"(?P<n>a)(?P=n)", "aa", true)]
    [InlineData(@"a|ab", "ab", true)]
    [InlineData(@"a$", "a\n", false)]
    public void Python_expressions_mean_what_they_mean_in_Python(string pattern, string text, bool expected) =>
        Assert.Equal(expected, new PythonRegex(pattern, whole: true).IsMatch(text));

    private static LoKrConfig Names(params string[] names) => new() { TargetModules = ModuleSelector.FromNames(names) };

    private static LoKrConfig Pattern(string pattern) => new() { TargetModules = ModuleSelector.FromPattern(pattern) };

    private static string[] Targets(LoKrConfig config)
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        return [.. model.AddAdapter(config).Layers.Select(static layer => layer.ModuleName)];
    }

    private static LoKrException Error(LoKrConfig config)
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrException error = Assert.Throws<LoKrException>(() => model.AddAdapter(config));
        Assert.Empty(model.Adapters);
        Assert.All(model.Module.parameters(), static parameter => Assert.True(parameter.requires_grad));
        return error;
    }
}
