using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Configuration;

public sealed class LoKrConfigJsonTests
{
    [Fact]
    public void Every_file_that_PEFT_saved_is_rewritten_byte_for_byte()
    {
        string root = Fixtures.Require();
        int compared = 0;
        foreach (string path in Directory.EnumerateFiles(root, "adapter_config.json", SearchOption.AllDirectories))
        {
            string text = File.ReadAllText(path);
            if (!text.Contains("\"LOKR\"", StringComparison.Ordinal))
            {
                continue;
            }

            LoKrConfig config = LoKrConfigJson.Read(path, out IReadOnlyList<string> warnings);
            Assert.Empty(warnings);
            string rewritten = LoKrConfigJson.Write(config);
            Assert.Equal(text, rewritten);
            compared++;
        }

        Assert.True(compared > 20, $"Only {compared} files were compared.");
    }

    [Fact]
    public void Every_field_survives()
    {
        LoKrConfig config = Full();
        LoKrConfig read = LoKrConfigJson.Parse(LoKrConfigJson.Write(config), "test", out IReadOnlyList<string> warnings);
        Assert.Empty(warnings);
        foreach (System.Reflection.PropertyInfo property in typeof(LoKrConfig).GetProperties().Where(property => property.CanWrite))
        {
            object? expected = property.GetValue(config);
            object? actual = property.GetValue(read);
            Assert.NotEqual(Text(property.GetValue(new LoKrConfig())), Text(expected));
            Assert.True(Text(expected) == Text(actual), $"{property.Name}: {Text(expected)} became {Text(actual)}.");
        }

        static string? Text(object? value) => value is System.Collections.IEnumerable items and not string
            ? string.Join("|", items.Cast<object>())
            : value?.ToString();
    }

    [Fact]
    public void Options_that_PEFT_does_not_know_are_absent_by_default()
    {
        Assert.DoesNotContain(LoKrConfigJson.ExtensionKey, LoKrConfigJson.Write(new LoKrConfig()), StringComparison.Ordinal);
        Assert.Contains("\"lokr_ps\": {\n    \"scaling\": \"none\"\n  },\n", LoKrConfigJson.Write(new LoKrConfig { Scaling = ScalingConvention.None }), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(16, "16")]
    [InlineData(0.5, "0.5")]
    [InlineData(1e-5, "1e-05")]
    [InlineData(1e300, "1e+300")]
    public void Numbers_read_as_Python_writes_them(double alpha, string text)
    {
        string json = LoKrConfigJson.Write(new LoKrConfig { Alpha = alpha, ModuleDropout = 0.1 });
        Assert.StartsWith($"{{\n  \"alpha\": {text},\n", json, StringComparison.Ordinal);
        Assert.Contains("\"module_dropout\": 0.1,", json, StringComparison.Ordinal);
        Assert.Contains("\"rank_dropout\": 0.0,", json, StringComparison.Ordinal);
        Assert.Equal(alpha, LoKrConfigJson.Parse(json, "test", out _).Alpha);
    }

    [Fact]
    public void Text_beyond_ASCII_is_escaped_as_Python_does()
    {
        string json = LoKrConfigJson.Write(new LoKrConfig { BaseModelNameOrPath = "modèle\\\"😀\n" });
        Assert.Contains("\"base_model_name_or_path\": \"mod\\u00e8le\\\\\\\"\\ud83d\\ude00\\n\"", json, StringComparison.Ordinal);
    }

    [Fact]
    public void Patterns_keep_their_order()
    {
        LoKrConfig config = LoKrConfigJson.Parse("""{"peft_type":"LOKR","peft_version":"0.21.2","rank_pattern":{"z":1,"a":2},"alpha_pattern":{"y":1.5,"b":2}}""", "test", out _);
        Assert.Equal(["z", "a"], config.RankPattern.Select(pair => pair.Key));
        Assert.Equal([1.5, 2], config.AlphaPattern.Select(pair => pair.Value));
        Assert.Equal(config.RankPattern, LoKrConfigJson.Parse(LoKrConfigJson.Write(config), "test", out _).RankPattern);
    }

    [Fact]
    public void Keys_that_are_not_known_are_reported_and_the_rest_is_read()
    {
        LoKrConfig config = LoKrConfigJson.Parse("""{"peft_type":"LOKR","peft_version":"0.99.0","r":4,"alpha":4,"brand_new":{"x":1},"lokr_ps":{"other":true}}""", "file.json", out IReadOnlyList<string> warnings);
        Assert.Equal(4, config.R);
        Assert.Equal(2, warnings.Count);
        Assert.Contains("'brand_new' in 'file.json'", warnings[0], StringComparison.Ordinal);
        Assert.Contains("'lokr_ps.other'", warnings[1], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("", 8, 8, false)]
    [InlineData("", 8, 16, true)]
    [InlineData("\"peft_version\":\"0.13.2\",", 8, 16, true)]
    [InlineData("\"peft_version\":\"0.14.0\",", 8, 16, false)]
    [InlineData("\"peft_version\":\"0.18.2.dev0@abc\",", 8, 16, false)]
    [InlineData("\"peft_version\":\"1.0.0\",", 8, 16, false)]
    public void A_file_that_may_be_from_before_scaling_is_reported(string version, int rank, int alpha, bool reported)
    {
        string json = $$"""{{{version}}"peft_type":"LOKR","r":{{rank}},"alpha":{{alpha}}}""";
        LoKrConfigJson.Parse(json, "test", out IReadOnlyList<string> warnings);
        Assert.Equal(reported ? 1 : 0, warnings.Count);
    }

    [Theory]
    [InlineData("", null)]
    [InlineData("{", null)]
    [InlineData("[]", null)]
    [InlineData("""{"r":8}""", "peft_type")]
    [InlineData("""{"peft_type":"LOKR","r":8,"r":9}""", null)]
    [InlineData("""{"peft_type":1}""", "peft_type")]
    [InlineData("""{"peft_type":"LOKR","r":"8"}""", "'r'")]
    [InlineData("""{"peft_type":"LOKR","r":8.5}""", "'r'")]
    [InlineData("""{"peft_type":"LOKR","r":99999999999}""", "'r'")]
    [InlineData("""{"peft_type":"LOKR","alpha":true}""", "'alpha'")]
    [InlineData("""{"peft_type":"LOKR","alpha":1e999}""", "'alpha'")]
    [InlineData("""{"peft_type":"LOKR","decompose_both":1}""", "'decompose_both'")]
    [InlineData("""{"peft_type":"LOKR","target_modules":{}}""", "'target_modules'")]
    [InlineData("""{"peft_type":"LOKR","target_modules":["q",1]}""", "'target_modules'")]
    [InlineData("""{"peft_type":"LOKR","init_weights":"gaussian"}""", "'init_weights'")]
    [InlineData("""{"peft_type":"LOKR","task_type":"POETRY"}""", "'task_type'")]
    [InlineData("""{"peft_type":"LOKR","rank_pattern":[]}""", "'rank_pattern'")]
    [InlineData("""{"peft_type":"LOKR","rank_pattern":{"a.b":1.5}}""", "'rank_pattern.a.b'")]
    [InlineData("""{"peft_type":"LOKR","layers_to_transform":["1"]}""", "'layers_to_transform'")]
    [InlineData("""{"peft_type":"LOKR","auto_mapping":{}}""", "'auto_mapping.base_model_class'")]
    [InlineData("""{"peft_type":"LOKR","lokr_ps":{"scaling":"huge"}}""", "'lokr_ps.scaling'")]
    public void Wrong_values_name_the_file_and_the_key(string json, string? key)
    {
        LoKrException exception = Assert.Throws<LoKrException>(() => LoKrConfigJson.Parse(json, "/here/adapter_config.json", out _));
        Assert.Equal(ErrorIds.AdapterConfigInvalid, exception.ErrorId);
        Assert.Contains("/here/adapter_config.json", exception.Message, StringComparison.Ordinal);
        Assert.Contains(key ?? "", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Another_kind_of_adapter_is_refused_by_name()
    {
        LoKrException exception = Assert.Throws<LoKrException>(() => LoKrConfigJson.Parse("""{"peft_type":"LORA","r":8}""", "x", out _));
        Assert.Equal(ErrorIds.AdapterTypeNotSupported, exception.ErrorId);
        Assert.Contains("LORA", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Single_values_stand_for_lists_of_one()
    {
        LoKrConfig config = LoKrConfigJson.Parse("""{"peft_type":"LOKR","layers_to_transform":3,"layers_pattern":"h","target_modules":"all-linear","exclude_modules":["x"]}""", "x", out _);
        Assert.Equal([3], config.LayersToTransform!);
        Assert.Equal(["h"], config.LayersPattern!);
        Assert.True(config.TargetModules!.IsAllLinear);
        Assert.Equal(["x"], config.ExcludeModules!.Names);
    }

    private static LoKrConfig Full() => new()
    {
        R = 3,
        Alpha = 2.5,
        RankDropout = 0.1,
        RankDropoutScale = true,
        ModuleDropout = 0.2,
        UseEffectiveConv2d = true,
        DecomposeBoth = true,
        DecomposeFactor = 4,
        TargetModules = ModuleSelector.FromNames(["q", "v"]),
        ExcludeModules = ModuleSelector.FromPattern(".*head"),
        InitWeights = InitWeights.Lycoris,
        LayersToTransform = [1, 2],
        LayersPattern = ["layers", "h"],
        RankPattern = [KeyValuePair.Create("^lin0", 7)],
        AlphaPattern = [KeyValuePair.Create("lin1", 0.25)],
        ModulesToSave = ["classifier"],
        TaskType = TaskType.TokenClassification,
        AutoMapping = new AutoMapping("BertModel", "transformers.models.bert"),
        BaseModelNameOrPath = "base",
        Revision = "main",
        InferenceMode = true,
        WeightDecompose = true,
        WeightDecomposeAxis = WeightDecomposeAxis.Input,
        FullMatrix = true,
        RsLora = true,
        UnbalancedFactorization = true,
        UseScalar = true,
        TrainNorm = true,
        ShapesFromFile = true,
        Scaling = ScalingConvention.Lycoris,
        Factorization = FactorizationConvention.Lycoris,
        Conv1dLayout = Conv1dLayout.Kronecker,
    };
}
