using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using LoKr.Testing;
using TorchSharp;
using Xunit;

namespace LoKr.Core.Tests.Runtime;

public sealed class TorchRuntimeTests
{
    [Fact]
    public void Loads_and_computes()
    {
        LoKrRuntimeInfo info = TorchRuntime.EnsureLoaded();
        using torch.Tensor sum = torch.ones(2, 3).sum();
        Assert.Equal(6, sum.ToSingle());
        Assert.True(info.IsLoaded);
        Assert.Contains("cpu", info.Devices);
        Assert.Equal(info.ExpectedLibtorchVersion, RuntimeSearchPaths.ThreeParts(info.LibtorchVersion));
        Assert.Equal(RuntimeSearchPaths.ThreeParts(torch.__version__), info.ExpectedLibtorchVersion);
        Assert.Same(info, TorchRuntime.Current);
        Assert.Same(info, TorchRuntime.EnsureLoaded());
        Assert.Same(info, TorchRuntime.Find());
        Assert.Same(info, TorchRuntime.EnsureLoaded(new RuntimeOptions(info.Path)));
    }

    [Fact]
    public void TorchSharp_copies_nothing_beside_its_assembly_and_prints_nothing()
    {
        TextWriter before = Console.Out;
        using StringWriter printed = new();
        Console.SetOut(printed);
        try
        {
            TorchRuntime.EnsureLoaded();
            torch.random.manual_seed(1);
            _ = torch.cuda.is_available();
        }
        finally
        {
            Console.SetOut(before);
        }

        Assert.Equal("", printed.ToString());
        string folder = Path.GetDirectoryName(typeof(torch).Assembly.Location)!;
        Assert.Empty(Directory.EnumerateFiles(folder, NativeNames.FileName("torch_cpu"), SearchOption.AllDirectories));
    }

    [Fact]
    public void Another_runtime_cannot_be_named_once_one_is_loaded()
    {
        LoKrRuntimeInfo info = TorchRuntime.EnsureLoaded();
        using TempFolder other = new();
        foreach (string name in (string[])["torch_cpu", "LibTorchSharp"])
        {
            File.WriteAllText(other[NativeNames.FileName(name)], "not a library");
        }

        LoKrException exception = Assert.Throws<LoKrException>(() => TorchRuntime.EnsureLoaded(new RuntimeOptions(other.Path)));
        Assert.Equal(ErrorIds.RuntimeAlreadyLoaded, exception.ErrorId);
        Assert.Contains(info.Path, exception.Message, StringComparison.Ordinal);
        Assert.Contains(other.Path, exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void What_was_worked_around_is_said()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "The work-around is for Linux.");
        LoKrRuntimeInfo info = TorchRuntime.EnsureLoaded();
        RuntimeSearchPaths paths = RuntimeSearchPaths.FromEnvironment();
        string library = new RuntimeLocator(paths).Locate(new()).LibTorchSharp;
        IReadOnlySet<string> host = ElfFile.Parse(File.ReadAllBytes(LibstdcxxWorkaround.LoadedLibstdcxx())).DefinedVersions;
        IReadOnlyList<ElfVersionNeed> missing = LibstdcxxWorkaround.Missing(ElfFile.Parse(File.ReadAllBytes(library)), host);
        Assert.Equal(missing.Count > 0, info.Workarounds.Count > 0);
        Assert.All(missing, need => Assert.Contains(need.Version, info.Workarounds[0], StringComparison.Ordinal));
    }

    [Fact]
    public void A_patched_copy_that_several_write_at_once_is_whole()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "The work-around is for Linux.");
        RuntimeSearchPaths paths = RuntimeSearchPaths.FromEnvironment();
        string library = new RuntimeLocator(paths).Locate(new()).LibTorchSharp;
        using TempFolder home = new();
        RuntimeStore store = new(home["runtime"]);
        string[] results = new string[8];
        Parallel.For(0, results.Length, i => results[i] = LibstdcxxWorkaround.Apply(library, store, []));
        string only = Assert.Single(results.Distinct());
        Assert.SkipWhen(only == library, "This system needs no work-around.");
        Assert.Equal(new FileInfo(library).Length, new FileInfo(only).Length);
        Assert.Equal([only], Directory.GetFiles(store.Root, "*", SearchOption.AllDirectories));
    }

    [Fact]
    public void The_reason_of_the_loader_is_quoted_for_a_libtorch_without_a_function_that_is_needed()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "The functions are bound when they are loaded on Linux only.");
        TorchRuntime.EnsureLoaded();
        RuntimeSearchPaths paths = RuntimeSearchPaths.FromEnvironment();
        using TempFolder folder = new();
        string library = LibstdcxxWorkaround.Apply(new RuntimeLocator(paths).Locate(new()).LibTorchSharp, paths.UserStore, []);
        byte[] bytes = File.ReadAllBytes(library);
        int name = bytes.AsSpan().IndexOf("_ZN2at4_ops"u8);
        Assert.True(name > 0);
        bytes[name + 2] = (byte)'X';
        string other = folder[Path.GetFileName(library)];
        File.WriteAllBytes(other, bytes);
        RuntimeCandidate candidate = new(folder.Path, other, "1.0.0", "cpu", "Parameter");
        LoKrException exception = Assert.Throws<LoKrException>(() => NativeLoader.Load(candidate, other));
        Assert.Equal(ErrorIds.RuntimeLoadFailed, exception.ErrorId);
        Assert.Contains("undefined symbol", exception.Message, StringComparison.Ordinal);
        Assert.Contains("1.0.0", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_library_that_cannot_be_loaded_is_a_typed_error()
    {
        using TempFolder folder = new();
        foreach (string name in (string[])["c10", "torch_cpu", "LibTorchSharp"])
        {
            File.WriteAllText(folder[NativeNames.FileName(name)], "not a library");
        }

        RuntimeCandidate candidate = new(folder.Path, folder[NativeNames.FileName("LibTorchSharp")], "1.0.0", "cpu", "Parameter");
        LoKrException exception = Assert.Throws<LoKrException>(() => NativeLoader.Load(candidate, candidate.LibTorchSharp));
        Assert.Equal(ErrorIds.RuntimeLoadFailed, exception.ErrorId);
        Assert.Contains(NativeNames.FileName("c10"), exception.Message, StringComparison.Ordinal);
    }
}
