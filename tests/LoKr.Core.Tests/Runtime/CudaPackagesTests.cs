using System.Security.Cryptography;
using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Runtime;

public sealed class CudaPackagesTests : IDisposable
{
    private const string Version = "9.8.7";
    private const string Rid = "linux-x64";

    private readonly TempFolder _folder = new();
    private readonly byte[] _whole = RandomNumberGenerator.GetBytes(5000);

    private string Packages => _folder["packages"];

    private RuntimeStore Store => new(_folder["home", "runtime"]);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Packages_become_one_folder_of_links_and_cut_files_become_whole()
    {
        Restore();
        IReadOnlyList<string> packages = CudaPackages.Find(Packages, Version, Rid);
        string folder = CudaPackages.FolderFor(Store, Version, packages);
        CudaPackages.Assemble(Store, folder, packages, Version, Rid);
        Assert.Equal(_whole, File.ReadAllBytes(Path.Combine(folder, "libtorch_cuda.so")));
        string small = Path.Combine(folder, "libtorch_cpu.so");
        Assert.Equal("small", File.ReadAllText(small));
        Assert.NotNull(new FileInfo(small).LinkTarget);
        Assert.Equal("9.8.7+cuda", LibtorchVersion.Detect(folder));
        Assert.Equal(
            ["build-version", "libtorch_cpu.so", "libtorch_cuda.so", RuntimeManifest.FileName, RuntimeManifest.StampsName],
            Directory.GetFileSystemEntries(folder).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        Store.Verify(folder);
        File.WriteAllText(Path.Combine(Packages, $"libtorch-cuda-12.8-{Rid}-part1", Version, "runtimes", Rid, "native", "libtorch_cpu.so"), "other");
        Assert.Equal(ErrorIds.RuntimeDamaged, Assert.Throws<LoKrException>(() => Store.Verify(folder)).ErrorId);
    }

    [Fact]
    public void Many_at_once_leave_one_complete_folder_and_nothing_else()
    {
        Restore();
        IReadOnlyList<string> packages = CudaPackages.Find(Packages, Version, Rid);
        string folder = CudaPackages.FolderFor(Store, Version, packages);
        Thread[] threads = [.. Enumerable.Range(0, 8).Select(_ => new Thread(() => CudaPackages.Assemble(Store, folder, packages, Version, Rid)))];
        foreach (Thread thread in threads)
        {
            thread.Start();
        }

        foreach (Thread thread in threads)
        {
            thread.Join();
        }

        Assert.Equal(_whole, File.ReadAllBytes(Path.Combine(folder, "libtorch_cuda.so")));
        Assert.Equal([folder], Directory.GetFileSystemEntries(Path.GetDirectoryName(folder)!));
    }

    [Fact]
    public void A_folder_whose_links_lead_nowhere_is_made_again()
    {
        Restore();
        IReadOnlyList<string> packages = CudaPackages.Find(Packages, Version, Rid);
        string folder = CudaPackages.FolderFor(Store, Version, packages);
        CudaPackages.Assemble(Store, folder, packages, Version, Rid);
        string link = Path.Combine(folder, "libtorch_cpu.so");
        File.Delete(link);
        SymbolicLink.ToFile(link, _folder["gone"]);
        CudaPackages.Assemble(Store, folder, packages, Version, Rid);
        Assert.Equal("small", File.ReadAllText(link));
    }

    [Fact]
    public void A_missing_fragment_is_an_error_and_leaves_nothing()
    {
        Restore();
        Directory.Delete(Path.Combine(Packages, $"libtorch-cuda-12.8-{Rid}-part2-fragment2"), recursive: true);
        IReadOnlyList<string> packages = CudaPackages.Find(Packages, Version, Rid);
        string folder = CudaPackages.FolderFor(Store, Version, packages);
        LoKrException exception = Assert.Throws<LoKrException>(() => CudaPackages.Assemble(Store, folder, packages, Version, Rid));
        Assert.Equal(ErrorIds.RuntimeLoadFailed, exception.ErrorId);
        Assert.Empty(Directory.GetFileSystemEntries(Path.GetDirectoryName(folder)!));
    }

    [Fact]
    public void Packages_of_another_version_are_not_taken()
    {
        Restore();
        Assert.Empty(CudaPackages.Find(Packages, "9.9.9", Rid));
        Assert.Empty(CudaPackages.Find(_folder["absent"], Version, Rid));
    }

    private void Restore()
    {
        Put("", "lib/netstandard2.0/_._", []);
        Put("-part1", $"runtimes/{Rid}/native/libtorch_cpu.so", "small"u8.ToArray());
        Put("-part2-primary", $"runtimes/{Rid}/native/libtorch_cuda.so", _whole[..2000]);
        Put("-part2-primary", $"runtimes/{Rid}/native/libtorch_cuda.so.sha", Convert.ToHexStringLower(SHA256.HashData(_whole)).Select(c => (byte)c).ToArray());
        Put("-part2-fragment1", $"fragments/{Rid}/native/libtorch_cuda.so.fragment1", _whole[2000..4000]);
        Put("-part2-fragment2", $"fragments/{Rid}/native/libtorch_cuda.so.fragment2", _whole[4000..]);
    }

    private void Put(string part, string file, byte[] content)
    {
        string path = Path.Combine(Packages, $"libtorch-cuda-12.8-{Rid}{part}", Version, file);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllBytes(path, content);
    }
}
