using LoKr.Core.Configuration;
using LoKr.Core.Inference;
using LoKr.Core.Model;
using LoKr.PowerShell.Tests.Support;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>The sentences that the module exists for.</summary>
public sealed class PipelineTests : ModuleTest
{
    [Fact]
    public void The_headline_pipeline_runs_and_its_export_answers_alike()
    {
        LoKrModel model = ImportBert();
        Assert.Empty(Host.Output("""
            New-LoKrConfig -R 8 -Alpha 16 -TargetModules query, value -ModulesToSave classifier |
                Add-LoKrAdapter $model -Seed 1 |
                Start-LoKrTraining -Data $train -ValidationData $eval -Epochs 15 -BatchSize 8 -LearningRate 2e-2 -Seed 1 |
                Merge-LoKrAdapter |
                Export-LoKrModel -Destination "$root/merged"
            """));
        Assert.Equal(["default"], model.MergedAdapters);
        Assert.Equal(15 * 12, model.LastTraining!.History.Count);
        Assert.True(model.LastTraining.After!.Accuracy > 0.7, $"Accuracy {model.LastTraining.After.Accuracy} after training.");

        LoKrEvaluation merged = Host.One<LoKrEvaluation>("Measure-LoKrModel $eval -Model $model");
        LoKrEvaluation exported = Host.One<LoKrEvaluation>("Import-LoKrModel \"$root/merged\" | Measure-LoKrModel $eval");
        Assert.Equal(model.LastTraining.After.Loss, merged.Loss, 1e-4);
        Assert.Equal(merged.Loss, exported.Loss, 1e-6);
        Assert.Equal(merged.Accuracy, exported.Accuracy);
    }

    [Fact]
    public void Texts_on_the_pipeline_are_classified_in_order_whatever_the_batch()
    {
        ImportBert();
        IReadOnlyList<object> one = Host.Output("'vpn is slow', '', 'my invoice', 'login' | Invoke-LoKrModel $model -BatchSize 1");
        IReadOnlyList<object> many = Host.Output("'vpn is slow', '', 'my invoice', 'login' | Invoke-LoKrModel $model");
        Assert.Equal(["vpn is slow", "", "my invoice", "login"], many.Cast<LoKrClassification>().Select(result => result.Text));
        foreach ((LoKrClassification first, LoKrClassification second) in one.Cast<LoKrClassification>().Zip(many.Cast<LoKrClassification>()))
        {
            Assert.Equal(first.Label, second.Label);
            Assert.Equal(TinyModel.Labels, first.Scores.Keys);
            Assert.Equal(1, first.Scores.Values.Sum(), 1e-6);
            Assert.Equal(first.Score, second.Score, 1e-5);
        }
    }

    [Fact]
    public void Objects_with_a_text_property_are_classified()
    {
        ImportBert();
        Assert.Equal("vpn", Host.One<LoKrClassification>("[pscustomobject]@{ Text = 'vpn'; Id = 1 } | Invoke-LoKrModel $model").Text);
    }

    [Fact]
    public void A_language_model_is_trained_measured_and_asked()
    {
        Host.Set("path", TinyModel.WriteLlama(Folder["llama"]));
        Host.Set("data", TinyModel.WriteCompletions(Folder["pairs.jsonl"], 20));
        IReadOnlyList<object> output = Host.Output("""
            $model = Import-LoKrModel $path
            $before = Measure-LoKrModel $data -Model $model
            $model | Add-LoKrAdapter -Config (New-LoKrConfig -R 4 -TargetModules all-linear) -Seed 1 |
                Start-LoKrTraining -Data $data -Epochs 10 -LearningRate 2e-2 -Seed 1 | Out-Null
            $before
            Measure-LoKrModel $data -Model $model
            'vpn: ', 'card: ' | Invoke-LoKrModel $model -MaxNewTokens 5
            'vpn: ' | Invoke-LoKrModel $model -MaxNewTokens 5 -Temperature 1 -TopK 20 -TopP 0.9 -Seed 3
            'vpn: ' | Invoke-LoKrModel $model -MaxNewTokens 5 -Temperature 1 -TopK 20 -TopP 0.9 -Seed 3
            $model.Dispose()
            """);
        LoKrEvaluation before = Assert.IsType<LoKrEvaluation>(output[0]);
        LoKrEvaluation after = Assert.IsType<LoKrEvaluation>(output[1]);
        Assert.True(after.Perplexity < before.Perplexity / 2, $"Perplexity {before.Perplexity} before, {after.Perplexity} after.");
        LoKrCompletion[] completions = [.. output.Skip(2).Cast<LoKrCompletion>()];
        Assert.Equal(["vpn: ", "card: ", "vpn: ", "vpn: "], completions.Select(completion => completion.Prompt));
        Assert.All(completions, completion => Assert.InRange(completion.TokenCount, 0, 5));
        Assert.Equal(completions[2].Completion, completions[3].Completion);
    }

    [Fact]
    public void A_module_made_in_a_script_is_adapted_and_stays_the_same_model()
    {
        IReadOnlyList<object> output = Host.Output("""
            $net = [TorchSharp.torch+nn]::Sequential([TorchSharp.torch+nn]::Linear(10, 20), [TorchSharp.torch+nn]::Linear(20, 3))
            $first = Add-LoKrAdapter $net -Config (New-LoKrConfig -R 2 -TargetModules all-linear)
            $second = Add-LoKrAdapter -Model $net -Config (New-LoKrConfig -R 2 -TargetModules 0) -Name other
            [object]::ReferenceEquals($first, $second)
            $first
            """);
        Assert.Equal(true, output[0]);
        LoKrModel model = Assert.IsType<LoKrModel>(output[1]);
        Assert.Equal(["default", "other"], model.Adapters.Select(adapter => adapter.Name));
        Assert.Equal(2, model.Adapters[0].Layers.Count);
    }

    [Fact]
    public void A_single_layer_on_the_pipeline_is_trained_with_a_loss_of_the_script()
    {
        IReadOnlyList<object> output = Host.Output("""
            $layer = [TorchSharp.torch+nn]::Linear(6, 4)
            $batches = foreach ($i in 1..4) { @{ X = [TorchSharp.torch]::randn(8, 6); Y = [TorchSharp.torch]::randn(8, 4) } }
            $model = $layer | Add-LoKrAdapter -Config (New-LoKrConfig -R 2 -TargetModules all-linear) -Seed 1 |
                Start-LoKrTraining -Batch $batches -MaxSteps 30 -LearningRate 0.05 -Loss {
                    param($model, $batch)
                    [TorchSharp.torch+nn+functional]::mse_loss($model.Module.call($batch.X), $batch.Y)
                }
            $model
            """);
        LoKrModel model = Assert.IsType<LoKrModel>(Assert.Single(output));
        IReadOnlyList<LoKrTrainingStep> history = model.LastTraining!.History;
        Assert.Equal(30, history.Count);
        Assert.True(history.TakeLast(4).Average(step => step.Loss) < history.Take(4).Average(step => step.Loss), "The loss did not fall.");
    }
}
