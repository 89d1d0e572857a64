using LoKr.Core.Merging.Checkpoints;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Merging;

/// <summary>The list of the pieces of an unfinished file.</summary>
public sealed class PieceLogTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void What_was_written_is_read()
    {
        PieceLog log = new(_folder["out.safetensors"], 5);
        log.Note([0, ulong.MaxValue, 7, 8, 9], [true, true, false, true, false]);
        log.Write();
        Assert.Equal([0, ulong.MaxValue, null, 8, null], new PieceLog(_folder["out.safetensors"], 5).Read());
        Assert.Empty(new PieceLog(_folder["out.safetensors"], 6).Read());
        log.Note([1, 2, 3, 4, 5], [false, false, false, false, true]);
        log.Write();
        Assert.Equal([null, null, null, null, 5], log.Read());
        log.Remove();
        Assert.Empty(log.Read());
    }

    [Fact]
    public void A_long_list_is_written_again_without_memory_of_its_length()
    {
        const int count = 50_000;
        PieceLog log = new(_folder["out.safetensors"], count);
        ulong[] sums = [.. Enumerable.Range(0, count).Select(static i => ulong.MaxValue - (ulong)i)];
        bool[] written = [.. sums.Select(static _ => true)];
        Write();
        long before = GC.GetAllocatedBytesForCurrentThread();
        Write();
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, count);

        void Write()
        {
            log.Note(sums, written);
            log.Write();
        }
    }
}
