using System.Security.Cryptography;
using System.Text;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>Tells weights apart by their content.</summary>
internal static class WeightFingerprint
{
    /// <summary>SHA-256 over the names, types and bytes of all parameters, in hexadecimal digits.</summary>
    public static string Compute(nn.Module module)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach ((string name, TorchSharp.Modules.Parameter parameter) in module.named_parameters().OrderBy(entry => entry.name, StringComparer.Ordinal))
        {
            using DisposeScope scope = NewDisposeScope();
            hash.AppendData(Encoding.UTF8.GetBytes($"{name} {parameter.dtype} {string.Join(' ', parameter.shape)}\n"));
            hash.AppendData(parameter.detach().cpu().contiguous().bytes);
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
