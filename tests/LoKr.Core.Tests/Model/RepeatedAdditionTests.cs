using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Model;

/// <summary>An adapter without values worth keeping can be added again, so that a program whose training failed runs again as it stands.</summary>
public sealed class RepeatedAdditionTests
{
    private static readonly LoKrConfig s_query = new() { R = 2, Alpha = 2, TargetModules = ModuleSelector.FromNames(["q_proj"]) };

    [Fact]
    public void The_same_addition_starts_the_adapter_afresh_in_its_place_where_that_is_asked_for()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrAdapter first = model.AddAdapter(s_query, "a", seed: 1);
        model.AddAdapter(s_query, "b", seed: 2);
        float[] expected = [.. first.FlatParameters[0].Value.data<float>()];
        ErrorAssert.Throws(ErrorIds.AdapterExists, () => model.AddAdapter(s_query, "a", seed: 1), "'a'");
        LoKrAdapter second = model.AddAdapter(s_query with { RankPattern = [] }, "a", seed: 1, restart: true);
        Assert.NotSame(first, second);
        Assert.Equal(expected, second.FlatParameters[0].Value.data<float>());
        Assert.Equal(["a"], model.ActiveAdapters);
        Assert.Equal(["a", "b"], model.Adapters.Select(static adapter => adapter.Name).Order());
    }

    [Fact]
    public void Another_configuration_a_merged_and_a_loaded_adapter_are_not_replaced()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        LoKrAdapter adapter = model.AddAdapter(s_query, "a", seed: 1);
        ErrorAssert.Throws(ErrorIds.AdapterExists, () => model.AddAdapter(s_query with { R = 3 }, "a", restart: true), "'a'");
        model.LoadAdapter(adapter.Config, adapter.GetTensors(), "loaded");
        ErrorAssert.Throws(ErrorIds.AdapterExists, () => model.AddAdapter(s_query, "loaded", restart: true), "'loaded'");
        model.Merge();
        ErrorAssert.Throws(ErrorIds.AdapterExists, () => model.AddAdapter(s_query, "a", restart: true), "'a'");
    }

    [Fact]
    public void A_check_refuses_what_the_addition_refuses_and_changes_nothing()
    {
        using LoKrModel model = new(TestNetworks.Decoder());
        model.CheckAddAdapter(s_query, "a", restart: false);
        Assert.Empty(model.Adapters);
        ErrorAssert.Throws(ErrorIds.TargetModuleNotFound, () => ((IAdaptable)model).CheckAddAdapter(s_query with { TargetModules = ModuleSelector.FromNames(["none"]) }));
        ErrorAssert.Throws(ErrorIds.AdapterNameInvalid, () => ((IAdaptable)model).CheckAddAdapter(s_query, "a*"));
    }
}
