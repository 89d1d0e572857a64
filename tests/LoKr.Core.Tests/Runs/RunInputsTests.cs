using LoKr.Core.Model;
using LoKr.Core.Runs;
using Xunit;

namespace LoKr.Core.Tests.Runs;

public sealed class RunInputsTests
{
    private static readonly RunInputs s_inputs = new()
    {
        Data = "1", ValidationData = "2", BaseModel = "3", ModelSettings = "4", Configuration = "5", StartAdapter = "6",
    };

    [Fact]
    public void Differences_have_the_names_that_messages_have_and_the_values_of_the_adapter_are_none()
    {
        Assert.Empty(s_inputs.DifferencesFrom(s_inputs with { StartAdapter = "7" }));
        Assert.Equal(["data", "configuration"], s_inputs.DifferencesFrom(s_inputs with { Data = null, Configuration = "0" }));
        Assert.Equal(["validation data", "base model", "configuration of the model"],
            (s_inputs with { ValidationData = null, BaseModel = "0", ModelSettings = null }).DifferencesFrom(s_inputs));
    }

    [Fact]
    public void A_run_that_an_earlier_version_began_has_no_settings_to_compare() =>
        Assert.Empty(s_inputs.DifferencesFrom(s_inputs with { ModelSettings = null }));

    [Fact]
    public void A_training_is_complete_for_two_reasons_only() =>
        Assert.Equal(
            [StopReasons.Completed, StopReasons.EarlyStopped],
            new[] { StopReasons.Completed, StopReasons.EarlyStopped, StopReasons.TimeLimit, StopReasons.Canceled, StopReasons.Diverged, StopReasons.Signal, StopReasons.Stopped }
                .Where(StopReasons.IsComplete));
}
