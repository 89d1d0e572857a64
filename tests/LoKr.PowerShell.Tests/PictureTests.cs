using System.Diagnostics;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Tests.Support;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>Pictures at the shell: made from text, trained on, stopped, and refused with a reason.</summary>
public sealed class PictureTests : ModuleTest
{
    private const string Adapters = """
        $null = New-LoKrConfig -R 8 -Alpha 32 -TargetModules k_proj, q_proj, v_proj, out_proj, fc1, fc2 | Add-LoKrAdapter $sd.TextEncoder -Seed 1
        $null = New-LoKrConfig -R 8 -Alpha 32 -TargetModules proj_in, proj_out, to_k, to_q, to_v, to_out.0, ff.net.0.proj, ff.net.2 -UseEffectiveConv2d |
            Add-LoKrAdapter $sd.UNet -Seed 2
        """;

    private StableDiffusionPipeline? _pipeline;

    [Fact]
    public void The_story_of_the_document_works()
    {
        StableDiffusionPipeline pipeline = ImportAdaptedPipeline();
        byte[] before = Picture("before.png");
        Assert.Same(pipeline, Host.One<StableDiffusionPipeline>("$sd | Start-LoKrTraining -Data $photos -Resolution 16 -MaxSteps 25 -BatchSize 4 -LearningRate 1e-2 -Seed 1"));
        Assert.Equal(25, pipeline.LastTraining!.History.Count);
        Assert.Equal("Completed", pipeline.LastTraining.StopReason);
        byte[] adapted = Picture("adapted.png");
        Assert.NotEqual(before, adapted);

        // Scaled away at call time, the adapters leave the first picture; merged, they leave the last.
        Assert.Equal(before, Picture("scaled.png", "-AdapterScale 0"));
        Assert.Equal(adapted, Picture("again.png"));
        Host.Output("$null = $sd.TextEncoder | Merge-LoKrAdapter; $null = $sd.UNet | Merge-LoKrAdapter");
        Assert.InRange(Difference(adapted, Picture("merged.png")), 0, 1);
    }

    [Fact]
    public void A_picture_is_a_png_and_a_record_of_how_it_was_made()
    {
        ImportPipeline();
        LoKrPicture picture = Host.One<LoKrPicture>("Invoke-LoKrModel $sd 'a red rack' -Seed 7 -Steps 3 -Guidance 5 -NegativePrompt dark -Width 24 -Height 8 -Scheduler Euler -Destination $root/rack.png");
        Assert.Equal(Folder["rack.png"], picture.Path);
        Assert.Equal(("a red rack", "dark", 7, 3, 5, "Euler", 24, 8), (picture.Prompt, picture.NegativePrompt, picture.Seed, picture.Steps, picture.Guidance, picture.Scheduler, picture.Width, picture.Height));
        Assert.True(picture.Elapsed > TimeSpan.Zero);
        Assert.Equal((24, 8), ImageFile.ReadSize(picture.Path));
    }

    [Fact]
    public void Several_pictures_have_numbers_and_seeds_and_each_is_made_again_by_itself()
    {
        ImportPipeline();
        LoKrPicture[] pictures = [.. Host.Output("'a red rack', 'a blue rack' | Invoke-LoKrModel $sd -Count 2 -BatchSize 2 -Seed 3 -Steps 2 -Destination $root/rack.png").Cast<LoKrPicture>()];
        Assert.Equal(["rack.png", "rack-2.png", "rack-3.png", "rack-4.png"], pictures.Select(picture => Path.GetFileName(picture.Path)));
        Assert.Equal([3L, 4, 3, 4], pictures.Select(picture => picture.Seed));
        Host.Output("Invoke-LoKrModel $sd 'a red rack' -Seed 4 -Steps 2 -Destination $root/again.png");
        Assert.InRange(Difference(Bytes(pictures[1].Path), Bytes(Folder["again.png"])), 0, 1);
    }

    [Fact]
    public void Files_are_replaced_only_when_that_is_asked_for()
    {
        ImportPipeline();
        File.WriteAllText(Folder["rack.png"], "old");
        Assert.StartsWith("LoKr.DestinationExists,", Error("Invoke-LoKrModel $sd x -Steps 1 -Destination $root/rack.png"), StringComparison.Ordinal);
        Host.Output("Invoke-LoKrModel $sd x -Steps 1 -Destination $root/rack.png -WhatIf -Force");
        Assert.Equal("old", File.ReadAllText(Folder["rack.png"]));
        Host.Output("Invoke-LoKrModel $sd x -Steps 1 -Destination $root/rack.png -Force");
        Assert.Equal((16, 16), ImageFile.ReadSize(Folder["rack.png"]));
    }

    [Theory]
    [InlineData("-Destination $root/rack.jpg", "LoKr.InvalidArgument")]
    [InlineData("-Destination $root/none/rack.png", "LoKr.PathNotFound")]
    [InlineData("-Destination $root/rack.png -Width 20", "LoKr.ImageSizeInvalid")]
    [InlineData("-Destination $root/rack.png -Steps 0", "LoKr.GenerationOptionInvalid")]
    [InlineData("-Destination $root/rack.png -Steps 1001", "LoKr.GenerationOptionInvalid")]
    public void Bad_input_has_an_error_id_and_writes_nothing(string arguments, string id)
    {
        ImportPipeline();
        Assert.StartsWith($"{id},", Error($"Invoke-LoKrModel $sd 'x' {arguments}"), StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFiles(Folder.Path));
    }

    [Theory]
    [InlineData("$root/rack.safetensors", "-Format Kohya")]
    [InlineData("$root/rack", "")]
    public void Adapters_of_a_pipeline_come_back_from_one_file_or_a_folder_for_each(string place, string format)
    {
        StableDiffusionPipeline pipeline = ImportAdaptedPipeline();
        Host.Output("$null = $sd | Start-LoKrTraining $photos -Resolution 16 -MaxSteps 3 -LearningRate 1e-2 -Seed 1");
        byte[] adapted = Picture("adapted.png");
        Assert.Same(pipeline, Host.One<StableDiffusionPipeline>($"$sd | Export-LoKrAdapter -Destination {place} {format}"));
        Assert.StartsWith("LoKr.DestinationExists,", Error($"$sd | Export-LoKrAdapter {place} {format}"), StringComparison.Ordinal);
        Host.Output("$null = $sd.TextEncoder | Remove-LoKrAdapter default; $null = $sd.UNet | Remove-LoKrAdapter default");
        Assert.NotEqual(adapted, Picture("bare.png"));

        Host.Output($"$null = Import-LoKrAdapter $sd -Path {place} -Name other -WhatIf");
        Assert.Empty(pipeline.AdapterNames);
        Assert.Same(pipeline, Host.One<StableDiffusionPipeline>($"Import-LoKrAdapter $sd -Path {place} -Name other"));
        Assert.Equal(["text_encoder/other", "unet/other"], pipeline.AdapterNames);
        Assert.InRange(Difference(adapted, Picture("loaded.png")), 0, 1);
    }

    [Fact]
    public void A_stop_ends_a_picture_within_a_step()
    {
        ImportPipeline();
        using System.Management.Automation.PowerShell shell = Host.Create("Invoke-LoKrModel $sd x -Steps 900 -Destination $root/rack.png");
        using ManualResetEventSlim some = new();
        shell.Streams.Progress.DataAdded += (_, _) => some.Set();
        IAsyncResult running = shell.BeginInvoke();
        Assert.True(some.Wait(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken));
        Stopwatch watch = Stopwatch.StartNew();
        shell.Stop();
        Assert.Throws<PipelineStoppedException>(() => shell.EndInvoke(running));
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(10), $"It took {watch.Elapsed} to stop.");
        Assert.False(File.Exists(Folder["rack.png"]));
    }

    [Fact]
    public void Latents_are_computed_once_and_the_second_run_reads_them()
    {
        ImportAdaptedPipeline();
        const string Train = "$null = $sd | Start-LoKrTraining $photos -Resolution 16 -MaxSteps 1 -Verbose";
        Assert.Contains(Host.Run(Train).Verbose, line => line.Contains("4 computed, 0 read", StringComparison.Ordinal));
        Assert.Contains(Host.Run(Train).Verbose, line => line.Contains("0 computed, 4 read", StringComparison.Ordinal));
    }

    [Fact]
    public void A_rehearsal_names_pictures_and_memory_and_computes_nothing()
    {
        StableDiffusionPipeline pipeline = ImportAdaptedPipeline();
        Assert.Same(pipeline, Host.One<StableDiffusionPipeline>("$sd | Start-LoKrTraining $photos -Resolution 16 -Epochs 2 -WhatIf"));
        Assert.Null(pipeline.LastTraining);
        Assert.Equal(8, Directory.EnumerateFileSystemEntries(Folder["photos"]).Count());
    }

    [Fact]
    public void Pictures_are_made_on_the_way_and_steps_reported()
    {
        ImportAdaptedPipeline();
        IReadOnlyList<object> steps = Host.Output("""
            $sd | Start-LoKrTraining $photos -Resolution 16 -AspectBucket -MaxSteps 4 -MinSnrGamma 5 -CaptionDropout 0.1 -ReportStep -Seed 1 `
                -ValidationData $photos -SamplePrompt 'a rack' -SampleEvery 2 -SampleSteps 2 -SampleDestination $root/samples -LatentCache $root/cache
            """);
        Assert.Equal([1, 2, 3, 4], steps.Cast<LoKrTrainingStep>().Select(step => step.Step));
        Assert.NotNull(((LoKrTrainingStep)steps[^1]).EvaluationLoss);
        Assert.Equal(["step-000002-1.png", "step-000004-1.png"], Directory.EnumerateFiles(Folder["samples"]).Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal));
        Assert.True(Directory.Exists(Folder["cache"]));
        Assert.False(Directory.Exists(Folder["photos", ".lokr-latents"]));
    }

    [Theory]
    [InlineData("$root/none", "LoKr.PathNotFound")]
    [InlineData("$root/sd", "LoKr.DataEmpty")]
    [InlineData("$photos -Resolution 20", "LoKr.ImageSizeInvalid")]
    [InlineData("$photos -Resolution 16 -CaptionDropout 2", "LoKr.TrainingOptionInvalid")]
    [InlineData("$photos -Resolution 16 -SamplePrompt x", "LoKr.InvalidArgument")]
    [InlineData("@{ text = 'x' } -Resolution 16", "LoKr.DataValueInvalid")]
    [InlineData("$root/bare -Resolution 16", "LoKr.CaptionMissing")]
    [InlineData("$root/damaged -Resolution 16", "LoKr.ImageNotReadable")]
    public void Bad_training_data_has_an_error_id(string arguments, string id)
    {
        ImportAdaptedPipeline();
        File.Delete(Path.Combine(TinyImages.Write(Folder["bare"], 2), "01-green.txt"));
        File.WriteAllText(Path.Combine(TinyImages.Write(Folder["damaged"], 2), "01-green.png"), "no picture");
        Assert.StartsWith($"{id},", Error($"$sd | Start-LoKrTraining {arguments}"), StringComparison.Ordinal);
    }

    [Fact]
    public void Damaged_pictures_and_missing_captions_pass_where_that_is_asked_for()
    {
        StableDiffusionPipeline pipeline = ImportAdaptedPipeline();
        string damaged = TinyImages.Write(Folder["damaged"], 3);
        File.WriteAllText(Path.Combine(damaged, "01-green.png"), "no picture");
        File.Delete(Path.Combine(damaged, "02-blue.txt"));
        ScriptResult result = Host.Run("$null = $sd | Start-LoKrTraining $root/damaged -Resolution 16 -MaxSteps 1 -UnreadableImage Skip -MissingCaption Allow");
        Assert.Empty(result.Errors);
        Assert.Contains("01-green.png", Assert.Single(result.Warnings), StringComparison.Ordinal);
        Assert.Equal("Completed", pipeline.LastTraining!.StopReason);
    }

    protected override void Dispose(bool disposing)
    {
        _pipeline?.Dispose();
        base.Dispose(disposing);
    }

    private static byte[] Bytes(string path)
    {
        using TorchSharp.torch.Tensor picture = ImageFile.Read(path);
        return picture.data<byte>().ToArray();
    }

    private static int Difference(byte[] first, byte[] second) => first.Zip(second, (a, b) => Math.Abs(a - b)).Max();

    private byte[] Picture(string name, string arguments = "") =>
        Bytes(Host.One<LoKrPicture>($"Invoke-LoKrModel $sd 'a red rack' -Seed 1 -Steps 4 -Destination $root/{name} {arguments}").Path);

    private string Error(string script) => Assert.Single(Host.Run(script).Errors).FullyQualifiedErrorId;

    private StableDiffusionPipeline ImportPipeline()
    {
        Host.Set("path", TinyPipeline.Write(Folder["sd"]));
        return _pipeline = Host.One<StableDiffusionPipeline>("$sd = Import-LoKrModel $path; $sd");
    }

    private StableDiffusionPipeline ImportAdaptedPipeline()
    {
        StableDiffusionPipeline pipeline = ImportPipeline();
        Host.Set("photos", TinyImages.Write(Folder["photos"], 4));
        Host.Output(Adapters);
        return pipeline;
    }
}
