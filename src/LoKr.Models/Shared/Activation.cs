using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Shared;

/// <summary>Activation functions by the names that configurations use.</summary>
internal static class Activation
{
    private static readonly string[] _names =
        ["gelu", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "mish", "quick_gelu", "relu", "relu6", "sigmoid", "silu", "swish", "tanh"];

    /// <summary>The function that a key of the configuration names; an unknown one is an error that lists the known ones.</summary>
    public static Func<Tensor, Tensor> Get(ModelConfig config, string key, string? defaultName = null)
    {
        string name = config.GetString(key, defaultName) ?? config.GetString(key);
        return name switch
        {
            "gelu" or "gelu_python" => x => nn.functional.gelu(x),

            // Three names for the tanh approximation of Hendrycks & Gimpel (arXiv:1606.08415); they differ in rounding only.
            "gelu_new" or "gelu_fast" or "gelu_pytorch_tanh" => x => nn.functional.gelu(x, GELU.Approximate.tanh),
            "quick_gelu" => x => x * sigmoid(1.702 * x),
            "silu" or "swish" => x => nn.functional.silu(x),
            "relu" => x => nn.functional.relu(x),
            "relu6" => x => nn.functional.relu6(x),
            "mish" => x => nn.functional.mish(x),
            "tanh" => tanh,
            "sigmoid" => sigmoid,
            _ => throw config.Unsupported(key, $"names the activation '{name}'; known are {string.Join(", ", _names)}"),
        };
    }
}
