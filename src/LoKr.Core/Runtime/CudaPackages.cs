using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runtime;

/// <summary>
/// The CUDA build of libtorch on NuGet: a dozen packages, with files over the size limit cut into a first part
/// (<c>…-primary/runtimes/RID/native/FILE</c>, its checksum in <c>FILE.sha</c>) and fragments
/// (<c>…-fragmentN/fragments/RID/native/FILE.fragmentN</c>). They are joined in one folder of links, in which only the cut files are copies.
/// </summary>
internal static class CudaPackages
{
    /// <summary>Folders of the packages of one version, or none when the head package is not restored.</summary>
    public static IReadOnlyList<string> Find(string nuGetPackages, string version, string rid)
    {
        if (!Directory.Exists(nuGetPackages))
        {
            return [];
        }

        string[] all = [.. Directory.EnumerateDirectories(nuGetPackages, $"libtorch-cuda-*-{rid}*").Order(StringComparer.Ordinal)];
        string? head = all.LastOrDefault(folder => folder.EndsWith(rid, StringComparison.Ordinal) && VersionFolder(folder, version) is not null);
        return head is null
            ? []
            : [.. all.Where(folder => folder.StartsWith(head, StringComparison.Ordinal)).Select(folder => VersionFolder(folder, version)).OfType<string>()];
    }

    /// <summary>Folder of the store in which the packages are joined; its name depends on them.</summary>
    public static string FolderFor(RuntimeStore store, string version, IReadOnlyList<string> packages)
    {
        return Path.Combine(store.Root, "linked", $"{version}-cuda-{ContentHash.OfText(string.Join('\n', packages))[..12]}");
    }

    /// <summary>
    /// Joins the packages unless that was done before. Several processes may do it at once: each builds a folder of its own,
    /// and the first rename wins.
    /// </summary>
    public static void Assemble(RuntimeStore store, string folder, IReadOnlyList<string> packages, string version, string rid)
    {
        if (IsComplete(folder))
        {
            return;
        }

        string temporary = TemporaryName.Beside(folder, TemporaryName.Suffix);
        store.CreateFolder(temporary);
        try
        {
            foreach (string file in packages.SelectMany(package => NativeFiles(package, rid)))
            {
                Place(file, Path.Combine(temporary, Path.GetFileName(file)));
            }

            File.WriteAllText(Path.Combine(temporary, "build-version"), $"{version}+cuda\n");
            RuntimeManifest manifest = RuntimeManifest.Describe(temporary, $"{version}+cuda", "cuda", rid, "NuGet packages", []);
            manifest.Write(temporary);
            foreach (FileInfo file in new DirectoryInfo(temporary).EnumerateFiles().Where(file => file.LinkTarget is null))
            {
                FileTrust.Restrict(file.FullName);
            }

            RuntimeStore.RememberStamps(temporary, manifest.Files);
            Publish(temporary, folder);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw RuntimeStore.NotWritable(folder, exception);
        }
        finally
        {
            if (Directory.Exists(temporary))
            {
                Contention.DeleteFolder(temporary);
            }
        }
    }

    private static string? VersionFolder(string package, string version) =>
        Directory.EnumerateDirectories(package).FirstOrDefault(folder => RuntimeSearchPaths.ThreeParts(Path.GetFileName(folder)) == version);

    private static IEnumerable<string> NativeFiles(string package, string rid)
    {
        string native = Path.Combine(package, "runtimes", rid, "native");
        return Directory.Exists(native)
            ? Directory.EnumerateFiles(native).Where(file => !file.EndsWith(".sha", StringComparison.Ordinal))
            : [];
    }

    // A link whose target is gone from the package cache is a reason to start over.
    private static bool IsComplete(string folder) =>
        File.Exists(Path.Combine(folder, RuntimeManifest.FileName)) && Directory.EnumerateFiles(folder).All(IsIntact);

    // File.Exists is true for a broken link.
    private static bool IsIntact(string file) => File.ResolveLinkTarget(file, returnFinalTarget: true) is not { Exists: false };

    private static void Publish(string temporary, string folder)
    {
        if (Directory.Exists(folder) && !IsComplete(folder))
        {
            Contention.RemoveFolder(folder);
        }

        try
        {
            Contention.MoveFolder(temporary, folder);
        }
        catch (IOException) when (IsComplete(folder))
        {
            // Another process was first; its folder holds the same.
        }
    }

    private static void Place(string file, string target)
    {
        List<string> fragments = [];
        for (string next = Fragment(file, 1); File.Exists(next); next = Fragment(file, fragments.Count + 1))
        {
            fragments.Add(next);
        }

        if (fragments.Count == 0)
        {
            Check(file, file);
            Link(file, target);
            return;
        }

        using (FileStream whole = new(target, FileMode.CreateNew, FileAccess.Write))
        {
            foreach (string part in (string[])[file, .. fragments])
            {
                using FileStream stream = File.OpenRead(part);
                stream.CopyTo(whole, 1 << 20);
            }

            whole.Flush(flushToDisk: true);
        }

        Check(target, file);
    }

    private static string Fragment(string primary, int number)
    {
        string separator = Path.DirectorySeparatorChar.ToString();
        string folder = primary
            .Replace($"-primary{separator}", $"-fragment{number}{separator}", StringComparison.Ordinal)
            .Replace($"{separator}runtimes{separator}", $"{separator}fragments{separator}", StringComparison.Ordinal);
        return $"{folder}.fragment{number}";
    }

    // Without the right to make symbolic links (Windows without developer mode) the file is copied.
    private static void Link(string file, string target)
    {
        try
        {
            File.CreateSymbolicLink(target, file);
        }
        catch (Exception exception) when (OperatingSystem.IsWindows() && exception is IOException or UnauthorizedAccessException)
        {
            File.Copy(file, target);
        }
    }

    private static void Check(string content, string primary)
    {
        string shaFile = $"{primary}.sha";
        if (!File.Exists(shaFile))
        {
            return;
        }

        string expected = File.ReadAllText(shaFile).Trim();
        using FileStream stream = File.OpenRead(content);
        string actual = ContentHash.Of(stream);
        if (!string.Equals(actual, expected, StringComparison.OrdinalIgnoreCase))
        {
            throw new LoKrException(
                ErrorIds.RuntimeLoadFailed,
                LoKrErrorKind.InvalidData,
                $"'{Path.GetFileName(primary)}' joined from its packages has the checksum {actual}, not {expected}.",
                "A package is damaged or missing: delete the libtorch-cuda packages from the NuGet packages folder and restore again.")
            {
                Target = primary,
            };
        }
    }
}
