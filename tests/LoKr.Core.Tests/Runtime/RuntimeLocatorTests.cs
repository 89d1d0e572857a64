using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Runtime;

public sealed class RuntimeLocatorTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly RuntimeSearchPaths _paths;

    public RuntimeLocatorTests() => _paths = new RuntimeSearchPaths(
        null, _folder["store"], _folder["module"], _folder["torchsharp-dll"], _folder["packages"], "1.2.3", "9.8.7") { Shared = _folder["shared", "runtime"] };

    private static string Rid => NativeNames.RuntimeIdentifier;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Nothing_anywhere_names_every_place_and_says_what_to_do()
    {
        LoKrException exception = Assert.Throws<LoKrException>(() => Locate());
        Assert.Equal(ErrorIds.RuntimeNotFound, exception.ErrorId);
        Assert.Equal(LoKrErrorKind.Unavailable, exception.Kind);
        foreach (string place in (string[])[_paths.Store, _paths.ModuleFolder, _paths.NuGetPackages, "LOKR_RUNTIME", "dotnet restore"])
        {
            Assert.Contains(place, exception.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Places_are_searched_in_order()
    {
        string nuget = LibtorchPackage("9.8.7");
        TorchSharpPackage();
        RuntimeCandidate found = Locate();
        Assert.Equal((nuget, "NuGet", "cpu", "9.8.7"), (found.Folder, found.Source, found.Flavor, found.Version));
        Assert.Equal(Path.Combine(_paths.NuGetPackages, "torchsharp", "1.2.3", "runtimes", Rid, "native", NativeNames.FileName("LibTorchSharp")), found.LibTorchSharp);

        string module = Libraries(Path.Combine(_paths.ModuleFolder, "runtimes", Rid, "native"), "torch_cpu", "LibTorchSharp");
        File.WriteAllText(Path.Combine(module, "build-version"), "9.8.7+cpu");
        Assert.Equal((module, "Module"), (Locate().Folder, Locate().Source));

        string store = Libraries(Path.Combine(_paths.Store, "9.8.7-cuda", Rid), "torch_cpu", "torch_cuda", "LibTorchSharp");
        File.WriteAllText(Path.Combine(store, "build-version"), "9.8.7+cu999");
        Assert.Equal((store, "UserStore", "cuda"), (Locate().Folder, Locate().Source, Locate().Flavor));

        string named = Libraries(_folder["named"], "torch_cpu", "LibTorchSharp");
        File.WriteAllText(Path.Combine(named, "build-version"), "9.8.7");
        RuntimeSearchPaths withVariable = _paths with { Environment = named };
        Assert.Equal((named, "Environment"), (new RuntimeLocator(withVariable).Locate(new()).Folder, new RuntimeLocator(withVariable).Locate(new()).Source));
        Assert.Equal((store, "Parameter"), (new RuntimeLocator(withVariable).Locate(new(store)).Folder, new RuntimeLocator(withVariable).Locate(new(store)).Source));
    }

    [Fact]
    public void The_right_version_is_taken_where_several_are_restored()
    {
        LibtorchPackage("9.9.0");
        string right = LibtorchPackage("9.8.7");
        LibtorchPackage("10.0.0");
        TorchSharpPackage();
        Assert.Equal(right, Locate().Folder);
    }

    [Fact]
    public void Another_version_is_an_error_that_names_both_unless_allowed()
    {
        string other = LibtorchPackage("9.9.0");
        TorchSharpPackage();
        LoKrException exception = Assert.Throws<LoKrException>(() => Locate());
        Assert.Equal(ErrorIds.RuntimeVersionMismatch, exception.ErrorId);
        Assert.Contains("9.9.0", exception.Message, StringComparison.Ordinal);
        Assert.Contains("9.8.7", exception.Message, StringComparison.Ordinal);
        Assert.Equal(other, Locate(new RuntimeOptions(AllowVersionMismatch: true)).Folder);
    }

    [Fact]
    public void A_folder_that_is_named_and_cannot_be_used_is_an_error_even_where_another_would_do()
    {
        LibtorchPackage("9.8.7");
        TorchSharpPackage();
        string empty = Directory.CreateDirectory(_folder["empty"]).FullName;
        foreach (string path in (string[])[empty, _folder["absent"]])
        {
            LoKrException exception = Assert.Throws<LoKrException>(() => Locate(new RuntimeOptions(path)));
            Assert.Equal(ErrorIds.RuntimeNotFound, exception.ErrorId);
            Assert.Contains(path, exception.Message, StringComparison.Ordinal);
            exception = Assert.Throws<LoKrException>(() => new RuntimeLocator(_paths with { Environment = path }).Locate(new()));
            Assert.Equal(ErrorIds.RuntimeNotFound, exception.ErrorId);
            Assert.Contains("LOKR_RUNTIME", exception.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_lib_folder_of_an_installed_PyTorch_is_taken_with_its_version()
    {
        TorchSharpPackage();
        string package = _folder["site-packages/torch"];
        string lib = Libraries(Path.Combine(package, "lib"), "torch_cpu", "c10", "torch_cuda");
        File.WriteAllText(Path.Combine(package, "version.py"), "from typing import Optional\n__all__ = ['__version__']\n__version__ = '9.8.7+cu128'\ndebug = False\n");
        Directory.CreateDirectory(_folder["venv", "lib", "python3.13"]);
        SymbolicLink.ToFolder(_folder["venv", "lib", "python3.13", "site-packages"], _folder["site-packages"]);
        foreach (string path in (string[])[lib, package, lib + Path.DirectorySeparatorChar, _folder["site-packages"], _folder["venv"]])
        {
            RuntimeCandidate found = Locate(new RuntimeOptions(path));
            Assert.Equal(("9.8.7+cu128", "cuda", "Parameter"), (found.Version, found.Flavor, found.Source));
        }

        File.WriteAllText(Path.Combine(package, "version.py"), "__version__ = '9.8.6+cu128'\n");
        LoKrException exception = Assert.Throws<LoKrException>(() => Locate(new RuntimeOptions(lib)));
        Assert.Equal(ErrorIds.RuntimeVersionMismatch, exception.ErrorId);
        Assert.Contains("9.8.6+cu128", exception.Message, StringComparison.Ordinal);
        Assert.Contains("pip install torch==9.8.7 --index-url https://download.pytorch.org/whl/cpu", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_version_is_found_in_what_distributors_leave_behind()
    {
        string lib = Libraries(_folder["a/torch/lib"], "torch_cpu");
        Assert.Null(LibtorchVersion.Detect(lib));
        Directory.CreateDirectory(_folder["a/torch-9.8.7+cpu.dist-info"]);
        Assert.Equal("9.8.7+cpu", LibtorchVersion.Detect(lib));

        string header = Directory.CreateDirectory(_folder["b/include/torch/headeronly"]).FullName;
        lib = Libraries(_folder["b/lib"], "torch_cpu");
        File.WriteAllText(Path.Combine(header, "version.h"), "#define TORCH_VERSION_MAJOR 9\n#define TORCH_VERSION_MINOR 8\n#define TORCH_VERSION_PATCH 7\n");
        Assert.Equal("9.8.7", LibtorchVersion.Detect(lib));

        lib = Libraries(_folder["c/lib"], "torch_cpu");
        File.WriteAllText(_folder["c/build-version"], "9.8.7+cu126\n");
        Assert.Equal("9.8.7+cu126", LibtorchVersion.Detect(lib));
    }

    [Fact]
    public void The_version_of_the_real_libraries_is_told_by_their_binding_alone()
    {
        RuntimeSearchPaths real = RuntimeSearchPaths.FromEnvironment();
        string native = Path.Combine(real.NuGetPackages, $"libtorch-cpu-{Rid}", real.ExpectedLibtorch, "runtimes", Rid, "native");
        string binding = Path.Combine(native, NativeNames.FileName("torch_python"));
        Assert.SkipUnless(File.Exists(binding), $"No {binding}.");
        string bare = Directory.CreateDirectory(_folder["bare"]).FullName;
        SymbolicLink.ToFile(Path.Combine(bare, Path.GetFileName(binding)), binding);
        Assert.Equal(real.ExpectedLibtorch, LibtorchVersion.Detect(bare));
        Assert.Equal(real.ExpectedLibtorch, LibtorchVersion.Detect(native));
    }

    [Fact]
    public void A_version_that_cannot_be_told_is_an_error()
    {
        TorchSharpPackage();
        string lib = Libraries(_folder["unknown"], "torch_cpu");
        Assert.Equal(ErrorIds.RuntimeVersionMismatch, Assert.Throws<LoKrException>(() => Locate(new RuntimeOptions(lib))).ErrorId);
        Assert.Null(Locate(new RuntimeOptions(lib, AllowVersionMismatch: true)).Version);
    }

    [Fact]
    public void Libtorch_without_the_library_of_TorchSharp_is_named()
    {
        string lib = Libraries(_folder["alone"], "torch_cpu");
        LoKrException exception = Assert.Throws<LoKrException>(() => Locate(new RuntimeOptions(lib)));
        Assert.Equal(ErrorIds.RuntimeNotFound, exception.ErrorId);
        Assert.Contains(NativeNames.FileName("LibTorchSharp"), exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void All_that_is_there_is_listed_of_whatever_version()
    {
        string nuget = LibtorchPackage("9.8.7");
        TorchSharpPackage();
        string[] installed = [Installed(_paths.UserStore, "9.8.7"), Installed(_paths.UserStore, "1.0.0"), Installed(_paths.SharedStore, "9.8.7")];
        IReadOnlyList<RuntimeCandidate> all = new RuntimeLocator(_paths).All();
        Assert.Equal(
            [(installed[0], "UserStore", "9.8.7"), (installed[2], "AllUsersStore", "9.8.7"), (nuget, "NuGet", "9.8.7"), (installed[1], "UserStore", "1.0.0")],
            all.Select(candidate => (candidate.Folder, candidate.Source, candidate.Version)));
        Assert.Equal(installed[0], Locate().Folder);
    }

    private static string Installed(RuntimeStore store, string version)
    {
        string folder = Libraries(store.FolderFor(version, "cpu", Rid), "torch_cpu");
        RuntimeManifest.Describe(folder, version, "cpu", Rid, "a test", []).Write(folder);
        return folder;
    }

    private RuntimeCandidate Locate(RuntimeOptions? options = null) => new RuntimeLocator(_paths).Locate(options ?? new RuntimeOptions());

    private string LibtorchPackage(string version) =>
        Libraries(Path.Combine(_paths.NuGetPackages, $"libtorch-cpu-{Rid}", version, "runtimes", Rid, "native"), "torch_cpu", "c10", "torch");

    private void TorchSharpPackage() =>
        Libraries(Path.Combine(_paths.NuGetPackages, "torchsharp", "1.2.3", "runtimes", Rid, "native"), "LibTorchSharp");

    private static string Libraries(string folder, params string[] names)
    {
        Directory.CreateDirectory(folder);
        foreach (string name in names)
        {
            File.WriteAllText(Path.Combine(folder, NativeNames.FileName(name)), "not a library");
        }

        return folder;
    }
}
