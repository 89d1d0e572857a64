using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Tests.Support;
using LoKr.Core.Tests.Training;
using LoKr.Core.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Values of adapters of models and files, and differences between two.</summary>
public sealed class AdapterValueTests : IDisposable
{
    private readonly TempFolder _folder = new();

    [Fact]
    public void Values_of_a_model_and_of_its_file_are_those_of_the_dense_deltas()
    {
        using LoKrModel model = Model(out LoKrAdapter adapter, ["q_proj", "up_proj"]);
        string path = Path.Combine(_folder.Path, "adapter");
        AdapterExporter.Export(model, "default", path, AdapterLayout.Peft);
        string weights = WriteBase(model, "transformer.");

        IReadOnlyList<LoKrLayerValues> live = AdapterValues.Measure(AdapterReference.OfModel(model, "default"));
        IReadOnlyList<LoKrLayerValues> file = AdapterValues.Measure(AdapterReference.OfFile(path, new() { BasePath = weights }));

        Assert.Equal(adapter.Layers.Select(static layer => layer.ModuleName), live.Select(static layer => layer.Name));
        foreach ((int i, LoKrLayer layer) in adapter.Layers.Index())
        {
            using Tensor delta = layer.GetDeltaWeight();
            double norm = delta.norm().ToDouble();
            double weight = layer.BaseLayer.Weight.norm().ToDouble();
            LoKrLayerValues stored = file.Single(other => other.Name == layer.ModuleName);
            foreach (LoKrLayerValues values in (LoKrLayerValues[])[live[i], stored])
            {
                TensorAssert.Close(norm, values.FrobeniusNorm, 1e-5, "norm");
                TensorAssert.Close(linalg.svdvals(delta)[0].ToDouble(), values.SpectralNorm, 1e-5, "spectral norm");
                TensorAssert.Close(norm / weight, values.RelativeNorm!.Value, 1e-5, "relative norm");
                Assert.Equal((layer.BaseLayer.OutFeatures, layer.BaseLayer.InFeatures), (values.OutFeatures, values.InFeatures));
                Assert.Equal(2, values.Scaling);
                Assert.Equal(2, values.R);
            }
        }

        Assert.All(AdapterValues.Measure(AdapterReference.OfFile(path)), static layer => Assert.Null(layer.RelativeNorm));
    }

    [Fact]
    public void The_base_weight_is_the_one_before_a_merge_and_the_strength_counts()
    {
        using LoKrModel model = Model(out _, ["q_proj"]);
        LoKrLayerValues before = AdapterValues.Measure(AdapterReference.OfModel(model, "default"))[0];
        model.SetAdapterScale(["default"], 0.5);
        LoKrLayerValues half = AdapterValues.Measure(AdapterReference.OfModel(model, "default"))[0];
        model.Merge();
        LoKrLayerValues merged = AdapterValues.Measure(AdapterReference.OfModel(model, "default"))[0];
        TensorAssert.Close(before.FrobeniusNorm / 2, half.FrobeniusNorm, 1e-12, "norm");
        Assert.Equal(before.BaseNorm, merged.BaseNorm);
        Assert.Equal(half.FrobeniusNorm, merged.FrobeniusNorm);
    }

    [Fact]
    public void An_adapter_is_equal_to_its_own_file()
    {
        using LoKrModel model = Model(out _, ["q_proj", "down_proj"], saved: ["lm_head"]);
        string path = Path.Combine(_folder.Path, "adapter");
        AdapterExporter.Export(model, "default", path, AdapterLayout.Peft);
        AdapterComparison same = AdapterComparer.Compare(AdapterReference.OfModel(model, "default"), AdapterReference.OfFile(path));
        Assert.Empty(same.Settings);
        Assert.Equal((5, 0, 0, 0), (same.Total.CommonCount, same.Total.ReferenceOnlyCount, same.Total.DifferenceOnlyCount, same.Total.DifferentShapeCount));
        Assert.Equal(0, same.Total.RelativeDistance);
        Assert.Equal(1, same.Total.Cosine!.Value, 12);
        Assert.All(same.Layers, static layer => Assert.Equal(0, layer.RelativeDistance));
    }

    [Fact]
    public void Layers_settings_and_shapes_that_differ_are_named()
    {
        using LoKrModel model = Model(out LoKrAdapter first, ["q_proj", "up_proj"]);
        LoKrAdapter second = model.AddAdapter(new() { R = 2, Alpha = 8, DecomposeFactor = 3, TargetModules = ModuleSelector.FromNames(["up_proj", "down_proj"]) }, "other", seed: 7);
        Fill(second, 9);
        AdapterComparison comparison = AdapterComparer.Compare(AdapterReference.OfModel(model, "default"), AdapterReference.OfModel(model, "other"));

        Assert.Equal(["Alpha", "DecomposeFactor", "TargetModules"], comparison.Settings.Select(static setting => setting.Setting));
        Assert.Equal(new LoKrSettingDifference("Alpha", "4", "8"), comparison.Settings[0]);
        Assert.Equal((2, 2, 2, 2), (comparison.Total.CommonCount, comparison.Total.ReferenceOnlyCount, comparison.Total.DifferenceOnlyCount, comparison.Total.DifferentShapeCount));

        double inner = 0, a = 0, b = 0, distance = 0;
        foreach (string name in first.Layers.Concat(second.Layers).Select(static layer => layer.ModuleName).Distinct())
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor? left = first.Layers.FirstOrDefault(layer => layer.ModuleName == name)?.GetDeltaWeight().to(float64);
            Tensor? right = second.Layers.FirstOrDefault(layer => layer.ModuleName == name)?.GetDeltaWeight().to(float64);
            left ??= zeros_like(right!);
            right ??= zeros_like(left);
            LoKrLayerComparison row = comparison.Layers.Single(layer => layer.Name == name);
            if (row.Presence == LoKrPresence.Both)
            {
                TensorAssert.Close((left * right).sum().ToDouble() / left.norm().ToDouble() / right.norm().ToDouble(), row.Cosine!.Value, 1e-5, "cosine");
                TensorAssert.Close((left - right).norm().ToDouble() / left.norm().ToDouble(), row.RelativeDistance!.Value, 1e-5, "distance");
            }

            inner += (left * right).sum().ToDouble();
            a += left.square().sum().ToDouble();
            b += right.square().sum().ToDouble();
            distance += (left - right).square().sum().ToDouble();
        }

        TensorAssert.Close(inner / Math.Sqrt(a * b), comparison.Total.Cosine!.Value, 1e-5, "cosine of all");
        TensorAssert.Close(Math.Sqrt(distance / a), comparison.Total.RelativeDistance!.Value, 1e-5, "distance of all");
    }

    [Fact]
    public void Files_of_different_programs_are_matched_by_their_names()
    {
        using LoKrModel model = Model(out _, ["q_proj"]);
        string peft = Path.Combine(_folder.Path, "adapter");
        string kohya = Path.Combine(_folder.Path, "kohya.safetensors");
        AdapterExporter.Export(model, "default", peft, AdapterLayout.Peft);
        AdapterExporter.Export(model, "default", kohya, AdapterLayout.Kohya, new() { Component = AdapterComponent.Unet });
        AdapterComparison comparison = AdapterComparer.Compare(AdapterReference.OfFile(peft), AdapterReference.OfFile(kohya));
        Assert.Equal((2, 0, 0), (comparison.Total.CommonCount, comparison.Total.ReferenceOnlyCount, comparison.Total.DifferenceOnlyCount));
        Assert.InRange(comparison.Total.RelativeDistance!.Value, 0, 1e-6);
    }

    [Fact]
    public void Answers_of_two_adapters_are_measured_and_everything_is_as_before()
    {
        using LoKrModel model = TinyClassifier.Create("a", "b");
        model.AddAdapter(new() { R = 2, TargetModules = ModuleSelector.FromNames(["mix"]) }, "first", seed: 1);
        LoKrAdapter second = model.AddAdapter(new() { R = 2, TargetModules = ModuleSelector.FromNames(["mix"]) }, "second", seed: 2);
        Fill(second, 5, 4);
        string file = Path.Combine(_folder.Path, "second");
        AdapterExporter.Export(model, "second", file, AdapterLayout.Peft);
        DataRow[] rows = [.. Enumerable.Range(0, 24).Select(static i => Rows.Labeled($"text {(char)('a' + i)} {i}", i % 2 == 0 ? "a" : "b", i))];
        model.SetActiveAdapters(["second"]);

        AnswerComparison live = AnswerComparer.Compare(model, AdapterReference.OfModel(model, "first"), AdapterReference.OfModel(model, "second"), rows);
        AnswerComparison stored = AnswerComparer.Compare(model, AdapterReference.OfModel(model, "first"), AdapterReference.OfFile(file), rows);

        Assert.Equal(["second"], model.ActiveAdapters);
        Assert.Equal(["first", "second"], model.Adapters.Select(static adapter => adapter.Name));
        Assert.Equal(live.Total.DifferenceLoss, stored.Total.DifferenceLoss, 6);
        Assert.NotEqual(live.Total.ReferenceLoss, live.Total.DifferenceLoss);
        Assert.Equal(rows.Length, live.Answers.Count);
        Assert.Equal(live.Answers.Count(static answer => answer.IsSame), live.Total.SameCount);
        Assert.Equal(live.Total.CorrectedCount - live.Total.BrokenCount, (int)Math.Round((live.Total.DifferenceAccuracy!.Value - live.Total.ReferenceAccuracy!.Value) * rows.Length));
        using ITrainingTask task = TrainingTaskFactory.Create(model, rows);
        Assert.Equal(Evaluator.Evaluate(model, task, 16).Loss, live.Total.DifferenceLoss, 9);
        Assert.All(live.Answers, answer => Assert.InRange(answer.Distance, 0, 1));
        AnswerComparison none = AnswerComparer.Compare(model, AdapterReference.OfModel(model, "second"), AdapterReference.OfModel(model, "second"), rows);
        Assert.Equal(rows.Length, none.Total.SameCount);
        Assert.Equal(0, none.Total.MeanDistance);

        model.Merge();
        Assert.Equal(ErrorIds.AdapterMerged, Assert.Throws<LoKrException>(() =>
            AnswerComparer.Compare(model, AdapterReference.OfModel(model, "first"), AdapterReference.OfModel(model, "second"), rows)).ErrorId);
    }

    [Fact]
    public void Measures_and_comparisons_are_the_reference_numbers()
    {
        string folder = Fixtures.Require("algebra", "sums");
        JsonObject reference = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "case.json")))!.AsObject();
        foreach ((string name, JsonNode? layers) in reference["measures"]!.AsObject())
        {
            foreach (LoKrLayerValues values in AdapterValues.Measure(AdapterReference.OfFile(Path.Combine(folder, name))))
            {
                JsonNode expected = layers![values.Name]!;
                TensorAssert.Close(expected["frobenius"]!.GetValue<double>(), values.FrobeniusNorm, 1e-6, $"norm of {name} {values.Name}");
                TensorAssert.Close(expected["spectral"]!.GetValue<double>(), values.SpectralNorm, 1e-6, $"spectral norm of {name} {values.Name}");
                TensorAssert.Close(expected["stable_rank"]!.GetValue<double>(), values.StableRank, 1e-6, $"stable rank of {name} {values.Name}");
                TensorAssert.Close(expected["entropy_rank"]!.GetValue<double>(), values.EffectiveRank, 1e-6, $"effective rank of {name} {values.Name}");
            }
        }

        foreach ((string pair, JsonNode? expected) in reference["comparisons"]!.AsObject())
        {
            // The reference numbers relate distances to the second adapter.
            string[] names = pair.Split(',');
            AdapterComparison comparison = AdapterComparer.Compare(AdapterReference.OfFile(Path.Combine(folder, names[1])), AdapterReference.OfFile(Path.Combine(folder, names[0])));
            foreach ((string layer, JsonNode? numbers) in expected!["layers"]!.AsObject())
            {
                LoKrLayerComparison row = comparison.Layers.Single(row => row.Name == layer);
                Assert.Equal(numbers!["cosine"]!.GetValue<double>(), row.Cosine!.Value, 1e-6);
                TensorAssert.Close(numbers["relative_difference"]!.GetValue<double>(), row.RelativeDistance!.Value, 1e-6, $"distance of {pair} {layer}");
            }

            Assert.Equal(expected["all"]!["cosine"]!.GetValue<double>(), comparison.Total.Cosine!.Value, 1e-6);
            TensorAssert.Close(expected["all"]!["relative_difference"]!.GetValue<double>(), comparison.Total.RelativeDistance!.Value, 1e-6, $"distance of {pair}");
        }
    }

    [Fact]
    public void Norms_of_files_of_LyCORIS_are_those_of_its_deltas()
    {
        foreach (string name in (string[])["linear-both", "linear-rs", "linear-scalar", "linear-unbalanced", "conv1d", "conv2d-default", "conv2d-tucker", "conv3d"])
        {
            using DisposeScope scope = NewDisposeScope();
            using SafetensorsReader reader = SafetensorsReader.Open(Fixtures.Require("lycoris", name, "io.safetensors"));
            Tensor delta = reader.Read("delta", float64);
            LoKrLayerValues values = Assert.Single(AdapterValues.Measure(AdapterReference.OfFile(Fixtures.Require("lycoris", name, "adapter.safetensors"))));
            TensorAssert.Close(delta.norm().ToDouble(), values.FrobeniusNorm, 1e-5, name);
            TensorAssert.Close(linalg.svdvals(delta.reshape(delta.shape[0], -1))[0].ToDouble(), values.SpectralNorm, 1e-5, name);
        }
    }

    public void Dispose() => _folder.Dispose();

    private static LoKrModel Model(out LoKrAdapter adapter, string[] targets, string[]? saved = null)
    {
        manual_seed(3);
        LoKrModel model = new(TestNetworks.Decoder());
        adapter = model.AddAdapter(new() { R = 2, Alpha = 4, TargetModules = ModuleSelector.FromNames(targets), ModulesToSave = saved is null ? null : [.. saved] }, seed: 1);
        Fill(adapter, 4);
        return model;
    }

    private static void Fill(LoKrAdapter adapter, int seed, double size = 1)
    {
        manual_seed(seed);
        using IDisposable noGrad = no_grad();
        foreach (Tensor factor in adapter.Layers.SelectMany(static layer => layer.Factors.Tensors.Values))
        {
            factor.copy_(randn(factor.shape) * size);
        }
    }

    /// <summary>The weights of a model as files whose names have one more prefix, as those of a larger model have.</summary>
    private string WriteBase(LoKrModel model, string prefix)
    {
        string folder = Directory.CreateDirectory(Path.Combine(_folder.Path, "base")).FullName;
        SafetensorsWriter.Write(
            Path.Combine(folder, "model.safetensors"), model.GetBaseState().ToDictionary(entry => prefix + entry.Key, static entry => entry.Value, StringComparer.Ordinal));
        return folder;
    }
}
