using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Core.Training;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Training;

/// <summary>Costs of a configuration, counted from shapes.</summary>
public sealed class AdapterCostTests
{
    [Fact]
    public void The_cost_is_that_of_the_adapter_which_is_added()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrConfig config = new() { R = 2, Alpha = 4, TargetModules = ModuleSelector.FromNames(["q_proj", "up_proj"]), ModulesToSave = ["lm_head"] };
        AdapterCost cost = AdapterCosts.Measure(model, config);
        Assert.Empty(model.Adapters);

        LoKrAdapter adapter = model.AddAdapter(config, seed: 1);
        Assert.Equal(adapter.ParameterCount, cost.Total.ParameterCount);
        Assert.Equal(cost.Total.ParameterCount, cost.Modules.Sum(static module => module.ParameterCount));
        Assert.Equal((4, 0, 1), (cost.Total.LayerCount, cost.Total.NormCount, cost.Total.SavedModuleCount));
        Assert.Equal([.. adapter.Layers.Select(static layer => layer.ModuleName), "lm_head"], cost.Modules.Select(static module => module.Name));
        Assert.Equal(adapter.Layers.Select(static layer => layer.Shapes.ToString()), cost.Modules.SkipLast(1).Select(static module => module.FactorShapes));
        Assert.Equal(4 * adapter.ParameterCount, cost.Total.ParameterBytes);
        Assert.Equal(4 * adapter.ParameterCount, cost.Total.GradientBytes);
        using NoData task = new();
        Assert.Equal(Trainer.Plan(model, task, new TrainingOptions()).OptimizerBytes, cost.Total.TotalBytes);
        Assert.Equal(model.CountParameters().TrainablePercent, cost.Total.TrainablePercent, 1e-9);
    }

    [Fact]
    public void Measuring_needs_no_weights_and_allocates_no_factors()
    {
        using LoKrModel model = new(TestNetworks.Decoder(device: META));
        AdapterCost cost = AdapterCosts.Measure(model, new LoKrConfig { R = 2 });
        Assert.Equal("q_proj, v_proj", cost.Total.TargetModules);
        Assert.Equal(4, cost.Total.LayerCount);
        Assert.Empty(model.Adapters);
        Assert.Equal(ErrorIds.TargetModuleNotFound, Assert.Throws<LoKrException>(() => AdapterCosts.Measure(model, new() { TargetModules = ModuleSelector.FromNames(["none"]) })).ErrorId);
    }

    [Fact]
    public void Frozen_weights_take_two_products_in_a_step_and_factors_three()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        AdapterCost cost = AdapterCosts.Measure(model, new LoKrConfig { R = 2 });
        double weights = (2 * ((2 * 12 * 12) + (2 * 12 * 24))) + (12 * 12);
        Assert.Equal(weights, cost.Total.ModelMultiplyAdds);
        Assert.Equal(2 * weights, cost.Total.ModelStepMultiplyAdds);
        Assert.Equal(3 * cost.Total.MultiplyAdds, cost.Total.StepMultiplyAdds);
        Assert.All(cost.Modules, static module => Assert.Equal(12 * 12, module.BaseMultiplyAdds));
    }

    /// <summary>Sizes of 16 and more, for which the cheapest order is the one with the fewest multiply-adds.</summary>
    [Fact]
    public void Multiply_adds_are_those_of_the_cheapest_order()
    {
        // w1 32×32, w2 64×64: 32·32·64 + 64·64·32 for each token.
        Assert.Equal(100 * 196_608, FactorWork.Forward(new(32, 32, 64, 64, [], 8, false, false, false), 100));

        // w2 of rank 16: down 64·16·32, across 32·32·16, up 16·64·32.
        Assert.Equal(100 * 81_920, FactorWork.Forward(new(32, 32, 64, 64, [], 16, false, true, false), 100));

        // A convolution of 3×3 with a w1 of one number: down over the kernel, w1 on the rank, up.
        Assert.Equal(100 * ((64 * 16 * 9) + 16 + (16 * 128)), FactorWork.Forward(new(1, 1, 128, 64, [3, 3], 16, false, true, false), 100));

        // With a core: down, over the kernel from rank to rank, up; w1 between.
        Assert.Equal(100 * ((64 * 16) + 16 + (16 * 16 * 9) + (16 * 128)), FactorWork.Forward(new(1, 1, 128, 64, [3, 3], 16, false, true, true), 100));

        // A row of an embedding: a row of each factor, and their product.
        Assert.Equal((16 * 64) + (32 * 64), FactorWork.Row(new(32, 32, 64, 64, [], 16, false, true, false)));
    }

    private sealed class NoData : ITrainingTask
    {
        public string Unit => "rows";

        public int RowCount => 1;

        public TrainingMetric Metric => TrainingMetric.None;

        public IReadOnlyList<string> Warnings => [];

        public int CountBatches(int batchSize) => 1;

        public long LargestBatch(int batchSize) => 1;

        public IEnumerable<TrainingBatch> Batches(BatchOrder order) => [];

        public Tensor Loss(LoKrModel model, TrainingBatch batch) => throw new NotSupportedException();

        public BatchScore Score(LoKrModel model, TrainingBatch batch) => throw new NotSupportedException();

        public void Dispose()
        {
        }
    }
}
