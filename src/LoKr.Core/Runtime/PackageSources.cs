using System.Buffers;
using System.IO.Compression;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using NuGet.Configuration;

namespace LoKr.Core.Runtime;

/// <summary>How far an installation is.</summary>
/// <param name="Action">What is being done, for example <c>Downloading</c>.</param>
/// <param name="Item">The package or file.</param>
/// <param name="Done">Bytes done.</param>
/// <param name="Total">Bytes in all, or 0 where that is not known.</param>
public sealed record RuntimeInstallProgress(string Action, string Item, long Done, long Total);

/// <summary>Where NuGet packages come from.</summary>
internal abstract class PackageSource
{
    /// <summary>The source in words.</summary>
    public abstract string Description { get; }

    /// <summary>A package as a file; null where the source does not have it.</summary>
    /// <param name="id">Id of the package in lower case.</param>
    /// <param name="version">Its version.</param>
    /// <param name="downloads">Folder for what has to be downloaded.</param>
    /// <param name="progress">Gets bytes done and bytes in all.</param>
    /// <param name="token">Ends a download; the next one of the same package goes on there.</param>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeDownloadFailed</c>, <c>LoKr.RuntimeDamaged</c>, <c>LoKr.RuntimeStoreNotWritable</c>.</exception>
    public abstract string? Fetch(string id, string version, string downloads, Action<long, long> progress, CancellationToken token);
}

/// <summary>A folder of packages: files beside each other, or NuGet's own layout ID/VERSION/ID.VERSION.nupkg.</summary>
internal sealed class FolderPackageSource(string folder) : PackageSource
{
    private readonly Lazy<IReadOnlyDictionary<string, string>> _files = new(() => Directory
        .EnumerateFiles(folder, "*.nupkg", new EnumerationOptions { RecurseSubdirectories = true, MaxRecursionDepth = 2, IgnoreInaccessible = true, MatchCasing = MatchCasing.CaseInsensitive })
        .GroupBy(file => Path.GetFileName(file), StringComparer.OrdinalIgnoreCase)
        .ToDictionary(group => group.Key, group => group.First(), StringComparer.OrdinalIgnoreCase));

    /// <inheritdoc/>
    public override string Description => folder;

    /// <inheritdoc/>
    public override string? Fetch(string id, string version, string downloads, Action<long, long> progress, CancellationToken token)
    {
        string? file = _files.Value.GetValueOrDefault($"{id}.{version}.nupkg");
        string sums = $"{file}.sha512";
        return file is null || !File.Exists(sums) || PackageHash.Sha512(file) == FileSystem.ReadText(sums).Trim()
            ? file
            : throw PackageHash.Damaged(file, $"'{file}' has not the hash that '{Path.GetFileName(sums)}' states");
    }
}

/// <summary>One package file.</summary>
internal sealed class FilePackageSource(string file) : PackageSource
{
    /// <inheritdoc/>
    public override string Description => file;

    /// <inheritdoc/>
    public override string? Fetch(string id, string version, string downloads, Action<long, long> progress, CancellationToken token)
    {
        using ZipArchive zip = PackageHash.Open(file);
        return zip.Entries.Any(entry => string.Equals(entry.FullName, $"{id}.nuspec", StringComparison.OrdinalIgnoreCase)) ? file : null;
    }
}

/// <summary>The sources of the NuGet configuration of this user and machine, in order, as far as they may have a package.</summary>
internal sealed class ConfiguredPackageSource : PackageSource
{
    private readonly PackageSourceMapping _mapping;
    private readonly (string Name, PackageSource Source)[] _sources;

    /// <summary>Reads the configuration.</summary>
    /// <param name="name">The one source to use; null for all that are enabled.</param>
    /// <exception cref="LoKrException"><c>LoKr.RuntimePackageNotFound</c> for a name that is not configured, <c>LoKr.RuntimeDownloadFailed</c>.</exception>
    public ConfiguredPackageSource(string? name)
    {
        try
        {
            ISettings settings = Settings.LoadDefaultSettings(Directory.GetCurrentDirectory());
            _mapping = PackageSourceMapping.GetPackageSourceMapping(settings);
            _sources =
            [
                .. new PackageSourceProvider(settings).LoadPackageSources()
                    .Where(source => name is null ? source.IsEnabled : string.Equals(source.Name, name, StringComparison.OrdinalIgnoreCase))
                    .Select(source => (source.Name, Create(source))),
            ];
        }
        catch (NuGetConfigurationException exception)
        {
            throw new LoKrException(ErrorIds.RuntimeDownloadFailed, LoKrErrorKind.InvalidData, $"The configuration of NuGet cannot be read: {exception.Message}", "Correct it, or name a feed or folder.", exception);
        }

        if (_sources.Length == 0)
        {
            throw new LoKrException(
                ErrorIds.RuntimePackageNotFound,
                LoKrErrorKind.NotFound,
                name is null ? "The configuration of NuGet has no enabled source." : $"'{name}' is neither a folder, a package or a feed nor the name of a source in the configuration of NuGet.",
                "Name the address of a NuGet feed (version 3), or a folder with packages or an unpacked libtorch.")
            {
                Target = name,
            };
        }
    }

    /// <inheritdoc/>
    public override string Description => string.Join(", ", _sources.Select(source => source.Source.Description));

    /// <inheritdoc/>
    public override string? Fetch(string id, string version, string downloads, Action<long, long> progress, CancellationToken token)
    {
        IReadOnlyList<string>? allowed = _mapping.IsEnabled ? _mapping.GetConfiguredPackageSources(id) : null;
        return _sources
            .Where(source => allowed?.Contains(source.Name, StringComparer.OrdinalIgnoreCase) != false)
            .Select(source => source.Source.Fetch(id, version, downloads, progress, token))
            .FirstOrDefault(found => found is not null);
    }

    private static PackageSource Create(NuGet.Configuration.PackageSource source) => source.IsHttp
        ? new FeedPackageSource(source.SourceUri, source.Credentials is { } credentials ? $"{credentials.Username}:{credentials.Password}" : null)
        : new FolderPackageSource(source.Source);
}

/// <summary>A NuGet feed of protocol version 3, found by its service index. Interrupted downloads are continued.</summary>
/// <param name="index">Address of the service index.</param>
/// <param name="credentials"><c>user:password</c>, or null.</param>
internal sealed class FeedPackageSource(Uri index, string? credentials = null) : PackageSource
{
    private const int Attempts = 4;

    // A server that says nothing for so long is not going to.
    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(60);

    private static readonly Lazy<HttpClient> s_client = new(() => new HttpClient { Timeout = Timeout.InfiniteTimeSpan });

    /// <inheritdoc/>
    public override string Description => index.ToString();

    /// <inheritdoc/>
    public override string? Fetch(string id, string version, string downloads, Action<long, long> progress, CancellationToken token)
    {
        Dictionary<string, Uri> resources = Resources(token);
        Uri content = Resource(resources, "PackageBaseAddress/3.0.0");
        Uri address = new(content, $"{id}/{version}/{id}.{version}.nupkg");
        string file = Path.Combine(downloads, $"{id}.{version}.nupkg");
        if (!File.Exists(file) && !Download(address, file, progress, token))
        {
            return null;
        }

        // The files of known packages are compared one by one when they are unpacked.
        if (KnownPackages.Find($"{id}/{version}") is null)
        {
            string stated = StatedHash(resources, id, version, token) ?? throw new LoKrException(
                ErrorIds.RuntimeDownloadFailed,
                LoKrErrorKind.Unavailable,
                $"Neither this release nor the feed {index} states a hash of {id} {version}, so a download cannot be checked.",
                "Use a feed that states hashes, such as nuget.org, or download the packages yourself and name their folder.");
            if (PackageHash.Sha512(file) != stated)
            {
                Contention.DeleteFile(file);
                throw PackageHash.Damaged(file, $"{address} has not the hash that the feed states");
            }
        }

        return file;
    }

    private Dictionary<string, Uri> Resources(CancellationToken token)
    {
        JsonElement json = GetJson(index, token) ?? throw Failed(index, "there is no service index", null);
        return !json.TryGetProperty("resources", out JsonElement resources) || resources.ValueKind != JsonValueKind.Array
            ? throw Failed(index, "it is not the service index of a NuGet feed of version 3", null)
            : resources.EnumerateArray()
                .Where(resource => resource.TryGetProperty("@type", out JsonElement type) && type.ValueKind == JsonValueKind.String && resource.TryGetProperty("@id", out _))
                .GroupBy(resource => resource.GetProperty("@type").GetString()!, StringComparer.Ordinal)
                .ToDictionary(group => group.Key, group => new Uri(index, group.First().GetProperty("@id").GetString()!.TrimEnd('/') + "/"), StringComparer.Ordinal);
    }

    private Uri Resource(Dictionary<string, Uri> resources, string type) =>
        resources.GetValueOrDefault(type) ?? throw Failed(index, $"the feed offers no {type}", null);

    // The catalog entry of a package states the hash of its file.
    private string? StatedHash(Dictionary<string, Uri> resources, string id, string version, CancellationToken token)
    {
        string[] types = ["RegistrationsBaseUrl/3.6.0", "RegistrationsBaseUrl/3.4.0", "RegistrationsBaseUrl"];
        if (index.Scheme != Uri.UriSchemeHttps && !index.IsLoopback)
        {
            return null;
        }

        return types.Select(resources.GetValueOrDefault).FirstOrDefault(found => found is not null) is Uri registrations
            && GetJson(new Uri(registrations, $"{id}/{version}.json"), token) is JsonElement leaf
            && leaf.TryGetProperty("catalogEntry", out JsonElement entry)
            && entry.ValueKind == JsonValueKind.String
            && GetJson(new Uri(index, entry.GetString()), token) is JsonElement catalog
            && catalog.TryGetProperty("packageHashAlgorithm", out JsonElement algorithm)
            && algorithm.ValueEquals("SHA512")
            && catalog.TryGetProperty("packageHash", out JsonElement hash)
                ? hash.GetString()
                : null;
    }

    private JsonElement? GetJson(Uri address, CancellationToken token) => WithRetries(address, () =>
    {
        using HttpResponseMessage response = Send(address, 0, token);
        if (response.StatusCode == HttpStatusCode.NotFound)
        {
            return (JsonElement?)null;
        }

        response.EnsureSuccessStatusCode();
        byte[] bytes = response.Content.ReadAsByteArrayAsync(token).GetAwaiter().GetResult();

        // Some registrations are stored compressed and sent so to everybody.
        using Stream stream = bytes is [0x1f, 0x8b, ..] ? new GZipStream(new MemoryStream(bytes), CompressionMode.Decompress) : new MemoryStream(bytes);
        try
        {
            using JsonDocument json = JsonDocument.Parse(stream);
            return json.RootElement.Clone();
        }
        catch (JsonException exception)
        {
            throw Failed(address, "the answer is not JSON", exception);
        }
    }, token);

    /// <summary>Downloads a file under its name with .partial, going on where an earlier download stopped, and renames it when it is complete.</summary>
    /// <returns>False where the server does not have it.</returns>
    private bool Download(Uri address, string file, Action<long, long> progress, CancellationToken token) => WithRetries(address, () =>
    {
        string partial = $"{file}.partial";
        using (FileStream target = Create(partial))
        {
            using HttpResponseMessage response = Send(address, target.Length, token);
            if (response.StatusCode == HttpStatusCode.NotFound)
            {
                return false;
            }

            bool continues = response.StatusCode == HttpStatusCode.PartialContent && response.Content.Headers.ContentRange?.From == target.Length;
            if (response.StatusCode == HttpStatusCode.RequestedRangeNotSatisfiable || !continues)
            {
                if (response.StatusCode == HttpStatusCode.RequestedRangeNotSatisfiable && response.Content.Headers.ContentRange?.Length == target.Length)
                {
                    return Complete(target, partial, file);
                }

                target.SetLength(0);
                if (response.StatusCode is HttpStatusCode.RequestedRangeNotSatisfiable or HttpStatusCode.PartialContent)
                {
                    throw new IOException("The server has another part of the file than the one that is missing.");
                }
            }

            response.EnsureSuccessStatusCode();
            target.Position = target.Length;
            long? length = response.Content.Headers.ContentLength + target.Length;
            Copy(response, target, length ?? 0, progress, token);
            return length is null || target.Length == length ? Complete(target, partial, file) : throw new IOException($"The connection ended after {target.Length} of {length} bytes.");
        }
    }, token);

    private static bool Complete(FileStream target, string partial, string file)
    {
        target.Flush(flushToDisk: true);
        target.Dispose();
        Contention.MoveFile(partial, file);
        return true;
    }

    private static FileStream Create(string path)
    {
        try
        {
            return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw RuntimeStore.NotWritable(path, exception);
        }
    }

    private static void Copy(HttpResponseMessage response, FileStream target, long length, Action<long, long> progress, CancellationToken token)
    {
        using Stream content = response.Content.ReadAsStream(token);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(1 << 18);
        try
        {
            for (int count; (count = Within(limited => content.ReadAsync(buffer, limited).AsTask(), token)) > 0;)
            {
                try
                {
                    target.Write(buffer, 0, count);
                }
                catch (IOException exception)
                {
                    throw RuntimeStore.NotWritable(target.Name, exception);
                }

                progress(target.Length, length);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private HttpResponseMessage Send(Uri address, long from, CancellationToken token)
    {
        using HttpRequestMessage request = new(HttpMethod.Get, address);
        request.Headers.UserAgent.Add(new ProductInfoHeaderValue("LoKr", typeof(FeedPackageSource).Assembly.GetName().Version?.ToString(3)));
        if (from > 0)
        {
            request.Headers.Range = new RangeHeaderValue(from, null);
        }

        // Never sent to another host than the feed's own.
        if (credentials is not null && address.Host == index.Host && address.Scheme == index.Scheme)
        {
            request.Headers.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes(credentials)));
        }

        return Within(limited => s_client.Value.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, limited), token);
    }

    // Waits for one answer of the server, but not for ever.
    private static T Within<T>(Func<CancellationToken, Task<T>> wait, CancellationToken token)
    {
        using CancellationTokenSource limited = CancellationTokenSource.CreateLinkedTokenSource(token);
        limited.CancelAfter(s_silence);
        try
        {
            return wait(limited.Token).GetAwaiter().GetResult();
        }
        catch (OperationCanceledException exception) when (!token.IsCancellationRequested)
        {
            throw new IOException($"The server did not answer within {s_silence.TotalSeconds} seconds.", exception);
        }
    }

    private static T WithRetries<T>(Uri address, Func<T> action, CancellationToken token)
    {
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return action();
            }
            catch (Exception exception) when (exception is HttpRequestException or IOException)
            {
                // What the server refuses now it will refuse again.
                bool refused = exception is HttpRequestException { StatusCode: >= (HttpStatusCode)400 and < (HttpStatusCode)500 };
                if (refused || attempt == Attempts)
                {
                    throw Failed(address, exception.Message, exception);
                }

                if (token.WaitHandle.WaitOne(TimeSpan.FromSeconds(attempt - 1)))
                {
                    token.ThrowIfCancellationRequested();
                }
            }
        }
    }

    private static LoKrException Failed(Uri address, string why, Exception? exception) => new(
        ErrorIds.RuntimeDownloadFailed,
        LoKrErrorKind.Unavailable,
        $"{address} cannot be downloaded: {why.TrimEnd('.')}.",
        "Check the network and the address, and try again: what has arrived is kept. Without a network, name a folder of packages or an unpacked libtorch.",
        exception)
    {
        Target = address,
    };
}

/// <summary>Package files and their hashes.</summary>
internal static class PackageHash
{
    /// <summary>SHA-512 as NuGet states it, in base 64.</summary>
    public static string Sha512(string file)
    {
        using FileStream stream = FileSystem.OpenRead(file);
        return Convert.ToBase64String(SHA512.HashData(stream));
    }

    /// <summary>Opens a package.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeDamaged</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static ZipArchive Open(string file)
    {
        FileStream stream = FileSystem.OpenRead(file);
        try
        {
            return new ZipArchive(stream, ZipArchiveMode.Read);
        }
        catch (InvalidDataException exception)
        {
            stream.Dispose();
            throw Damaged(file, $"'{file}' is not a package", exception);
        }
    }

    /// <summary>The error for a package that is not what it should be.</summary>
    public static LoKrException Damaged(string file, string problem, Exception? exception = null) => new(
        ErrorIds.RuntimeDamaged, LoKrErrorKind.InvalidData, $"{problem}.", "Get the package again.", exception) { Target = file };
}
