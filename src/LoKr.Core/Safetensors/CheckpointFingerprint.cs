using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using LoKr.Core.IO;

namespace LoKr.Core.Safetensors;

/// <summary>
/// Tells checkpoints apart by the names, shapes and types of their tensors and by samples of their content: another training of the same
/// architecture shows in every tensor. Reads a few kilobytes a tensor, so that it takes no time beside loading a model.
/// </summary>
public static class CheckpointFingerprint
{
    private const int HexDigits = 32;

    /// <summary>The fingerprint of a checkpoint: the same wherever it lies and however it is split into files.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <returns>32 hexadecimal digits.</returns>
    public static string Compute(CheckpointReader checkpoint)
    {
        ArgumentNullException.ThrowIfNull(checkpoint);
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach ((SafetensorsReader shard, SafetensorsEntry entry) in checkpoint.Shards
            .SelectMany(static shard => shard.Entries.Values.Select(entry => (Shard: shard, Entry: entry)))
            .OrderBy(static tensor => tensor.Entry.Name, StringComparer.Ordinal))
        {
            Append(hash, shard, entry);
        }

        return Convert.ToHexString(hash.GetHashAndReset())[..HexDigits];
    }

    /// <summary>Adds what tells a tensor apart from another one to a hash.</summary>
    /// <param name="hash">The hash.</param>
    /// <param name="file">The file that the tensor is in.</param>
    /// <param name="entry">The tensor.</param>
    internal static void Append(IncrementalHash hash, SafetensorsReader file, SafetensorsEntry entry)
    {
        hash.AppendData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{entry.Name}|{entry.DType}|{string.Join(',', entry.Shape)}\n")));
        ContentHash.AppendSamples(hash, entry.ByteCount, (start, sample) => file.ReadBytes(entry, start, sample));
    }
}
