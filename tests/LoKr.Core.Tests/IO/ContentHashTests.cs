using System.Security.Cryptography;
using LoKr.Core.IO;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.IO;

public sealed class ContentHashTests : IDisposable
{
    // FIPS 180-2, appendix B.1.
    private const string OfAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_text_a_file_and_files_one_behind_the_other_have_one_hash()
    {
        (string whole, string first, string rest) = (_folder["abc"], _folder["a"], _folder["bc"]);
        File.WriteAllText(whole, "abc");
        File.WriteAllText(first, "a");
        File.WriteAllText(rest, "bc");
        Assert.Equal([OfAbc, OfAbc, OfAbc], [ContentHash.OfText("abc"), ContentHash.OfFile(whole), ContentHash.OfFiles([first, rest])]);
        Assert.NotEqual(OfAbc, ContentHash.OfFiles([rest, first]));
    }

    [Theory]
    [InlineData(0, new long[] { 0 }, 0)]
    [InlineData(100, new long[] { 0 }, 100)]
    [InlineData(4097, new long[] { 0, 1 }, 4096)]
    [InlineData(100_000, new long[] { 0, 47_952, 95_904 }, 4096)]
    public void Samples_are_the_beginning_the_middle_and_the_end(long byteCount, long[] starts, int length)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        List<long> read = [];
        ContentHash.AppendSamples(hash, byteCount, (start, buffer) =>
        {
            read.Add(start);
            Assert.Equal(length, buffer.Length);
            buffer.AsSpan().Fill((byte)read.Count);
        });
        Assert.Equal(starts, read);
        Assert.Equal(
            Convert.ToHexString(SHA256.HashData([.. starts.SelectMany((_, index) => Enumerable.Repeat((byte)(index + 1), length))])),
            Convert.ToHexString(hash.GetHashAndReset()));
    }
}
