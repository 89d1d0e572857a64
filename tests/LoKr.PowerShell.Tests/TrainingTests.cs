using System.Diagnostics;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.PowerShell.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>Start-LoKrTraining: streams, stopping, memory.</summary>
public sealed class TrainingTests : ModuleTest
{
    private const string Long = "$model | Start-LoKrTraining -Data $train -MaxSteps 100000 -ReportStep";

    [Fact]
    public void Progress_is_throttled_counts_down_and_ends()
    {
        LoKrModel model = ImportAdapted();
        ScriptResult result = Host.Run("$model | Start-LoKrTraining -Data $train -ValidationData $eval -Epochs 8 -Verbose");
        Assert.Empty(result.Errors);
        Assert.Same(model, Assert.Single(result.Output).BaseObject);
        ProgressRecord[] shown = [.. result.Progress.Where(record => record.RecordType == ProgressRecordType.Processing)];
        Assert.NotEmpty(shown);
        Assert.All(shown, record => Assert.True(record.SecondsRemaining >= 0 && record.PercentComplete is >= 0 and <= 100));
        Assert.True(shown.Length <= 2 + (model.LastTraining!.Elapsed.TotalMilliseconds / 200), $"{shown.Length} records in {model.LastTraining.Elapsed}.");
        Assert.Equal(ProgressRecordType.Completed, result.Progress[^1].RecordType);
        Assert.Equal(8, result.Verbose.Count(line => line.Contains("evaluation loss", StringComparison.Ordinal)));
    }

    [Fact]
    public void Steps_are_reported_as_they_come_in_place_of_the_model()
    {
        LoKrModel model = ImportAdapted();
        IReadOnlyList<object> steps = Host.Output("$model | Start-LoKrTraining -Data $train -Epochs 2 -ReportStep");
        Assert.Equal(model.LastTraining!.History, steps.Cast<LoKrTrainingStep>());
    }

    [Fact]
    public void Rows_on_the_pipeline_train_like_the_same_rows_in_a_file()
    {
        LoKrModel model = ImportAdapted();
        File.WriteAllLines(Folder["two.jsonl"], ["""{"text": "vpn slow", "label": "network"}""", """{"text": "card", "label": "billing"}"""]);
        Host.Output("$null = $model | Start-LoKrTraining -Data \"$root/two.jsonl\" -MaxSteps 1 -Seed 4");
        double fromFile = model.LastTraining!.History[0].Loss;
        LoKrModel other = Host.One<LoKrModel>("""
            $other = Import-LoKrModel $path -Label network, access, billing -Seed 1 3>$null
            $null = New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, value -ModulesToSave classifier | Add-LoKrAdapter $other -Seed 1
            [pscustomobject]@{ text = 'vpn slow'; label = 'network' }, @{ text = 'card'; label = 'billing' } |
                Start-LoKrTraining -Model $other -MaxSteps 1 -Seed 4
            """);
        Assert.Equal(fromFile, other.LastTraining!.History[0].Loss, 1e-6);
        other.Dispose();
    }

    [Fact]
    public void Stop_in_the_middle_ends_the_worker_at_once()
    {
        LoKrModel model = ImportAdapted();
        using System.Management.Automation.PowerShell shell = Host.Create(Long);
        PSDataCollection<PSObject> output = [];
        using ManualResetEventSlim some = new();
        output.DataAdded += (_, added) =>
        {
            if (added.Index == 5)
            {
                some.Set();
            }
        };
        IAsyncResult running = shell.BeginInvoke<PSObject, PSObject>(null, output);
        Assert.True(some.Wait(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken));
        Stopwatch watch = Stopwatch.StartNew();
        shell.Stop();
        Assert.Throws<PipelineStoppedException>(() => shell.EndInvoke(running));
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(10), $"It took {watch.Elapsed} to stop.");
        AssertStopped(model);
    }

    [Fact]
    public void A_downstream_stop_ends_the_worker_although_nothing_is_signalled()
    {
        LoKrModel model = ImportAdapted();
        IReadOnlyList<object> steps = Host.Output($"foreach ($once in 1) {{ {Long} | ForEach-Object {{ $_; if ($_.Step -eq 3) {{ break }} }} }}");
        Assert.Equal([1, 2, 3], steps.Cast<LoKrTrainingStep>().Select(step => step.Step));
        AssertStopped(model);
    }

    [Fact]
    public void A_downstream_error_ends_the_worker()
    {
        LoKrModel model = ImportAdapted();
        ScriptResult result = Host.Run($"{Long} | ForEach-Object {{ throw 'enough' }}");
        Assert.Equal("enough", Assert.Single(result.Errors).FullyQualifiedErrorId);
        AssertStopped(model);
    }

    [Fact]
    public void A_model_that_was_stopped_can_be_trained_again()
    {
        LoKrModel model = ImportAdapted();
        Host.Output($"foreach ($once in 1) {{ {Long} | ForEach-Object {{ break }} }}");
        Host.Output("$null = $model | Start-LoKrTraining -Data $train -MaxSteps 3");
        Assert.Equal("Completed", model.LastTraining!.StopReason);
        Assert.Equal(3, model.LastTraining.History.Count);
    }

    [Fact]
    public void The_number_of_live_tensors_is_flat_over_twenty_steps()
    {
        ImportAdapted();
        TensorCount.Settled();
        List<long> counts = [];
        using System.Management.Automation.PowerShell shell = Host.Create("""
            $batches = @(1) * 20
            $ids = [TorchSharp.torch]::tensor([long[]](2, 5, 6, 3)).reshape(1, 4)
            $mask = [TorchSharp.torch]::ones_like($ids)
            $label = [TorchSharp.torch]::tensor([long[]](1))
            $model | Start-LoKrTraining -Batch $batches -MaxSteps 22 -ReportStep -Loss {
                param($model, $batch)
                [TorchSharp.torch+nn+functional]::cross_entropy($model.Module.Classify($ids, $mask), $label)
            } | ForEach-Object { [TorchSharp.torch+Tensor]::TotalCount }
            """);
        counts.AddRange(shell.Invoke().Select(item => (long)item.BaseObject));
        Assert.Empty(shell.Streams.Error);
        Assert.Equal(22, counts.Count);
        TensorCount.AssertFlat(counts, 2);
    }

    [Fact]
    public void Training_on_data_leaves_no_tensors_behind()
    {
        ImportAdapted();
        Host.Output("$null = $model | Start-LoKrTraining -Data $train -MaxSteps 2");
        long before = TensorCount.Settled();
        Host.Output("$null = $model | Start-LoKrTraining -Data $train -ValidationData $eval -MaxSteps 20");
        Assert.Equal(before, TensorCount.Settled());
    }

    [Fact]
    public void Evaluation_before_and_after_is_in_the_result()
    {
        LoKrModel model = ImportAdapted();
        LoKrEvaluation before = Host.One<LoKrEvaluation>("$model | Measure-LoKrModel $eval");
        Host.Output("$null = $model | Start-LoKrTraining -Data $train -ValidationData $eval -EvaluateBefore -MaxSteps 5");
        Assert.Equal(before.Loss, model.LastTraining!.Before!.Loss, 1e-6);
        Assert.Equal(model.LastTraining.After!.Loss, Host.One<LoKrEvaluation>("$model | Measure-LoKrModel $eval -BatchSize 5").Loss, 1e-5);
    }

    private static void AssertStopped(LoKrModel model)
    {
        Assert.Equal("Canceled", model.LastTraining!.StopReason);
        int steps = model.LastTraining.History.Count;
        Assert.InRange(steps, 1, 5000);
    }
}
