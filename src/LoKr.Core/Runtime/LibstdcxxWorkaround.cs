using System.Buffers.Binary;
using System.Diagnostics;
using System.Runtime.InteropServices;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runtime;

/// <summary>
/// TorchSharp's Linux library asks for a symbol version of a newer libstdc++ than many systems have, only for a marker that GCC 13's
/// iostream header leaves (<c>std::ios_base_library_init</c>): nothing is relocated against it. Where the host lacks the version and nothing
/// uses it, a copy of the library with that one requirement marked weak loads and behaves the same. The original is not touched.
/// </summary>
internal static class LibstdcxxWorkaround
{
    private const string Libstdcxx = "libstdc++.so.6";
    private const ushort WeakFlag = 2;

    /// <summary>The library to load: the original, or the path of a patched copy in the store, with what was done.</summary>
    public static string Apply(string libTorchSharp, RuntimeStore store, List<string> workarounds)
    {
        if (!OperatingSystem.IsLinux())
        {
            return libTorchSharp;
        }

        byte[] bytes = File.ReadAllBytes(libTorchSharp);
        string host = LoadedLibstdcxx();
        try
        {
            IReadOnlyList<ElfVersionNeed> missing = Missing(ElfFile.Parse(bytes), ElfFile.Parse(File.ReadAllBytes(host)).DefinedVersions);
            if (missing.Count == 0)
            {
                return libTorchSharp;
            }

            byte[] patched = Weaken(bytes, missing, host);
            string names = string.Join(", ", missing.Select(need => need.Version));
            string copy = Path.Combine(store.Root, "patched", ContentHash.Of(patched)[..16], Path.GetFileName(libTorchSharp));
            Store(store, copy, patched);
            workarounds.Add($"{host} lacks {names}, which {Path.GetFileName(libTorchSharp)} names but does not use; a copy with that requirement made weak is loaded from {copy}.");
            return copy;
        }
        catch (InvalidDataException exception)
        {
            throw new LoKrException(
                ErrorIds.RuntimeLoadFailed,
                LoKrErrorKind.InvalidData,
                $"The symbol versions of '{libTorchSharp}' or '{host}' cannot be read: {exception.Message}",
                "Restore or install the runtime again.",
                exception)
            {
                Target = libTorchSharp,
            };
        }
    }

    /// <summary>Versions of libstdc++ that a library needs and the host's does not define.</summary>
    internal static IReadOnlyList<ElfVersionNeed> Missing(ElfFile library, IReadOnlySet<string> defined) =>
        [.. library.NeededVersions.Where(need =>
            need.Library == Libstdcxx && (need.Flags & WeakFlag) == 0 && !defined.Contains(need.Version))];

    /// <summary>A copy of the library with the missing versions made weak; an error where one of them is really used.</summary>
    internal static byte[] Weaken(byte[] bytes, IReadOnlyList<ElfVersionNeed> missing, string host)
    {
        ElfFile library = ElfFile.Parse(bytes);
        ElfVersionNeed? used = missing.FirstOrDefault(need => library.IsRelocated(need.Index));
        if (used is not null)
        {
            throw new LoKrException(
                ErrorIds.RuntimeLoadFailed,
                LoKrErrorKind.Unavailable,
                $"TorchSharp needs {used.Version} ({string.Join(", ", library.SymbolsOfVersion(used.Index).Take(3))}), which {host} does not have.",
                "Use a system with a newer libstdc++ (GCC 13 or later), or start the process with LD_LIBRARY_PATH at one.");
        }

        byte[] copy = (byte[])bytes.Clone();
        foreach (ElfVersionNeed need in missing)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(copy.AsSpan(need.FlagsOffset, 2), (ushort)(need.Flags | WeakFlag));
        }

        return copy;
    }

    /// <summary>The libstdc++ of this process; the .NET runtime or libtorch brings it in, and a process has one.</summary>
    internal static string LoadedLibstdcxx()
    {
        string? path = FindMapped();
        if (path is null && NativeLibrary.TryLoad(Libstdcxx, out _))
        {
            path = FindMapped();
        }

        return path ?? throw new LoKrException(
            ErrorIds.RuntimeLoadFailed,
            LoKrErrorKind.Unavailable,
            $"This system has no {Libstdcxx}, which libtorch needs.",
            "Install the C++ runtime of the distribution (Debian and Ubuntu: libstdc++6).");
    }

    private static string? FindMapped()
    {
        using Process process = Process.GetCurrentProcess();
        foreach (ProcessModule module in process.Modules)
        {
            if (Path.GetFileName(module.FileName).StartsWith(Libstdcxx, StringComparison.Ordinal))
            {
                return module.FileName;
            }
        }

        return null;
    }

    // Several processes may do this at once: each writes its own temporary file, and the last rename wins with equal content.
    private static void Store(RuntimeStore store, string path, byte[] content)
    {
        store.RequireTrusted(Path.GetDirectoryName(path));
        if (File.Exists(path) && File.ReadAllBytes(path).AsSpan().SequenceEqual(content))
        {
            return;
        }

        store.CreateFolder(Path.GetDirectoryName(path)!);
        string temporary = TemporaryName.Beside(path, TemporaryName.Suffix);
        try
        {
            using PendingFile file = new(path, temporary);
            RandomAccess.Write(file.Handle, content, 0);
            FileTrust.Restrict(temporary);
            file.Commit();
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw RuntimeStore.NotWritable(Path.GetDirectoryName(path)!, exception);
        }
    }
}
