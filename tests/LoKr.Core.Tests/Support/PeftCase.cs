using System.Text.Json;
using System.Text.RegularExpressions;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Support;

/// <summary>One folder of the reference fixtures: builds its network, reads its tensors, turns its config into ours.</summary>
internal sealed class PeftCase
{
    public const string FilePrefix = "base_model.model.";

    private readonly string _folder;
    private readonly JsonElement _json;

    private PeftCase(string folder)
    {
        _folder = folder;

        // Python writes a bare NaN for the loss of a run that diverged.
        string json = File.ReadAllText(Path.Combine(folder, "case.json"));
        _json = JsonDocument.Parse(Regex.Replace(json, @"(?<=[\[,]\s*)NaN(?=\s*[,\]])", "\"NaN\"")).RootElement;
    }

    public LoKrConfig Config => ReadConfig(_json.GetProperty("config"));

    public static PeftCase Open(params string[] parts) => new(Fixtures.Require(parts));

    public LoKrConfig ConfigOf(string property) => ReadConfig(_json.GetProperty(property));

    public double[] Losses(string optimizer) => [.. _json.GetProperty("train").GetProperty(optimizer).EnumerateArray()
        .Select(static value => value.ValueKind == JsonValueKind.String ? double.NaN : value.GetDouble())];

    /// <summary>A network with the base weights, in evaluation mode.</summary>
    public LoKrModel BuildModel()
    {
        List<(string, nn.Module<Tensor, Tensor>)> layers = [];
        foreach (JsonElement layer in _json.GetProperty("layers").EnumerateArray())
        {
            layers.Add((layer.GetProperty("name").GetString()!, layer.GetProperty("kind").GetString() switch
            {
                "linear" => nn.Linear(layer.GetProperty("in").GetInt64(), layer.GetProperty("out").GetInt64(), !layer.TryGetProperty("bias", out JsonElement bias) || bias.GetBoolean()),
                "conv1d" => nn.Conv1d(Number(layer, "in"), Number(layer, "out"), Number(layer, "kernel"), Number(layer, "stride", 1), Number(layer, "padding", 0), Number(layer, "dilation", 1), groups: Number(layer, "groups", 1)),
                "conv2d" => nn.Conv2d(Number(layer, "in"), Number(layer, "out"), Pair(layer, "kernel", 1), Pair(layer, "stride", 1), Pair(layer, "padding", 0), Pair(layer, "dilation", 1), groups: Number(layer, "groups", 1)),
                "relu" => nn.ReLU(),
                "log_softmax" => nn.LogSoftmax(-1),
                "flatten" => nn.Flatten(),
                string kind => throw new InvalidOperationException($"Unknown layer kind {kind}."),
                null => throw new InvalidOperationException("A layer has no kind."),
            }));
        }

        TorchSharp.Modules.Sequential network = nn.Sequential([.. layers]);
        network.load_state_dict(Tensors("base.safetensors"));
        network.eval();
        return new(network);
    }

    /// <summary>All tensors of a file of the case.</summary>
    public Dictionary<string, Tensor> Tensors(params string[] path)
    {
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine([_folder, .. path]));
        return reader.Entries.Keys.ToDictionary(static name => name, name => reader.Read(name), StringComparer.Ordinal);
    }

    /// <summary>An adapter file's tensors without PEFT's prefix.</summary>
    public Dictionary<string, Tensor> AdapterTensors(params string[] path) => Tensors([.. path, "adapter_model.safetensors"])
        .ToDictionary(static pair => pair.Key[FilePrefix.Length..], static pair => pair.Value, StringComparer.Ordinal);

    /// <summary>PEFT's in-memory name of a tensor, with its prefix, as io.safetensors has it.</summary>
    public static string InMemoryName(string name)
    {
        int dot = name.LastIndexOf('.');
        return name.Contains(".lokr_", StringComparison.Ordinal)
            ? $"{FilePrefix}{name}.default"
            : $"{FilePrefix}{name[..dot]}.modules_to_save.default{name[dot..]}";
    }

    public static Tensor Run(LoKrModel model, Tensor input) => ((nn.Module<Tensor, Tensor>)model.Module).call(input);

    public static LoKrConfig ReadConfig(JsonElement json)
    {
        LoKrConfig config = new();
        foreach (JsonProperty field in json.EnumerateObject())
        {
            JsonElement value = field.Value;
            config = field.Name switch
            {
                "r" => config with { R = value.GetInt32() },
                "alpha" => config with { Alpha = value.GetDouble() },
                "target_modules" => config with { TargetModules = Selector(value) },
                "exclude_modules" => config with { ExcludeModules = Selector(value) },
                "modules_to_save" => config with { ModulesToSave = [.. Strings(value)] },
                "decompose_both" => config with { DecomposeBoth = value.GetBoolean() },
                "decompose_factor" => config with { DecomposeFactor = value.GetInt32() },
                "rank_pattern" => config with { RankPattern = [.. value.EnumerateObject().Select(static entry => KeyValuePair.Create(entry.Name, entry.Value.GetInt32()))] },
                "alpha_pattern" => config with { AlphaPattern = [.. value.EnumerateObject().Select(static entry => KeyValuePair.Create(entry.Name, entry.Value.GetDouble()))] },
                "layers_to_transform" => config with { LayersToTransform = [.. value.EnumerateArray().Select(static index => index.GetInt32())] },
                "use_effective_conv2d" => config with { UseEffectiveConv2d = value.GetBoolean() },
                _ => throw new InvalidOperationException($"Unknown config field {field.Name}."),
            };
        }

        return config;
    }

    private static long Number(JsonElement layer, string field, long? otherwise = null) =>
        layer.TryGetProperty(field, out JsonElement value) ? value.GetInt64() : otherwise ?? throw new InvalidOperationException($"A layer has no {field}.");

    private static (long, long) Pair(JsonElement layer, string field, long otherwise) => !layer.TryGetProperty(field, out JsonElement value)
        ? (otherwise, otherwise)
        : value.ValueKind == JsonValueKind.Array ? (value[0].GetInt64(), value[1].GetInt64()) : (value.GetInt64(), value.GetInt64());

    private static ModuleSelector Selector(JsonElement value) => value.ValueKind == JsonValueKind.String
        ? ModuleSelector.FromPattern(value.GetString()!)
        : ModuleSelector.FromNames(Strings(value));

    private static IEnumerable<string> Strings(JsonElement value) => value.EnumerateArray().Select(static entry => entry.GetString()!);
}
