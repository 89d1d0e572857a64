using System.Security.Cryptography;
using System.Text;
using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>SHA-256 as lower-case hexadecimal digits, by which the files of this library recognize content.</summary>
public static class ContentHash
{
    // Bytes at the beginning, in the middle and at the end.
    private const int SampleBytes = 4096;

    /// <summary>The hash of the content of a file.</summary>
    /// <param name="path">Full path of the file; links are followed.</param>
    /// <exception cref="LoKrException"><c>LoKr.PathNotFound</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static string OfFile(string path)
    {
        using FileStream stream = FileSystem.OpenRead(path);
        return Of(stream);
    }

    /// <summary>The hash of a text in UTF-8.</summary>
    /// <param name="text">The text.</param>
    public static string OfText(string text) => Of(Encoding.UTF8.GetBytes(text));

    /// <summary>The hash of the contents of files, one behind the other.</summary>
    /// <param name="paths">Full paths of the files.</param>
    /// <exception cref="LoKrException">As for <see cref="OfFile"/>.</exception>
    internal static string OfFiles(IEnumerable<string> paths)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] buffer = new byte[1 << 16];
        foreach (string path in paths)
        {
            using FileStream stream = FileSystem.OpenRead(path);
            for (int count; (count = stream.Read(buffer)) > 0;)
            {
                hash.AppendData(buffer, 0, count);
            }
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>The hash of what is left of a stream.</summary>
    /// <param name="stream">The stream.</param>
    internal static string Of(Stream stream) => Convert.ToHexStringLower(SHA256.HashData(stream));

    /// <summary>The hash of bytes.</summary>
    /// <param name="bytes">The bytes.</param>
    internal static string Of(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));

    /// <summary>Adds samples of content that takes too long to be hashed whole: 4 KiB at its beginning, in its middle and at its end.</summary>
    /// <param name="hash">The hash.</param>
    /// <param name="byteCount">Length of the content.</param>
    /// <param name="read">Fills a buffer from an offset in the content.</param>
    internal static void AppendSamples(IncrementalHash hash, long byteCount, Action<long, byte[]> read)
    {
        byte[] sample = new byte[(int)Math.Min(SampleBytes, byteCount)];
        foreach (long start in new[] { 0, (byteCount - sample.Length) / 2, byteCount - sample.Length }.Distinct())
        {
            read(start, sample);
            hash.AppendData(sample);
        }
    }
}
