using System.Runtime.InteropServices;
using System.Text;
using LoKr.Core.Errors;

namespace LoKr.Core.Distributed;

/// <summary>
/// The few functions of MPI that are needed, called in the library that is installed. There is one MPI in a process, from its first use to its end;
/// an error inside MPI ends all processes (MPI_ERRORS_ARE_FATAL, its default).
/// </summary>
/// <remarks>
/// Source: MPI 3.1, chapters 5.7 and 8.7; mpi.h of Open MPI 4.1 and of MPICH 4.0. A handle is the address of a variable in the one and a number of
/// 32 bits in the other; both go through a register of the size of a pointer, of which MPICH reads the lower half.
/// </remarks>
internal sealed unsafe class MpiTransport : ITransport
{
    private const int ThreadSerialized = 2;
    private const int ThreadMultiple = 3;
    private const int LongestVersion = 8192; // MPI_MAX_LIBRARY_VERSION_STRING: 256 in Open MPI, 8192 in MPICH

    private readonly nint _library;
    private readonly nint _world;
    private readonly nint _byte;

    private MpiTransport(nint library, MpiKind kind)
    {
        _library = library;

        // mpi.h: MPI_COMM_WORLD and MPI_BYTE.
        (_world, _byte) = kind is MpiKind.OpenMpi
            ? (NativeLibrary.GetExport(library, "ompi_mpi_comm_world"), NativeLibrary.GetExport(library, "ompi_mpi_byte"))
            : (0x44000000, 0x4c00010d);

        // The thread that calls first is that of a command, and every command has its own; they never call at the same time.
        int provided = 0;
        ((delegate* unmanaged[Cdecl]<int*, byte***, int, int*, int>)Of("MPI_Init_thread"))(null, null, ThreadMultiple, &provided);
        if (provided < ThreadSerialized)
        {
            throw new LoKrException(ErrorIds.MpiNotUsable, LoKrErrorKind.Unavailable, FormattableString.Invariant($"The MPI library allows calls of one thread only (level {provided})."),
                "Use one that was built with support for threads, as those of the distributions are.");
        }

        int value;
        ((delegate* unmanaged[Cdecl]<nint, int*, int>)Of("MPI_Comm_rank"))(_world, &value);
        Rank = value;
        ((delegate* unmanaged[Cdecl]<nint, int*, int>)Of("MPI_Comm_size"))(_world, &value);
        Size = value;
        byte* text = stackalloc byte[LongestVersion];
        ((delegate* unmanaged[Cdecl]<byte*, int*, int>)Of("MPI_Get_library_version"))(text, &value);

        // "Open MPI v4.1.4, package: …", "MPICH Version:	4.0.2\n…".
        Name = string.Join(' ', Encoding.UTF8.GetString(text, Math.Clamp(value, 0, LongestVersion)).Split('\n', ',', '\0')[0].Split([' ', '\t', ':'], StringSplitOptions.RemoveEmptyEntries));
    }

    /// <inheritdoc/>
    public string Name { get; }

    /// <inheritdoc/>
    public int Rank { get; }

    /// <inheritdoc/>
    public int Size { get; }

    /// <summary>Loads the library that fits a launcher, and starts MPI.</summary>
    /// <param name="launch">What the launcher says; null for a process that was started alone.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.MpiNotFound"/>, <see cref="ErrorIds.MpiNotUsable"/>.</exception>
    public static MpiTransport Start(Launch? launch)
    {
        if (launch is { Mpi: null })
        {
            throw NotUsable($"{launch.Launcher} started {launch.Size} processes.");
        }

        (nint library, MpiKind kind) = Find(launch?.Mpi) ?? throw new LoKrException(ErrorIds.MpiNotFound, LoKrErrorKind.Unavailable,
            $"No MPI library was found: {string.Join(", ", Files(launch?.Mpi).Select(static file => file.File))}.",
            "Install it on every machine (Debian: apt install openmpi-bin, or mpich), and have the loader find it (LD_LIBRARY_PATH).");
        MpiTransport transport = new(library, kind);
        if (launch is not null && launch.Size != transport.Size)
        {
            // A library that does not know its launcher makes every process the only one.
            throw NotUsable($"{launch.Launcher} started {launch.Size} processes, but {transport.Name} sees {transport.Size}.");
        }

        return transport;
    }

    /// <summary>Whether the library that fits a launcher can be loaded.</summary>
    public static bool IsInstalled(Launch launch) => launch.Mpi is not null && Find(launch.Mpi) is not null;

    /// <inheritdoc/>
    public void AllGather(ReadOnlySpan<byte> mine, Span<byte> all)
    {
        fixed (byte* from = mine, to = all)
        {
            ((delegate* unmanaged[Cdecl]<void*, int, nint, void*, int, nint, nint, int>)Of("MPI_Allgather"))(from, mine.Length, _byte, to, mine.Length, _byte, _world);
        }
    }

    /// <inheritdoc/>
    public void AllGather(ReadOnlySpan<byte> mine, Span<byte> all, int[] counts)
    {
        int[] offsets = new int[counts.Length];
        for (int rank = 1; rank < counts.Length; rank++)
        {
            offsets[rank] = checked(offsets[rank - 1] + counts[rank - 1]);
        }

        fixed (byte* from = mine, to = all)
        fixed (int* sizes = counts, places = offsets)
        {
            ((delegate* unmanaged[Cdecl]<void*, int, nint, void*, int*, int*, nint, nint, int>)Of("MPI_Allgatherv"))(from, mine.Length, _byte, to, sizes, places, _byte, _world);
        }
    }

    /// <inheritdoc/>
    public void Abort(int exitCode) => ((delegate* unmanaged[Cdecl]<nint, int, int>)Of("MPI_Abort"))(_world, exitCode);

    /// <summary>Ends MPI: waits until every process does.</summary>
    public void Dispose() => ((delegate* unmanaged[Cdecl]<int>)Of("MPI_Finalize"))();

    private static LoKrException NotUsable(FormattableString what) => new(ErrorIds.MpiNotUsable, LoKrErrorKind.Unavailable, FormattableString.Invariant(what),
        "Start the processes with the launcher of the MPI library (with srun choose its interface, --mpi=pmi2 for MPICH), or let each of them work alone.");

    private static (nint Library, MpiKind Kind)? Find(MpiKind? wanted)
    {
        foreach ((string file, MpiKind kind) in Files(wanted))
        {
            if (NativeLibrary.TryLoad(file, out nint library))
            {
                return (library, kind);
            }
        }

        return null;
    }

    private static IEnumerable<(string File, MpiKind Kind)> Files(MpiKind? wanted)
    {
        (string, MpiKind Kind)[] files = [("libmpi.so.40", MpiKind.OpenMpi), ("libmpich.so.12", MpiKind.Mpich), ("libmpi.so.12", MpiKind.Mpich)];
        return files.Where(file => wanted is null || file.Kind == wanted);
    }

    private void* Of(string function) => (void*)NativeLibrary.GetExport(_library, function);
}
