using System.Buffers.Binary;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Tests.Training;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.Testing;
using TorchSharp;
using Xunit;

namespace LoKr.Core.Tests.Runs;

/// <summary>Files that a run leaves for people: events for TensorBoard, the picture of the loss, the report.</summary>
public sealed class RunFilesTests : IDisposable
{
    private static readonly DateTime s_begin = new(2026, 11, 28, 2, 15, 0, DateTimeKind.Utc);

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Events_are_records_that_TensorBoard_reads()
    {
        string path = _folder[EventFile.NameOf(s_begin)];
        Assert.Contains("tfevents", path, StringComparison.Ordinal);
        using (EventFile file = EventFile.Open(path, s_begin, []))
        {
            file.Add(Step(1, 0.75));
            file.Add(Step(200, 0.5, evaluation: 0.25));
            file.Add(Step(201, 0.5) with { HeadLearningRate = 0.25 });
        }

        Tensorboard.Event[] events = [.. Read(path).Select(Tensorboard.Event.Parser.ParseFrom)];
        Assert.Equal(4, events.Length);
        Assert.Equal("brain.Event:2", events[0].FileVersion);
        Assert.Equal((s_begin - DateTime.UnixEpoch).TotalSeconds, events[0].WallTime);
        Assert.Equal([0, 1, 200, 201], events.Select(static item => item.Step));
        Assert.Equal(["loss", "learning_rate", "gradient_norm", "tokens_per_second"], events[1].Summary.Value.Select(static value => value.Tag));
        Assert.Equal(["loss", "learning_rate", "head_learning_rate", "gradient_norm", "tokens_per_second"], events[3].Summary.Value.Select(static value => value.Tag));
        Assert.Equal(0.75f, events[1].Summary.Value[0].SimpleValue);
        Assert.Equal(events[0].WallTime + 100, events[2].WallTime, 6);
        Assert.Equal(("evaluation/loss", 0.25f), (events[2].Summary.Value[4].Tag, events[2].Summary.Value[4].SimpleValue));
        Assert.Equal(("evaluation/accuracy", 0.5f), (events[2].Summary.Value[5].Tag, events[2].Summary.Value[5].SimpleValue));
    }

    [Fact]
    public void Events_of_a_run_that_goes_on_are_those_of_one_that_was_not_interrupted()
    {
        LoKrTrainingStep[] steps = [.. Enumerable.Range(1, 9).Select(static i => Step(i, 1.0 / i))];
        (string whole, string part) = (_folder["whole"], _folder["part"]);
        EventFile.Open(whole, s_begin, steps).Dispose();
        using (EventFile first = EventFile.Open(part, s_begin, []))
        {
            // The process was killed after step 7, within a record; its last checkpoint is of step 4.
            Array.ForEach(steps[..7], first.Add);
        }

        File.AppendAllText(part, "half a rec");
        using (EventFile second = EventFile.Open(part, s_begin, steps[..4]))
        {
            Assert.Equal(5, Read(part).Count());
            Array.ForEach(steps[4..], second.Add);
        }

        Assert.Equal(File.ReadAllBytes(whole), File.ReadAllBytes(part));
    }

    [Fact]
    public void The_picture_shows_every_course_and_depends_on_the_steps_alone()
    {
        LoKrTrainingStep[] steps = [.. Enumerable.Range(1, 3000).Select(static i => Step(i, i == 7 ? double.NaN : 2 * Math.Exp(-i / 900.0), i % 500 == 0 ? 1.5 : null))];
        byte[] png = LossChart.Draw(steps);
        Assert.Equal(png, LossChart.Draw(steps));
        Assert.InRange(png.Length, 2_000, 60_000);

        string path = _folder["loss.png"];
        File.WriteAllBytes(path, png);
        Assert.Equal((960, 480), ImageFile.ReadSize(path));
        using torch.Tensor image = ImageFile.Read(path);
        using torch.Tensor dark = image.to(torch.ScalarType.Float32).amin(image.shape[0] == 3 ? 0 : -1).lt(200);
        Assert.InRange(dark.to(torch.ScalarType.Float32).mean().ToDouble(), 0.01, 0.1);

        // Nothing to draw, one step, and a loss that does not move.
        foreach (LoKrTrainingStep[] few in (LoKrTrainingStep[][])[[], [Step(1, 0.5)], [Step(1, double.NaN)], [Step(1, 0), Step(2, 0)], [Step(1, 1e-7), Step(2, 3e12)]])
        {
            File.WriteAllBytes(path, LossChart.Draw(few));
            Assert.Equal((960, 480), ImageFile.ReadSize(path));
        }
    }

    [Fact]
    public void A_run_that_ends_leaves_its_report_and_a_report_in_one_piece_has_gate_and_lineage()
    {
        RunFolder folder = Train("run");
        LoKrRun run = folder.Read();
        string report = File.ReadAllText(folder.ReportFile);
        Assert.Contains($"# Run {run.Id}", report, StringComparison.Ordinal);
        Assert.Contains("Completed after 6 of 6 steps", report, StringComparison.Ordinal);
        Assert.Contains("](loss.png)", report, StringComparison.Ordinal);
        Assert.Contains($"| Data | {run.Inputs.Data} |", report, StringComparison.Ordinal);
        Assert.DoesNotContain("## Gate", report, StringComparison.Ordinal);
        Assert.Equal(7, Read(Directory.GetFiles(folder.Path, "events.out.tfevents.*").Single()).Count());
        Assert.True(File.Exists(folder.ChartFile));

        LoKrGateResult gate = PromotionGate.Decide(
            [.. Enumerable.Repeat(new RowScore(1, 1, 0, 1), 30)], [.. Enumerable.Repeat(new RowScore(0.5, 1, 0, 0), 30)], labels: ["a|b <c>"]) with { Challenger = "new" };
        folder.WriteGate(gate);
        Assert.Equal(gate.ToString(), folder.ReadGate()!.ToString());
        Assert.Contains("Passed. The accuracy went from 0.0000 to 1.0000", File.ReadAllText(folder.ReportFile), StringComparison.Ordinal);
        AdapterRegistry registry = new(_folder["registry"]);
        registry.Register("tickets", folder.AdapterFolder);
        registry.Register("tickets", folder.Path, new() { Parent = 1 });
        registry.Publish("tickets");
        Assert.Equal(gate.ToString(), registry.Get("tickets").Card.Gate);

        string markdown = RunReport.Create(folder, ReportFormat.Markdown, registry);
        Assert.Contains("Passed. The accuracy went from 0.0000 to 1.0000", markdown, StringComparison.Ordinal);
        Assert.Contains(@"| a\|b <c> | 30 |", markdown, StringComparison.Ordinal);
        Assert.Contains("| tickets 2 |", markdown, StringComparison.Ordinal);
        Assert.Contains("| champion | 1 |", markdown, StringComparison.Ordinal);
        Assert.DoesNotContain("| tickets 1 |", markdown, StringComparison.Ordinal);
        Assert.Contains("](data:image/png;base64,iVBORw0KGgo", markdown, StringComparison.Ordinal);

        string html = RunReport.Create(folder, ReportFormat.Html);
        Assert.Contains("<td>a|b &lt;c&gt;</td>", html, StringComparison.Ordinal);
        Assert.Contains("<img src=\"data:image/png;base64,iVBORw0KGgo", html, StringComparison.Ordinal);
        Assert.DoesNotContain("http", html, StringComparison.Ordinal);
        Assert.DoesNotContain("tickets", html, StringComparison.Ordinal);
    }

    [Fact]
    public void A_run_is_completed_only_when_its_report_is_written()
    {
        RunFolder folder = new(_folder["run"]);
        Assert.ThrowsAny<Exception>(() => Train("run", () => Directory.CreateDirectory(Path.Combine(folder.ReportFile, "in the way"))));
        Assert.NotEqual(RunState.Completed, folder.Read().State);
        Directory.Delete(folder.ReportFile, recursive: true);
        Train("run");
        Assert.Equal(RunState.Completed, folder.Read().State);
        Assert.True(File.Exists(folder.ReportFile));
    }

    private static LoKrTrainingStep Step(int step, double loss, double? evaluation = null) => new()
    {
        Step = step, TotalSteps = 3000, Epoch = step / 100.0, Loss = loss, LearningRate = 1e-3, GradientNorm = 0.5, TokensPerSecond = 1000, Elapsed = TimeSpan.FromSeconds(step / 2.0),
        EvaluationLoss = evaluation, Accuracy = evaluation is null ? null : 0.5,
    };

    private RunFolder Train(string name, Action? onStart = null)
    {
        using LoKrModel model = TinyClassifier.Create("odd", "even");
        Fill(model);
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["mix"]) }, seed: 1);
        DataRow[] rows = [.. Enumerable.Range(1, 24).Select(static i => Rows.Labeled(new string('x', 1 + (i % 9)), i % 9 % 2 == 0 ? "odd" : "even", i))];
        using ITrainingTask task = TrainingTaskFactory.Create(model, rows);
        using ITrainingTask validation = TrainingTaskFactory.Create(model, rows);
        TrainingOptions options = new() { MaxSteps = 6, BatchSize = 8, EvaluateEvery = 3, Seed = 1 };
        RunRecorder.Record(new() { Path = _folder[name] }, model, task, validation, options, journal =>
        {
            onStart?.Invoke();
            return Trainer.Run([model], task, validation, options, journal);
        });
        return new(_folder[name]);
    }

    // The same base model in every call, whatever other tests draw from libtorch's generator.
    private static void Fill(LoKrModel model)
    {
        using DisposeScope scope = torch.NewDisposeScope();
        using IDisposable noGrad = torch.no_grad();
        using torch.Generator generator = new(1, torch.CPU);
        foreach (torch.Tensor parameter in model.Module.parameters())
        {
            parameter.copy_(torch.randn(parameter.shape, generator: generator) * 0.1);
        }
    }

    // Checks the framing and both checksums of every record, and returns the messages.
    private static IEnumerable<byte[]> Read(string path)
    {
        byte[] bytes = FileSystem.ReadBytes(path);
        for (int at = 0; at < bytes.Length;)
        {
            int length = (int)BinaryPrimitives.ReadInt64LittleEndian(bytes.AsSpan(at));
            Assert.Equal(Masked(bytes.AsSpan(at, 8)), BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at + 8)));
            byte[] message = bytes[(at + 12)..(at + 12 + length)];
            Assert.Equal(Masked(message), BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at + 12 + length)));
            yield return message;
            at += 12 + length + 4;
        }
    }

    // CRC-32C bit by bit, and TFRecord's mask.
    private static uint Masked(ReadOnlySpan<byte> bytes)
    {
        uint crc = uint.MaxValue;
        foreach (byte value in bytes)
        {
            crc ^= value;
            for (int bit = 0; bit < 8; bit++)
            {
                crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82F63B78 : crc >> 1;
            }
        }

        crc = ~crc;
        return ((crc >> 15) | (crc << 17)) + 0xA282EAD8;
    }
}
