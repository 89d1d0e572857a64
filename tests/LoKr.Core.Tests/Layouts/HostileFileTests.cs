using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Safetensors;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Files that are damaged, assembled by hand or malicious: every way of reading ends in an error with an id and changes nothing.</summary>
public sealed class HostileFileTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    // Missing and superfluous factors.
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.alpha=1", ErrorIds.AdapterKeysMismatch)]
    [InlineData("lora_unet_fc.lokr_w2 4 2; lora_unet_fc.alpha=1", ErrorIds.AdapterKeysMismatch)]
    [InlineData("lora_unet_fc.alpha=1", ErrorIds.AdapterKeysMismatch)]
    [InlineData("lora_unet_fc.lokr_w1_a 4 1; lora_unet_fc.lokr_w2 4 2", ErrorIds.AdapterKeysMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2_a 4 1", ErrorIds.AdapterKeysMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w1_a 4 1; lora_unet_fc.lokr_w1_b 1 4; lora_unet_fc.lokr_w2 4 2", ErrorIds.AdapterKeysMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 2; lora_unet_fc.lokr_t2 1 1 3 3", ErrorIds.AdapterKeysMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 2; lora_unet_fc.w_norm 16", ErrorIds.AdapterKeysMismatch)]
    // Shapes that do not fit together.
    [InlineData("lora_unet_fc.lokr_w1 16; lora_unet_fc.lokr_w2 4 2", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4 1; lora_unet_fc.lokr_w2 4 2", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 8", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 2 1 1 1 1", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2_a 4 1; lora_unet_fc.lokr_w2_b 2 2; lora_unet_fc.alpha=1", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1_a 4 2; lora_unet_fc.lokr_w1_b 1 4; lora_unet_fc.lokr_w2 4 2; lora_unet_fc.alpha=1", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2_a 2 4; lora_unet_fc.lokr_w2_b 2 2; lora_unet_fc.lokr_t2 3 3 3 3; lora_unet_fc.alpha=1", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 0; lora_unet_fc.lokr_w2 4 2", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 2; lora_unet_fc.dora_scale 7 1", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2_a 4 1; lora_unet_fc.lokr_w2_b 1 2; lora_unet_fc.alpha 2", ErrorIds.AdapterShapeMismatch)]
    // Shapes that do not fit the layer of 16×8.
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 4", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 2 4; lora_unet_fc.lokr_w2 4 2", ErrorIds.AdapterShapeMismatch)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 2 3 3", ErrorIds.AdapterShapeMismatch)]
    // Alpha.
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2_a 4 1; lora_unet_fc.lokr_w2_b 1 2; lora_unet_fc.alpha=inf", ErrorIds.AlphaInvalid)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2_a 4 1; lora_unet_fc.lokr_w2_b 1 2; lora_unet_fc.alpha=nan", ErrorIds.AlphaInvalid)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2_a 4 1; lora_unet_fc.lokr_w2_b 1 2; lora_unet_fc.alpha=0", ErrorIds.AlphaInvalid)]
    [InlineData("base_model.model.fc.lokr_w1 4 4; base_model.model.fc.lokr_w2 4 2", ErrorIds.AdapterScaleUnknown)]
    // Names.
    [InlineData("lora_unet_fc.lokr_w1 4 4; base_model.model.fc.lokr_w2 4 2", ErrorIds.AdapterLayoutMixed)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 2; diffusion_model.fc.lokr_w1 4 4; diffusion_model.fc.lokr_w2 4 2", ErrorIds.AdapterLayoutMixed)]
    [InlineData("base_model.model.fc.lokr_w1.a 4 4; base_model.model.fc.lokr_w2.a 4 2; base_model.model.fc.lokr_w1.b 4 4", ErrorIds.AdapterKeyInvalid)]
    [InlineData("lora_te_fc.lokr_w1 4 4; lora_te_fc.lokr_w2 4 2; lora_te1_fc.lokr_w1 4 4; lora_te1_fc.lokr_w2 4 2", ErrorIds.AdapterKeyInvalid)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 2; bundle_emb.cat.string_to_param 4", ErrorIds.AdapterKeyInvalid)]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 2; lora_unet_gone.lokr_w1 4 4; lora_unet_gone.lokr_w2 4 2", ErrorIds.AdapterModulesUnknown)]
    [InlineData("lora_unet_gone.lokr_w1 4 4; lora_unet_gone.lokr_w2 4 2", ErrorIds.AdapterModulesUnknown)]
    [InlineData("fc.weight 16 8", ErrorIds.AdapterKeyInvalid)]
    [InlineData("", ErrorIds.AdapterTypeNotSupported)]
    public void A_hostile_file_has_an_error_and_changes_nothing(string tensors, string id)
    {
        using DisposeScope scope = NewDisposeScope();
        string path = Write("x.safetensors", tensors);
        using LoKrModel model = new(TestNetworks.Network(("fc", nn.Linear(8, 16)), ("act", nn.ReLU())));
        LoKrException exception = Assert.Throws<LoKrException>(() =>
        {
            using AdapterFile file = AdapterFile.Open(path);
            AdapterImporter.Import(model, file);
        });
        Assert.Equal(id, exception.ErrorId);
        Assert.Empty(model.Adapters);
        LoKrAdapterCheck check = AdapterValidator.Check(path, new() { Model = model });
        Assert.False(check.IsValid);
        Assert.Equal(id, check.Findings[0].ErrorId);
        Assert.Throws<LoKrException>(() => AdapterConverter.Convert(path, _folder["y.safetensors"], AdapterLayout.Comfy, new() { Model = model }, out _));
        Assert.False(File.Exists(_folder["y.safetensors"]));
    }

    [Theory]
    [InlineData("lora_unet_fc.lokr_w1 4 4; lora_unet_fc.lokr_w2 4 2; lora_unet_fc.alpha=inf", 1)]
    [InlineData("diffusion_model.fc.lokr_w1 4 4; diffusion_model.fc.lokr_w2 4 2; diffusion_model.fc.alpha=1e10", 1)]
    [InlineData("diffusion_model.fc.lokr_w1 4 4; diffusion_model.fc.lokr_w2 4 2", 1)]
    [InlineData("fc.___.lokr_w1 4 4; fc.___.lokr_w2_a 4 2; fc.___.lokr_w2_b 2 2; fc.___.alpha=1", 0.5)]
    [InlineData("lycoris_fc.lokr_w1_a 4 1; lycoris_fc.lokr_w1_b 1 4; lycoris_fc.lokr_w2_a 4 2; lycoris_fc.lokr_w2_b 2 2; lycoris_fc.alpha=4", 2)]
    [InlineData("transformer.fc.lokr_w1 4 4; transformer.fc.lokr_w2_a 4 2; transformer.fc.lokr_w2_b 2 2; transformer.fc.alpha=6", 3)]
    [InlineData("lora_transformer_fc.lokr_w1 4 4; lora_transformer_fc.lokr_w2_a 4 2; lora_transformer_fc.lokr_w2_b 2 2", 1)]
    [InlineData("lora_unet.fc.lokr_w1 4 4; lora_unet.fc.lokr_w2_a 4 2; lora_unet.fc.lokr_w2_b 2 2; lora_unet.fc.alpha=2", 1)]
    [InlineData("fc.lokr_w1 4 4; fc.lokr_w2_a 4 4; fc.lokr_w2_b 4 2; fc.alpha=2", 0.5)]
    [InlineData("fc.lokr_w1 16 1; fc.lokr_w2 1 8; fc.alpha=3", 1)]
    [InlineData("fc.lokr_w1_a 8 3; fc.lokr_w1_b 3 2; fc.lokr_w2_a 2 1; fc.lokr_w2_b 1 4; fc.alpha=2", 2)]
    public void An_unusual_but_valid_file_loads_with_the_scale_of_its_origin(string tensors, double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        string path = Write("x.safetensors", tensors);
        using LoKrModel model = new(TestNetworks.Network(("fc", nn.Linear(8, 16))));
        Tensor x = randn(3, 8);
        Tensor before = PeftCase.Run(model, x);
        using AdapterFile file = AdapterFile.Open(path);
        LoKrLayer layer = Assert.Single(AdapterImporter.Import(model, file).Layers);
        Assert.Equal(scale, layer.Scaling, 1e-12);
        Dictionary<string, Tensor> factors = file.Modules[0].Tensors.ToDictionary(static pair => pair.Key, pair => Read(path, pair.Value.Name));
        Tensor w1 = factors.GetValueOrDefault("lokr_w1") ?? factors["lokr_w1_a"].mm(factors["lokr_w1_b"]);
        Tensor w2 = factors.GetValueOrDefault("lokr_w2") ?? factors["lokr_w2_a"].mm(factors["lokr_w2_b"]);
        Testing.TensorAssert.Close(before + (x.mm(kron(w1, w2.contiguous()).t()) * scale), PeftCase.Run(model, x), 1e-5, "output");
        Assert.True(AdapterValidator.Check(path, new() { Model = model, Values = true }).IsValid);
    }

    [Fact]
    public void Shapes_that_no_decompose_factor_results_in_load_move_and_survive_other_layouts()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        string path = Write("x.safetensors",
            "lycoris_a.lokr_w1 4 4; lycoris_a.lokr_w2_a 4 1; lycoris_a.lokr_w2_b 1 2; lycoris_a.alpha=2; lycoris_a.dora_scale 16 1; "
            + "lycoris_b.lokr_w1_a 2 3; lycoris_b.lokr_w1_b 3 8; lycoris_b.lokr_w2 4 2 1 1; lycoris_b.alpha=3; "
            + "lycoris_c.lokr_w1 8 2; lycoris_c.lokr_w2_a 2 2; lycoris_c.lokr_w2_b 2 2; lycoris_c.lokr_t2 2 2 3 3; lycoris_c.alpha=1");
        using LoKrModel model = Network();
        Tensor x = randn(2, 8, 6, 6);
        using AdapterFile file = AdapterFile.Open(path);
        LoKrAdapter adapter = AdapterImporter.Import(model, file);
        Assert.True(adapter.Config.ShapesFromFile);
        Assert.Equal([2.0, 1, 0.5], adapter.Layers.Select(static layer => layer.Scaling));
        Tensor expected = PeftCase.Run(model, x);
        Assert.True(adapter.Layers[0].Factors.Tensors.ContainsKey(FactorNames.DoraScale));
        Assert.False(adapter.Layers[1].Factors.Tensors.ContainsKey(FactorNames.DoraScale));
        model.MoveTo(dtype: float64);
        model.MoveTo(dtype: float32);
        Testing.TensorAssert.Close(expected, PeftCase.Run(model, x), 1e-6, "output after a move");

        // Other layouts have no rule for shapes; PEFT's has, and the result is a warning.
        foreach (AdapterLayout layout in (AdapterLayout[])[AdapterLayout.Kohya, AdapterLayout.Hcp, AdapterLayout.Peft])
        {
            string copy = _folder[layout == AdapterLayout.Peft ? "peft" : $"{layout}.safetensors"];
            IReadOnlyList<string> warnings = AdapterExporter.Export(model, "default", copy, layout);
            Assert.Equal(layout == AdapterLayout.Peft, warnings.Count > 0);
            using LoKrModel fresh = Network();
            fresh.Module.load_state_dict(model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value));
            using AdapterFile back = AdapterFile.Open(copy);
            AdapterImporter.Import(fresh, back);
            Testing.TensorAssert.Close(expected, PeftCase.Run(fresh, x), 1e-6, $"output by way of {layout}");
        }

        LoKrException exception = Assert.Throws<LoKrException>(() => AdapterExporter.Export(model, "default", _folder["d.safetensors"], AdapterLayout.DiffusersModel));
        Assert.Equal(ErrorIds.ConversionUnsupported, exception.ErrorId);
    }

    [Fact]
    public void Values_that_are_not_finite_are_found_on_request()
    {
        using DisposeScope scope = NewDisposeScope();
        string path = _folder["x.safetensors"];
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { ["fc.lokr_w1"] = ones(4, 4), ["fc.lokr_w2"] = tensor(new[] { 1f, float.NaN }).reshape(1, 2) });
        Assert.True(AdapterValidator.Check(path, new()).IsValid);
        Assert.Equal(ErrorIds.AdapterValueInvalid, Assert.Single(AdapterValidator.Check(path, new() { Values = true }).Findings).ErrorId);
    }

    [Fact]
    public void Integers_are_not_factors()
    {
        using DisposeScope scope = NewDisposeScope();
        string path = _folder["x.safetensors"];
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { ["fc.lokr_w1"] = ones(4, 4, dtype: int8), ["fc.lokr_w2"] = ones(4, 2) });
        Assert.Equal(ErrorIds.TensorDTypeMismatch, AdapterValidator.Check(path, new()).Findings[0].ErrorId);
        Dictionary<string, Tensor> low = new() { ["fc.lokr_w1"] = ones(4, 4), ["fc.lokr_w2_a"] = ones(4, 2), ["fc.lokr_w2_b"] = ones(2, 2), ["fc.alpha"] = tensor(6L) };
        SafetensorsWriter.Write(path, low);
        Assert.Equal(3, AdapterInspector.Inspect(path).Scale);
        low["fc.alpha"] = tensor(true);
        SafetensorsWriter.Write(path, low);
        Assert.Equal(ErrorIds.TensorDTypeUnsupported, AdapterValidator.Check(path, new()).Findings[0].ErrorId);
    }

    [Theory]
    [InlineData("""{"fc.lokr_w1":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"fc.lokr_w1":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}""", 16, ErrorIds.SafetensorsDuplicateKey)]
    [InlineData("""{"fc.lokr_w1":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"fc.lokr_w2":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}""", 12, ErrorIds.SafetensorsOverlap)]
    [InlineData("""{"fc.lokr_w1":{"dtype":"F32","shape":[1048576,1048576],"data_offsets":[0,4398046511104]}}""", 16, ErrorIds.SafetensorsTruncated)]
    [InlineData("""{"__metadata__":{"lora_adapter_metadata":"[1]"}}""", 0, ErrorIds.AdapterConfigInvalid)]
    [InlineData("""{"__metadata__":{"lora_adapter_metadata":"{\"peft_type\":\"LORA\"}"}}""", 0, ErrorIds.AdapterTypeNotSupported)]
    [InlineData("""{"__metadata__":{"lokr_ps":"{"}}""", 0, ErrorIds.AdapterConfigInvalid)]
    public void A_bad_container_or_header_is_a_finding(string header, int bytes, string id)
    {
        string path = _folder["x.safetensors"];
        File.WriteAllBytes(path, SafetensorsBytes.Make(header, bytes));
        Assert.Equal(id, Assert.Throws<LoKrException>(() => AdapterInspector.Inspect(path)).ErrorId);
        Assert.Equal(id, AdapterValidator.Check(path, new()).Findings[0].ErrorId);
    }

    [Fact]
    public void An_edited_header_neither_renames_nor_scales()
    {
        using DisposeScope scope = NewDisposeScope();
        string path = _folder["x.safetensors"];
        Dictionary<string, string> metadata = new()
        {
            ["lokr_ps"] = """{"layout":"Hcp","configs":{"Model":{"peft_type":"LOKR","r":1,"alpha":100}},"modules":{"lora_unet_a_b":"c.d","lora_unet_a_c":"a.c"}}""",
        };
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor>
        {
            ["lora_unet_a_b.lokr_w1"] = ones(4, 4), ["lora_unet_a_b.lokr_w2_a"] = ones(8, 1), ["lora_unet_a_b.lokr_w2_b"] = ones(1, 8), ["lora_unet_a_b.alpha"] = tensor(3f),
        }, metadata);
        using (AdapterFile file = AdapterFile.Open(path))
        {
            Assert.Equal(AdapterLayout.Kohya, file.Layout);
        }

        Assert.Equal(3, AdapterInspector.Inspect(path).Scale);
        Assert.Equal(ErrorIds.AdapterModulesUnknown, Assert.Throws<LoKrException>(() => AdapterConverter.Convert(path, _folder["y"], AdapterLayout.Peft, new(), out _)).ErrorId);
        using LoKrModel model = new(nn.Sequential(("a", nn.Sequential(("b", nn.Linear(32, 32))))));
        LoKrAdapterInfo peft = AdapterConverter.Convert(path, _folder["y"], AdapterLayout.Peft, new() { Model = model }, out _);
        Assert.Equal(3, peft.Scale);
    }

    private static LoKrModel Network() => new(TestNetworks.Network(
        ("a", nn.Conv2d(8, 16, 1)), ("b", nn.Conv2d(16, 8, 1)), ("c", nn.Conv2d(8, 16, 3, padding: 1, groups: 2))));

    private static Tensor Read(string path, string name)
    {
        using SafetensorsReader reader = SafetensorsReader.Open(path);
        return reader.Read(name);
    }

    /// <summary>Writes tensors given as <c>name size size…</c> or <c>name=value</c>.</summary>
    private string Write(string file, string tensors)
    {
        random.manual_seed(3);
        string path = _folder[file];
        Dictionary<string, Tensor> all = tensors.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).ToDictionary(
            static text => text.Split(' ', '=')[0],
            static text => text.Contains('=', StringComparison.Ordinal)
                ? tensor(text.Split('=')[1] switch { "inf" => float.PositiveInfinity, "nan" => float.NaN, string number => float.Parse(number, System.Globalization.CultureInfo.InvariantCulture) })
                : randn([.. text.Split(' ')[1..].Select(long.Parse)]));
        SafetensorsWriter.Write(path, all);
        return path;
    }
}
