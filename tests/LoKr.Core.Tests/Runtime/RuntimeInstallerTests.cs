using System.Diagnostics;
using System.IO.Compression;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.Runtime;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Runtime;

/// <summary>Installs from small packages of the CUDA flavor, whose files the module does not know, on the platforms that have one.</summary>
public sealed class RuntimeInstallerTests : IDisposable
{
    private const string Version = "9.8.7";

    private readonly TempFolder _folder = new();
    private readonly RuntimeSearchPaths _paths;
    private readonly byte[] _whole = RandomNumberGenerator.GetBytes(200_000);

    public RuntimeInstallerTests() => _paths = new RuntimeSearchPaths(
        null, _folder["home", "runtime"], _folder["module"], _folder["torchsharp"], _folder["cache"], "1.2.3", Version) { Shared = _folder["shared", "runtime"] };

    private static string Rid => NativeNames.RuntimeIdentifier;

    private static string Head => $"libtorch-cuda-{RuntimeSearchPaths.Constant("cudaVersion")}-{Rid}";

    private string Store => _folder["home", "runtime"];

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_folder_of_packages_becomes_a_runtime_that_is_checked_and_removed()
    {
        RequirePackages();
        Publish();
        RuntimeInstaller installer = Installer(_folder["feed"]);
        Assert.False(installer.IsInstalled);
        List<RuntimeInstallProgress> steps = [];
        Assert.Equal(installer.Folder, InstallOnly(installer, steps));
        Assert.Equal(_whole, File.ReadAllBytes(Path.Combine(installer.Folder, NativeNames.FileName("torch_cuda"))));
        Assert.Equal(Version, LibtorchVersion.Detect(installer.Folder));
        Assert.Contains(steps, step => step.Action == "Unpacking" && step.Done == step.Total);
        _paths.UserStore.Verify(installer.Folder);
        Assert.True(Installer(_folder["feed"]).IsInstalled);
        Assert.Equal([installer.Folder], _paths.UserStore.Installed());
        Assert.Equal([Path.GetDirectoryName(installer.Folder)], Directory.GetFileSystemEntries(Store));

        RuntimeInstaller.Uninstall(installer.Folder, _paths);
        Assert.Empty(Directory.GetFileSystemEntries(Store));
        Assert.Equal(ErrorIds.RuntimeNotFound, Assert.Throws<LoKrException>(() => RuntimeInstaller.Uninstall(_folder["feed"], _paths)).ErrorId);
    }

    [Fact]
    public void A_damaged_runtime_is_refused_and_replaced_by_force()
    {
        RequirePackages();
        Publish();
        RuntimeInstaller installer = Installer(_folder["feed"]);
        InstallOnly(installer);
        File.AppendAllText(Path.Combine(installer.Folder, NativeNames.FileName("torch_cuda")), "!");
        Assert.Equal(ErrorIds.RuntimeDamaged, Assert.Throws<LoKrException>(() => Installer(_folder["feed"]).Install(token: TestContext.Current.CancellationToken)).ErrorId);
        InstallOnly(new RuntimeInstaller(new("cuda", _folder["feed"], Force: true), _paths));
        _paths.UserStore.Verify(installer.Folder);
    }

    [Fact]
    public void A_part_with_other_content_or_a_missing_one_is_an_error_and_leaves_nothing()
    {
        RequirePackages();
        Publish();
        Package($"{Head}-part2-fragment1", $"fragments/{Rid}/native/{NativeNames.FileName("torch_cuda")}.fragment1", new byte[10]);
        Assert.Equal(ErrorIds.RuntimeDamaged, Assert.Throws<LoKrException>(() => InstallOnly(Installer(_folder["feed"]))).ErrorId);
        File.Delete(_folder["feed", $"{Head}-part1.{Version}.nupkg"]);
        LoKrException exception = Assert.Throws<LoKrException>(() => InstallOnly(Installer(_folder["feed"])));
        Assert.Equal(ErrorIds.RuntimePackageNotFound, exception.ErrorId);
        Assert.Contains($"{Head}-part1", exception.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(Directory.EnumerateFiles(Store, "*", SearchOption.AllDirectories), file => !file.Contains("downloads", StringComparison.Ordinal));
    }

    [Fact]
    public void An_interrupted_download_goes_on_where_it_stopped()
    {
        RequirePackages();
        Publish();
        using Feed feed = new(_folder["feed"]) { BreakAfter = 50_000 };
        LoKrException exception = Assert.Throws<LoKrException>(() => InstallOnly(Installer(feed.Index)));
        Assert.Equal(ErrorIds.RuntimeDownloadFailed, exception.ErrorId);
        string partial = Assert.Single(Directory.EnumerateFiles(Path.Combine(Store, "downloads"), "*.partial"));
        long arrived = new FileInfo(partial).Length;
        Assert.True(arrived > 0);

        feed.BreakAfter = int.MaxValue;
        feed.Ranges.Clear();
        InstallOnly(Installer(feed.Index));
        Assert.Contains($"bytes={arrived}-", feed.Ranges);
        Assert.Equal(_whole, File.ReadAllBytes(Path.Combine(Installer(feed.Index).Folder, NativeNames.FileName("torch_cuda"))));
        Assert.False(Directory.Exists(Path.Combine(Store, "downloads")));
    }

    [Fact]
    public void A_download_without_the_stated_hash_or_without_a_stated_one_is_refused()
    {
        RequirePackages();
        Publish();
        using Feed feed = new(_folder["feed"]) { Hash = "AAAA" };
        Assert.Equal(ErrorIds.RuntimeDamaged, Assert.Throws<LoKrException>(() => InstallOnly(Installer(feed.Index))).ErrorId);
        feed.Hash = "";
        LoKrException exception = Assert.Throws<LoKrException>(() => InstallOnly(Installer(feed.Index)));
        Assert.Equal(ErrorIds.RuntimeDownloadFailed, exception.ErrorId);
        Assert.Contains("hash", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_package_that_the_feed_does_not_have_is_named()
    {
        RequirePackages();
        Directory.CreateDirectory(_folder["feed"]);
        using Feed feed = new(_folder["feed"]);
        LoKrException exception = Assert.Throws<LoKrException>(() => InstallOnly(Installer(feed.Index)));
        Assert.Equal(ErrorIds.RuntimePackageNotFound, exception.ErrorId);
        Assert.Contains(Head, exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_unpacked_libtorch_of_the_right_version_is_copied()
    {
        string lib = Directory.CreateDirectory(_folder["libtorch", "lib"]).FullName;
        File.WriteAllText(Path.Combine(lib, NativeNames.FileName("torch_cpu")), "library");
        File.WriteAllText(Path.Combine(lib, "notes.txt"), "not a library");
        File.WriteAllText(_folder["libtorch", "build-version"], "9.9.9+cpu");
        LoKrException exception = Assert.Throws<LoKrException>(() => new RuntimeInstaller(new(Source: _folder["libtorch"]), _paths));
        Assert.Equal(ErrorIds.RuntimeVersionMismatch, exception.ErrorId);
        Assert.Contains($"pip install torch=={Version} --index-url https://", exception.Message, StringComparison.Ordinal);

        File.WriteAllText(_folder["libtorch", "build-version"], $"{Version}+cpu");
        Assert.Equal(ErrorIds.InvalidArgument, Assert.Throws<LoKrException>(() => new RuntimeInstaller(new("cuda", _folder["libtorch"]), _paths)).ErrorId);
        RuntimeInstaller installer = new(new(Source: _folder["libtorch"]), _paths);
        InstallOnly(installer);
        _paths.UserStore.Verify(installer.Folder);
        Assert.Equivalent(
            new[] { NativeNames.FileName("torch_cpu"), RuntimeManifest.FileName, RuntimeManifest.StampsName },
            Directory.GetFiles(installer.Folder).Select(Path.GetFileName),
            strict: true);
    }

    [Fact]
    public void A_known_package_with_other_files_is_refused()
    {
        (string id, string version) = KnownPackages.For(Rid).First(package => package.Id.StartsWith("libtorch-", StringComparison.Ordinal));
        Package(id, $"runtimes/{Rid}/native/{NativeNames.FileName("torch_cpu")}", [1, 2, 3], version: version);
        LoKrException exception = Assert.Throws<LoKrException>(() => InstallOnly(new RuntimeInstaller(new("cpu", _folder["feed"]), _paths)));
        Assert.Equal(ErrorIds.RuntimeDamaged, exception.ErrorId);
    }

    [Fact]
    public void A_source_that_is_nothing_known_is_named()
    {
        RequirePackages();
        LoKrException exception = Assert.Throws<LoKrException>(() => Installer("no-such-source"));
        Assert.Equal(ErrorIds.RuntimePackageNotFound, exception.ErrorId);
        Assert.Contains("no-such-source", exception.Message, StringComparison.Ordinal);
    }

    private static void RequirePackages() => Assert.SkipUnless(Rid is "linux-x64" or "win-x64", "There are no CUDA packages for this platform.");

    private RuntimeInstaller Installer(string source) => new(new RuntimeInstallOptions("cuda", source), _paths);

    // The description of what was installed needs TorchSharp's library, which these packages have not.
    private static string InstallOnly(RuntimeInstaller installer, List<RuntimeInstallProgress>? steps = null)
    {
        installer.Write(step => steps?.Add(step), TestContext.Current.CancellationToken);
        return installer.Folder;
    }

    private void Publish()
    {
        string file = NativeNames.FileName("torch_cuda");
        string[] parts = [$"{Head}-part1", $"{Head}-part2-primary", $"{Head}-part2-fragment1"];
        Package(Head, "lib/netstandard2.0/_._", [], parts);
        Package(parts[0], $"runtimes/{Rid}/native/{NativeNames.FileName("torch_cpu")}", "small"u8.ToArray());
        Package(parts[1], $"runtimes/{Rid}/native/{file}", _whole[..150_000]);
        using (ZipArchive zip = ZipFile.Open(_folder["feed", $"{parts[1]}.{Version}.nupkg"], ZipArchiveMode.Update))
        {
            using StreamWriter sum = new(zip.CreateEntry($"runtimes/{Rid}/native/{file}.sha").Open());
            sum.Write(Convert.ToHexStringLower(SHA256.HashData(_whole)));
        }

        Package(parts[2], $"fragments/{Rid}/native/{file}.fragment1", _whole[150_000..]);
    }

    private void Package(string id, string entry, byte[] content, string[]? dependencies = null, string version = Version)
    {
        Directory.CreateDirectory(_folder["feed"]);
        string path = _folder["feed", $"{id}.{version}.nupkg"];
        File.Delete(path);
        using ZipArchive zip = ZipFile.Open(path, ZipArchiveMode.Create);
        using (StreamWriter nuspec = new(zip.CreateEntry($"{id}.nuspec").Open()))
        {
            string list = string.Concat((dependencies ?? []).Select(dependency => $"<dependency id=\"{dependency}\" version=\"[{version}]\" />"));
            nuspec.Write($"<package><metadata><id>{id}</id><version>{version}</version><dependencies>{list}</dependencies></metadata></package>");
        }

        using Stream stream = zip.CreateEntry(entry).Open();
        stream.Write(content);
    }

    /// <summary>A NuGet feed on this machine; it may break off a connection, and states hashes in its catalog.</summary>
    private sealed class Feed : IDisposable
    {
        private readonly HttpListener _listener = new();
        private readonly string _folder;
        private readonly string _base;
        private readonly Task _serving;

        public Feed(string folder)
        {
            _folder = folder;
            using (TcpListener free = new(IPAddress.Loopback, 0))
            {
                free.Start();
                _base = $"http://127.0.0.1:{((IPEndPoint)free.LocalEndpoint).Port}/";
            }

            _listener.Prefixes.Add(_base);
            _listener.Start();
            _serving = Task.Run(Serve);
        }

        public string Index => $"{_base}index.json";

        public int BreakAfter { get; set; } = int.MaxValue;

        public string? Hash { get; set; }

        public List<string> Ranges { get; } = [];

        public void Dispose()
        {
            _listener.Close();
            _serving.GetAwaiter().GetResult();
        }

        private async Task Serve()
        {
            while (_listener.IsListening)
            {
                HttpListenerContext context;
                try
                {
                    context = await _listener.GetContextAsync();
                }
                catch (Exception exception) when (exception is HttpListenerException or ObjectDisposedException)
                {
                    return;
                }

                Answer(context);
            }
        }

        private void Answer(HttpListenerContext context)
        {
            string[] parts = context.Request.Url!.AbsolutePath.Trim('/').Split('/');
            string file = Path.Combine(_folder, parts[^1]);
            switch (parts)
            {
                case ["index.json"]:
                    Json(context, new { version = "3.0.0", resources = new[] { Resource("flat", "PackageBaseAddress/3.0.0"), Resource("registration", "RegistrationsBaseUrl/3.6.0") } });
                    break;
                case ["registration", string id, string json]:
                    Json(context, new { catalogEntry = $"{_base}catalog/{id}/{json}" });
                    break;
                case ["catalog", string id, string json]:
                    string package = Path.Combine(_folder, $"{id}.{Path.GetFileNameWithoutExtension(json)}.nupkg");
                    Json(context, Hash == "" ? new { } : new { packageHash = Hash ?? Convert.ToBase64String(SHA512.HashData(File.ReadAllBytes(package))), packageHashAlgorithm = "SHA512" });
                    break;
                case ["flat", _, _, _] when File.Exists(file):
                    Send(context, File.ReadAllBytes(file));
                    break;
                default:
                    context.Response.StatusCode = 404;
                    context.Response.Close();
                    break;
            }
        }

        private Dictionary<string, string> Resource(string path, string type) => new() { ["@id"] = _base + path, ["@type"] = type };

        private static void Json(HttpListenerContext context, object value) => context.Response.Close(JsonSerializer.SerializeToUtf8Bytes(value), willBlock: true);

        private void Send(HttpListenerContext context, byte[] bytes)
        {
            int from = 0;
            if (context.Request.Headers["Range"] is string range)
            {
                Ranges.Add(range);
                from = int.Parse(range["bytes=".Length..^1], System.Globalization.CultureInfo.InvariantCulture);
                context.Response.StatusCode = 206;
                context.Response.Headers["Content-Range"] = $"bytes {from}-{bytes.Length - 1}/{bytes.Length}";
            }

            // Only the first connection of a file breaks at a place that later ones begin with; the others break at once.
            int count = Math.Min(bytes.Length - from, Math.Max(0, BreakAfter - from));
            context.Response.ContentLength64 = bytes.Length - from;
            context.Response.OutputStream.Write(bytes, from, count);
            context.Response.OutputStream.Flush();
            if (count < bytes.Length - from)
            {
                context.Response.Abort();
            }
            else
            {
                context.Response.Close();
            }
        }
    }
}
