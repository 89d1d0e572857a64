using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using Xunit;

namespace LoKr.Core.Tests.Distributed;

public sealed class WorkerGroupTests
{
    [Fact]
    public void Everyone_gets_what_everyone_gave()
    {
        (string? Result, Exception? Error)[] all = ThreadWorkers.Run(3, static group => group.Run(() =>
        {
            WorkerMessages messages = group.Exchange(WorkerCall.Collect, new byte[group.Rank]);
            return string.Join(",", Enumerable.Range(0, group.Size).Select(rank => messages[rank].Length)) + ":" + group.FromFirst(WorkerCall.Begin, new byte[] { 7 })[0];
        }));
        Assert.All(all, static one => Assert.Equal(("0,1,2:7", null), one));
    }

    [Fact]
    public void An_error_of_one_worker_is_that_of_all_and_says_whose_it_is()
    {
        (int Result, Exception? Error)[] all = ThreadWorkers.Run(3, static group => group.Run(() => group.Rank == 1
            ? throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, "There are no rows.", "Give one.")
            : group.Exchange(WorkerCall.Step, default).Length));
        LoKrException[] errors = [.. all.Select(static one => Assert.IsType<LoKrException>(one.Error))];
        Assert.All(errors, static error => Assert.Equal((ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, "Give one."), (error.ErrorId, error.Kind, error.Advice)));
        Assert.Equal("There are no rows.", errors[1].Summary);
        Assert.Equal([$"Worker 1 on {Environment.MachineName}: There are no rows."], errors.Where((_, rank) => rank != 1).Select(static error => error.Summary).Distinct());
    }

    [Fact]
    public void A_bug_of_one_worker_has_an_id_on_the_others_and_they_can_go_on()
    {
        (string? Result, Exception? Error)[] all = ThreadWorkers.Run(2, static group =>
        {
            string error = "";
            try
            {
                group.Run(() => group.Rank == 1 ? throw new InvalidOperationException("Bug.") : group.Exchange(WorkerCall.Step, default));
            }
            catch (LoKrException exception)
            {
                error = exception.ErrorId + " " + exception.Summary;
            }
            catch (InvalidOperationException exception)
            {
                error = exception.Message;
            }

            return $"{error} {group.Run(() => group.Exchange(WorkerCall.Step, new byte[1]).Length)}";
        });
        Assert.Equal([$"LoKr.WorkerFailed Worker 1 on {Environment.MachineName}: InvalidOperationException: Bug. 2", "Bug. 2"], all.Select(static one => one.Result));
    }

    [Fact]
    public void Workers_that_do_different_things_are_told_so()
    {
        (int Result, Exception? Error)[] all = ThreadWorkers.Run(2, static group => group.Run(() => group.Exchange(group.IsFirst ? WorkerCall.Step : WorkerCall.Evaluate, new byte[9]).Length));
        Assert.All(all, static one => Assert.Equal(ErrorIds.WorkersDiffer, Assert.IsType<LoKrException>(one.Error).ErrorId));
        Assert.Contains("worker 1 does 'Evaluate' where worker 0 does 'Step'", all[0].Error!.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Workers_with_other_conditions_are_named_with_the_condition()
    {
        (int Result, Exception? Error)[] all = ThreadWorkers.Run(3, static group => group.Run(() =>
        {
            group.Agree(("data", "a"), ("number of threads", group.Rank == 2 ? "4" : "2"));
            return 0;
        }));
        Assert.All(all, static one => Assert.Equal(ErrorIds.WorkersDiffer, Assert.IsType<LoKrException>(one.Error).ErrorId));
        Assert.Contains("in number of threads, 4 on worker 2 and 2 on worker 0", all[1].Error!.Message, StringComparison.Ordinal);
    }

    /// <summary>Without this a worker whose script ends early would leave the others waiting for ever.</summary>
    [Fact]
    public void A_worker_that_ends_early_ends_the_others_with_an_error()
    {
        (int Result, Exception? Error)[] all = ThreadWorkers.Run(2, static group =>
        {
            if (group.Rank == 1)
            {
                group.Leave(3);
                return 0;
            }

            LoKrException error = Assert.Throws<LoKrException>(() => group.Run(() => group.Exchange(WorkerCall.Step, new byte[5]).Length));
            Assert.Equal(error.Summary, Assert.Throws<LoKrException>(() => group.Run(() => group.Exchange(WorkerCall.Step, default).Length)).Summary);
            group.Leave(1);
            throw error;
        });
        LoKrException error = Assert.IsType<LoKrException>(all[0].Error);
        Assert.Equal((ErrorIds.WorkerFailed, "Worker 1 has ended with exit code 3."), (error.ErrorId, error.Summary));
        Assert.Null(all[1].Error);
    }

    [Fact]
    public void A_worker_that_is_stopped_stops_the_others()
    {
        (string? Result, Exception? Error)[] all = ThreadWorkers.Run(2, static group => group.Run(() => group.Rank == 1
            ? group.Stop("TimeLimit").Reason
            : Assert.Throws<WorkersStoppedException>(() => group.Exchange(WorkerCall.Step, new byte[3]).Length).Reason));
        Assert.All(all, static one => Assert.Equal(("TimeLimit", null), one));
    }

    [Fact]
    public void A_second_thread_does_not_get_in_between()
    {
        (string? Result, Exception? Error)[] all = ThreadWorkers.Run(1, static group => group.Run(() =>
        {
            string id = "";
            Thread other = new(() => id = Assert.Throws<LoKrException>(() => group.Run(static () => 0)).ErrorId);
            other.Start();
            other.Join();
            return id + group.Run(static () => 1);
        }));
        Assert.Equal(("LoKr.ModelBusy1", null), all[0]);
    }

    [Fact]
    public void A_process_that_nobody_started_with_others_is_alone() => Assert.Null(WorkerGroup.Join(DistributedMode.Auto));
}
