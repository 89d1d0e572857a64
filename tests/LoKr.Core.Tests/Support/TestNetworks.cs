using System.Text.Json.Nodes;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Support;

/// <summary>Small networks with the module names of real models.</summary>
internal static class TestNetworks
{
    /// <summary>Two layers with attention and mlp, a head; names as <c>model.layers.0.self_attn.q_proj</c>.</summary>
    public static FakeLanguageModel Decoder(string modelType = "llama", bool tied = false, Device? device = null) => new(modelType, tied, device);

    public static nn.Module<Tensor, Tensor> Network(params (string Name, nn.Module<Tensor, Tensor> Module)[] layers) => nn.Sequential(layers);

    public sealed class FakeLanguageModel : nn.Module<Tensor, Tensor>, IPretrainedModel
    {
        private readonly Sequential _body;
        private readonly Linear _head;

        public FakeLanguageModel(string modelType, bool tied, Device? device)
            : base("FakeLanguageModel")
        {
            ModelType = modelType;
            _body = nn.Sequential(("layers", nn.Sequential(("0", Block(device)), ("1", Block(device)))));
            _head = nn.Linear(12, 12, hasBias: false, device: device);
            register_module("model", _body);
            register_module("lm_head", _head);
            OutputEmbeddingsName = "lm_head";
            TiedParameters = tied ? new Dictionary<string, string> { ["lm_head.weight"] = "model.embed_tokens.weight" } : [];
        }

        public string ModelType { get; }

        public string Architecture => "FakeForCausalLM";

        public JsonObject Config { get; } = [];

        public string? OutputEmbeddingsName { get; }

        public IReadOnlyDictionary<string, string> TiedParameters { get; }

        public override Tensor forward(Tensor input) => _head.call(_body.call(input));

        private static Sequential Block(Device? device) => nn.Sequential(
            ("self_attn", nn.Sequential(("q_proj", nn.Linear(12, 12, device: device)), ("v_proj", nn.Linear(12, 12, device: device)))),
            ("mlp", nn.Sequential(("up_proj", nn.Linear(12, 24, device: device)), ("act", nn.GELU()), ("down_proj", nn.Linear(24, 12, device: device)))));
    }
}
