using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using Xunit;

namespace LoKr.Core.Tests.Distributed;

public sealed class LaunchTests
{
    [Theory]
    [InlineData("OMPI_COMM_WORLD_RANK=1;OMPI_COMM_WORLD_SIZE=4;PMIX_RANK=1", MpiKind.OpenMpi, 1, 4)]
    [InlineData("PMI_RANK=2;PMI_SIZE=3", MpiKind.Mpich, 2, 3)]
    [InlineData("PMI_RANK=0;PMI_SIZE=2;SLURM_PROCID=0;SLURM_STEP_NUM_TASKS=2;SLURM_NTASKS=2", MpiKind.Mpich, 0, 2)]
    [InlineData("PMIX_RANK=1;SLURM_PROCID=1;SLURM_STEP_NUM_TASKS=2;SLURM_NTASKS=2", MpiKind.OpenMpi, 1, 2)]
    [InlineData("SLURM_PROCID=3;SLURM_STEP_NUM_TASKS=4;SLURM_NTASKS=4", null, 3, 4)]
    public void A_launcher_is_known_by_its_variables(string variables, MpiKind? mpi, int rank, int size)
    {
        Launch? launch = Find(variables);
        Assert.Equal((mpi, rank, size), (launch?.Mpi, launch?.Rank, launch?.Size));
    }

    /// <summary>Otherwise each of the processes would train the same alone.</summary>
    [Fact]
    public void Processes_of_srun_without_MPI_are_not_taken_for_ones_that_work_alone()
    {
        LoKrException error = Assert.Throws<LoKrException>(() => MpiTransport.Start(Find("SLURM_PROCID=0;SLURM_STEP_NUM_TASKS=2")));
        Assert.Equal((ErrorIds.MpiNotUsable, "srun without an interface for MPI started 2 processes."), (error.ErrorId, error.Summary));
    }

    /// <summary>A batch script of Slurm has the number of its tasks too, and is one process.</summary>
    [Theory]
    [InlineData("")]
    [InlineData("SLURM_NTASKS=4;SLURM_PROCID=0;SLURM_JOB_ID=7")]
    [InlineData("SLURM_STEP_NUM_TASKS=1;SLURM_PROCID=0")]
    [InlineData("PMI_RANK=1")]
    [InlineData("OMPI_COMM_WORLD_SIZE=2;OMPI_COMM_WORLD_RANK=x")]
    public void A_process_that_was_started_alone_is_alone(string variables) => Assert.Null(Find(variables));

    private static Launch? Find(string variables)
    {
        Dictionary<string, string> values = variables.Split(';', StringSplitOptions.RemoveEmptyEntries).Select(static pair => pair.Split('=')).ToDictionary(static pair => pair[0], static pair => pair[1]);
        return Launch.Find(values.GetValueOrDefault);
    }
}
