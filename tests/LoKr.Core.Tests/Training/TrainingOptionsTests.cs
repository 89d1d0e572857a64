using LoKr.Core.Errors;
using LoKr.Core.Training;
using Xunit;

namespace LoKr.Core.Tests.Training;

public sealed class TrainingOptionsTests
{
    public static TheoryData<string, TrainingOptions> Invalid => new()
    {
        { "Epochs", new() { Epochs = 0 } },
        { "MaxSteps", new() { MaxSteps = 0 } },
        { "BatchSize", new() { BatchSize = 0 } },
        { "LearningRate", new() { LearningRate = 0 } },
        { "LearningRate", new() { LearningRate = double.NaN } },
        { "HeadLearningRate", new() { HeadLearningRate = 0 } },
        { "WeightDecay", new() { WeightDecay = -1 } },
        { "Beta1", new() { Beta1 = 1 } },
        { "Beta2", new() { Beta2 = -0.1 } },
        { "Epsilon", new() { Epsilon = double.PositiveInfinity } },
        { "Schedule", new() { Schedule = (LearningRateSchedule)9 } },
        { "WarmupRatio", new() { WarmupRatio = 1.1 } },
        { "WarmupSteps", new() { WarmupSteps = -1 } },
        { "MaxGradientNorm", new() { MaxGradientNorm = -1 } },
        { "GradientAccumulation", new() { GradientAccumulation = 0 } },
        { "EvaluateEvery", new() { EvaluateEvery = 0 } },
        { "MaxLength", new() { MaxLength = 1 } },
        { "EvaluationBatchSize", new() { EvaluationBatchSize = 0 } },
    };

    [Theory]
    [MemberData(nameof(Invalid), DisableDiscoveryEnumeration = true)]
    public void A_value_out_of_range_is_named(string option, TrainingOptions options)
    {
        LoKrException e = Assert.Throws<LoKrException>(options.Validate);
        Assert.Equal(ErrorIds.TrainingOptionInvalid, e.ErrorId);
        Assert.StartsWith(option + " is ", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Defaults_are_valid() => new TrainingOptions().Validate();
}
