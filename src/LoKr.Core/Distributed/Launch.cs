using System.Globalization;

namespace LoKr.Core.Distributed;

/// <summary>Whether a command works together with other processes.</summary>
public enum DistributedMode
{
    /// <summary>With those that mpirun or srun started beside it, if one of them started this process.</summary>
    Auto,

    /// <summary>Alone.</summary>
    None,

    /// <summary>Over MPI; alone where no launcher started the process.</summary>
    Mpi,
}

/// <summary>A launcher's statement about the process that it started, before any library is loaded.</summary>
/// <param name="Launcher">The launcher, for people.</param>
/// <param name="Mpi">The library that fits it; null where none does.</param>
/// <param name="Rank">Index of the process, from 0.</param>
/// <param name="Size">Number of processes.</param>
public sealed record Launch(string Launcher, MpiKind? Mpi, int Rank, int Size)
{
    /// <summary>How this process was started; null where no launcher of several processes did.</summary>
    public static Launch? Current => Find(Environment.GetEnvironmentVariable);

    /// <summary>Reads the variables of a process.</summary>
    /// <param name="variable">The value of an environment variable, or null.</param>
    internal static Launch? Find(Func<string, string?> variable)
    {
        // Open MPI's mpirun.
        if (Number("OMPI_COMM_WORLD_RANK") is int openRank && Number("OMPI_COMM_WORLD_SIZE") is int openSize)
        {
            return new("mpirun of Open MPI", MpiKind.OpenMpi, openRank, openSize);
        }

        // MPICH's mpirun (Hydra), and srun --mpi=pmi2.
        if (Number("PMI_RANK") is int rank && Number("PMI_SIZE") is int size)
        {
            return new("a launcher with PMI (MPICH, srun)", MpiKind.Mpich, rank, size);
        }

        // srun --mpi=pmix, or a step without MPI. A batch script has tasks too, but is one process: only steps have a number of their own.
        if (Number("SLURM_PROCID") is int task && Number("SLURM_STEP_NUM_TASKS") is int tasks)
        {
            return variable("PMIX_RANK") is not null ? new("srun with PMIx", MpiKind.OpenMpi, task, tasks) : tasks > 1 ? new("srun without an interface for MPI", null, task, tasks) : null;
        }

        return null;

        int? Number(string name) => int.TryParse(variable(name), NumberStyles.None, CultureInfo.InvariantCulture, out int value) ? value : null;
    }
}

/// <summary>Implementations of MPI, whose binary interfaces differ.</summary>
public enum MpiKind
{
    /// <summary>Open MPI 4 (libmpi.so.40), whose handles are addresses.</summary>
    OpenMpi,

    /// <summary>MPICH 4 (libmpich.so.12) and what shares its interface, whose handles are numbers.</summary>
    Mpich,
}
