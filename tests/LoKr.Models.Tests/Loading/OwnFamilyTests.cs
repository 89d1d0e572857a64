using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

/// <summary>A family that a program brings itself, written against the public API.</summary>
public sealed class OwnFamilyTests
{
    private static readonly ArchitectureRegistry s_registry = new(ArchitectureRegistry.Default.All.Append(
        new ModelArchitecture("two-layers", nameof(TwoLayers), static (config, options) => new TwoLayers(config, options), new CheckpointLayout()) { TakesTokens = false }));

    [Fact]
    public void A_family_of_a_program_is_loaded_adapted_merged_and_exported()
    {
        using TempFolder folder = new();
        string source = Write(folder["source"]);
        using LoKrModel model = ModelLoader.Load(source, new ModelLoadOptions { Architectures = s_registry });
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["up"]), InitWeights = InitWeights.Random }, seed: 1);
        using Tensor input = ones(1, 4);
        using Tensor adapted = ((TwoLayers)model.Module).call(input);
        model.Merge();
        ModelExporter.Export(model, folder["merged"]);

        using LoKrModel merged = ModelLoader.Load(folder["merged"], new ModelLoadOptions { Architectures = s_registry });
        using Tensor expected = ((TwoLayers)merged.Module).call(input);
        TensorAssert.Close(expected, adapted, 1e-5, "merged");
    }

    [Fact]
    public void A_family_that_is_not_registered_is_unknown()
    {
        using TempFolder folder = new();
        ErrorAssert.Throws(ErrorIds.ModelTypeUnknown, () => ModelLoader.Load(Write(folder["source"])), "two-layers", "bert");
    }

    private static string Write(string folder)
    {
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, ModelConfig.FileName), """{"model_type": "two-layers", "hidden_size": 4}""");
        using DisposeScope scope = NewDisposeScope();
        SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), new Dictionary<string, Tensor> { ["up.weight"] = rand(8, 4), ["down.weight"] = rand(4, 8) });
        return folder;
    }

    private sealed class TwoLayers : nn.Module<Tensor, Tensor>, IPretrainedModel
    {
        private readonly Linear _up;
        private readonly Linear _down;

        public TwoLayers(ModelConfig config, ModelBuildOptions options)
            : base(nameof(TwoLayers))
        {
            int size = config.GetSize("hidden_size");
            Config = config.ToJsonObject();
            _up = nn.Linear(size, 2 * size, hasBias: false, options.Device, options.DType);
            _down = nn.Linear(2 * size, size, hasBias: false, options.Device, options.DType);
            register_module("up", _up);
            register_module("down", _down);
        }

        public string ModelType => "two-layers";

        public string Architecture => nameof(TwoLayers);

        public JsonObject Config { get; }

        public override Tensor forward(Tensor input)
        {
            using Tensor wide = _up.call(input);
            return _down.call(wide);
        }
    }
}
