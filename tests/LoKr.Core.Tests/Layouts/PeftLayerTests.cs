using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Layers for which PEFT has LoRA, and LoKr not: <c>LoKrModel.layers_mapping</c> has Linear, Conv1d and Conv2d.</summary>
public sealed class PeftLayerTests
{
    [Theory]
    [InlineData("linear", null)]
    [InlineData("conv1d", null)]
    [InlineData("conv2d", null)]
    [InlineData("conv3d", "Conv3d")]
    [InlineData("transposed", "Conv1D")]
    [InlineData("embedding", "Embedding")]
    [InlineData("TorchSharp embedding", "Embedding")]
    public void A_layer_that_PEFT_has_no_LoKr_for_is_a_warning(string kind, string? named)
    {
        using TempFolder folder = new();
        using LoKrModel model = new(TestNetworks.Network(("plain", nn.Linear(8, 8)), ("odd", Layer(kind))));
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["plain", "odd"]) });
        IReadOnlyList<string> warnings = AdapterExporter.Export(model, "default", folder["peft"], AdapterLayout.Peft);
        if (named is null)
        {
            Assert.Empty(warnings);
            return;
        }

        string warning = Assert.Single(warnings);
        Assert.All(["PEFT cannot apply", "'odd'", named, "1 of 2", "LoRA"], text => Assert.Contains(text, warning, StringComparison.Ordinal));
        IAdaptable target = model;
        Assert.Equal(warnings, AdapterExporter.Export(target, "default", folder["program"], AdapterLayout.Bare, new() { Program = AdapterProgram.Peft }));
        ErrorAssert.Throws(ErrorIds.ConversionUnsupported, () => AdapterExporter.Export(model, "default", folder["diffusers"], AdapterLayout.Diffusers), "odd");
        Assert.Empty(AdapterExporter.Export(model, "default", folder["bare.safetensors"], AdapterLayout.Bare));
    }

    private static nn.Module<Tensor, Tensor> Layer(string kind) => kind switch
    {
        "linear" => nn.Linear(8, 12),
        "conv1d" => nn.Conv1d(8, 12, 1),
        "conv2d" => nn.Conv2d(8, 12, 3),
        "conv3d" => nn.Conv3d(8, 12, 3),
        "transposed" => new Core.Nn.Conv1D(8, 12),
        "embedding" => new Core.Nn.Embedding(30, 12),
        _ => nn.Embedding(30, 12),
    };
}
