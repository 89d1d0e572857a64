using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>SHA-256 hashes, as lower-case hexadecimal digits, that tell whether two processes, or two runs, have the same model.</summary>
internal static class ModelHash
{
    /// <summary>
    /// The base models: their fingerprints, and samples of the tensors that are loaded. A fresh part of a model that an adapter trains whole does
    /// not count, since the adapter has its values.
    /// </summary>
    /// <param name="models">The models by component.</param>
    /// <param name="adapters">Their adapters by component.</param>
    public static string OfBase(IReadOnlyDictionary<string, LoKrModel> models, IEnumerable<KeyValuePair<string, LoKrAdapter>> adapters)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        string[] saved = [.. adapters.SelectMany(static pair => pair.Value.SavedModules.Select(name => ModuleTree.Join(pair.Key, name) + "."))];
        foreach ((string component, LoKrModel model) in models)
        {
            hash.AppendData(Encoding.UTF8.GetBytes(model.Identity.Fingerprint ?? ""));
            foreach ((string name, TorchSharp.Modules.Parameter parameter) in model.Module.named_parameters())
            {
                string full = ModuleTree.Join(component, name);
                if (!saved.Any(module => full.StartsWith(module, StringComparison.Ordinal)))
                {
                    hash.AppendData(Encoding.UTF8.GetBytes($"{full}:{parameter.dtype}[{string.Join(',', parameter.shape)}]"));
                    hash.AppendData(parameter.detach().flatten().narrow(0, 0, Math.Min(16, parameter.numel())).cpu().bytes);
                }
            }
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>
    /// Hash of how models use their tensors: their configurations, without what a training writes there, and how sentence encoders make vectors and compare them.
    /// </summary>
    /// <param name="models">The models by component.</param>
    public static string OfSettings(IReadOnlyDictionary<string, LoKrModel> models)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach ((string component, LoKrModel model) in models)
        {
            if (model.Pretrained is not IPretrainedModel pretrained)
            {
                continue;
            }

            var config = (JsonObject)pretrained.Config.DeepClone();
            config.Remove(ClassificationProblems.Key);
            CrossEncoderConfig.Unmark(config);
            hash.AppendData(Encoding.UTF8.GetBytes($"{component}:{config.ToJsonString()}"));
            if (pretrained is ISentenceEncoder encoder)
            {
                hash.AppendData(JsonSerializer.SerializeToUtf8Bytes(encoder.Sentences));
            }
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>All values of flat parameters.</summary>
    public static string OfValues(IEnumerable<FlatParameter> parameters) => Convert.ToHexStringLower(BytesOfValues(parameters));

    /// <summary>All values of flat parameters, as the 32 bytes of the hash.</summary>
    public static byte[] BytesOfValues(IEnumerable<FlatParameter> parameters)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        foreach (FlatParameter flat in parameters)
        {
            hash.AppendData(flat.Value.detach().cpu().bytes);
        }

        return hash.GetHashAndReset();
    }

    /// <summary>A model with all its adapters, as it runs.</summary>
    public static string OfUse(LoKrModel model) => OfBase(new Dictionary<string, LoKrModel> { [""] = model }, []) + OfValues(model.Adapters.SelectMany(static adapter => adapter.FlatParameters))
        + string.Join(',', model.ActiveAdapters);
}
