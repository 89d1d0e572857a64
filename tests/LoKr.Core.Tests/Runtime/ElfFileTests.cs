using System.Buffers.Binary;
using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using Xunit;

namespace LoKr.Core.Tests.Runtime;

public sealed class ElfFileTests
{
    private const string Marker = "GLIBCXX_3.4.32";

    [Fact]
    public void The_requirement_is_found_by_name_in_the_real_library()
    {
        ElfFile library = ElfFile.Parse(RealLibrary());
        ElfVersionNeed need = Assert.Single(library.NeededVersions, need => need.Version == Marker);
        Assert.Equal("libstdc++.so.6", need.Library);
        Assert.Equal(["_ZSt21ios_base_library_initv"], library.SymbolsOfVersion(need.Index));
        Assert.False(library.IsRelocated(need.Index));
    }

    [Fact]
    public void A_version_that_is_really_used_is_seen_as_used_and_never_made_weak()
    {
        byte[] bytes = RealLibrary();
        ElfFile library = ElfFile.Parse(bytes);
        ElfVersionNeed used = Assert.Single(library.NeededVersions, need => need.Library == "libstdc++.so.6" && need.Version == "GLIBCXX_3.4.21");
        Assert.True(library.IsRelocated(used.Index));
        LoKrException exception = Assert.Throws<LoKrException>(() => LibstdcxxWorkaround.Weaken(bytes, [used], "host"));
        Assert.Equal(ErrorIds.RuntimeLoadFailed, exception.ErrorId);
        Assert.Contains("GLIBCXX_3.4.21", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Weakening_changes_two_bytes_and_the_requirement_is_gone()
    {
        byte[] bytes = RealLibrary();
        ElfFile library = ElfFile.Parse(bytes);
        HashSet<string> host = [.. library.NeededVersions.Select(need => need.Version).Where(version => version != Marker)];
        IReadOnlyList<ElfVersionNeed> missing = LibstdcxxWorkaround.Missing(library, host);
        Assert.Equal(Marker, Assert.Single(missing).Version);
        byte[] patched = LibstdcxxWorkaround.Weaken(bytes, missing, "host");
        int[] changed = [.. Enumerable.Range(0, bytes.Length).Where(i => bytes[i] != patched[i])];
        Assert.Equal([missing[0].FlagsOffset], changed);
        Assert.Equal(2, BinaryPrimitives.ReadUInt16LittleEndian(patched.AsSpan(missing[0].FlagsOffset)) & 2);
        Assert.Empty(LibstdcxxWorkaround.Missing(ElfFile.Parse(patched), host));
        host.Add(Marker);
        Assert.Empty(LibstdcxxWorkaround.Missing(library, host));
    }

    [Fact]
    public void The_host_library_defines_versions_up_to_its_own()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "libstdc++ is looked at on Linux only.");
        ElfFile host = ElfFile.Parse(File.ReadAllBytes(LibstdcxxWorkaround.LoadedLibstdcxx()));
        Assert.Contains("GLIBCXX_3.4", host.DefinedVersions);
        Assert.Contains("CXXABI_1.3", host.DefinedVersions);
        Assert.DoesNotContain("GLIBCXX_9.9", host.DefinedVersions);
    }

    [Fact]
    public void A_cut_library_is_refused_at_every_length()
    {
        byte[] bytes = RealLibrary();
        for (int length = 0; length < bytes.Length; length += 1 + (bytes.Length / 200))
        {
            Assert.Throws<InvalidDataException>(() => Walk(bytes[..length]));
        }
    }

    [Fact]
    public void Garbage_is_refused_or_read_but_never_escapes_as_another_exception()
    {
        byte[] bytes = RealLibrary();
        Assert.Throws<InvalidDataException>(() => ElfFile.Parse([]));
        Assert.Throws<InvalidDataException>(() => ElfFile.Parse(new byte[4096]));
        ElfFile good = ElfFile.Parse(bytes);
        int versions = good.NeededVersions[0].FlagsOffset;
        long table = BinaryPrimitives.ReadInt64LittleEndian(bytes.AsSpan(0x28));
        Random random = new(11);
        int refused = 0;
        for (int round = 0; round < 300; round++)
        {
            byte[] copy = (byte[])bytes.Clone();
            int from = random.Next(3) switch { 0 => 0, 1 => (int)table, _ => versions - 20 };
            for (int change = 0; change < 8; change++)
            {
                copy[Math.Min(copy.Length - 1, from + random.Next(400))] = (byte)random.Next(256);
            }

            try
            {
                Walk(copy);
            }
            catch (InvalidDataException)
            {
                refused++;
            }
        }

        Assert.True(refused > 50, $"Only {refused} of 300 were refused.");
    }

    private static void Walk(byte[] bytes)
    {
        ElfFile library = ElfFile.Parse(bytes);
        foreach (ElfVersionNeed need in library.NeededVersions)
        {
            _ = library.SymbolsOfVersion(need.Index);
            _ = library.IsRelocated(need.Index);
        }
    }

    private static byte[] RealLibrary()
    {
        RuntimeSearchPaths paths = RuntimeSearchPaths.FromEnvironment();
        string path = Path.Combine(paths.NuGetPackages, "torchsharp", paths.TorchSharpVersion, "runtimes", "linux-x64", "native", "libLibTorchSharp.so");
        Assert.SkipUnless(File.Exists(path), $"No {path}.");
        return File.ReadAllBytes(path);
    }
}
