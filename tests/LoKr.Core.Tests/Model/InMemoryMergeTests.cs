using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Model;
using LoKr.Core.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

public sealed class InMemoryMergeTests
{
    private static readonly LoKrConfig s_config = new() { R = 2, TargetModules = ModuleSelector.FromNames(["q_proj", "v_proj"]), InitWeights = InitWeights.Random };

    [Fact]
    public void Undoing_merges_made_one_after_the_other_restores_every_bit()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Decoder());
        Dictionary<string, Tensor> before = State(model);
        model.AddAdapter(s_config, "a");
        model.AddAdapter(s_config with { TargetModules = ModuleSelector.FromNames(["q_proj"]) }, "b");
        model.SetActiveAdapters(["a", "b"]);
        Tensor x = randn(3, 12);
        Tensor both = PeftCase.Run(model, x).detach();
        model.SetActiveAdapters(["a"]);
        Tensor alone = PeftCase.Run(model, x).detach();
        model.SetActiveAdapters(["a", "b"]);

        LoKrMergeResult first = model.Merge(["a"]);
        Assert.Equal((4, 0), (first.ModuleCount, first.SavedModuleCount));
        Assert.Contains("'b'", Assert.Single(first.Warnings), StringComparison.Ordinal);
        TensorAssert.Close(alone, PeftCase.Run(model, x), 1e-5, "a merged, b rests");
        LoKrMergeResult second = model.Merge(["a", "b"]);
        Assert.Equal(["b"], second.Adapters);
        Assert.Equal(2, second.ModuleCount);
        Assert.Empty(second.Warnings);
        Assert.Equal(["a", "b"], model.MergedAdapters);
        TensorAssert.Close(both, PeftCase.Run(model, x), 1e-5, "both merged");
        Assert.Equal(ErrorIds.NothingToMerge, Assert.Throws<LoKrException>(() => model.Merge()).ErrorId);
        Assert.Equal(ErrorIds.AdapterMerged, Assert.Throws<LoKrException>(() => model.RemoveAdapter("a")).ErrorId);

        model.SetActiveAdapters(["a", "b"]);
        Assert.Empty(model.MergedAdapters);
        AssertSame(before, State(model));
        TensorAssert.Close(both, PeftCase.Run(model, x), 1e-6, "undone");
        Assert.Equal(ErrorIds.NothingToMerge, Assert.Throws<LoKrException>(model.UndoMerge).ErrorId);
    }

    [Fact]
    public void A_merge_that_is_canceled_changes_nothing()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Decoder());
        model.AddAdapter(s_config);
        Dictionary<string, Tensor> before = State(model);
        Assert.Throws<OperationCanceledException>(() => model.Merge(cancellationToken: new CancellationToken(canceled: true)));
        Assert.Empty(model.MergedAdapters);
        AssertSame(before, State(model));
        Assert.Equal(4, model.Merge(cancellationToken: TestContext.Current.CancellationToken).ModuleCount);
    }

    [Theory]
    [InlineData(double.NaN)]
    [InlineData(double.PositiveInfinity)]
    public void A_safe_merge_refuses_what_is_not_finite_and_changes_nothing(double value)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Decoder());
        Dictionary<string, Tensor> before = State(model);
        LoKrAdapter adapter = model.AddAdapter(s_config);
        using (no_grad())
        {
            adapter.Layers[^1].Factors.Tensors[FactorNames.W1][0, 0] = value;
        }

        LoKrException error = Assert.Throws<LoKrException>(() => model.Merge(safe: true));
        Assert.Equal(ErrorIds.MergeNotFinite, error.ErrorId);
        Assert.Equal(adapter.Layers[^1].ModuleName, error.Target);
        Assert.Empty(model.MergedAdapters);
        AssertSame(before, State(model));
        model.Merge();
        Assert.Equal(["default"], model.MergedAdapters);
    }

    [Fact]
    public void Nothing_to_merge_is_an_error_and_disabling_takes_a_merge_back()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Decoder());
        Assert.Equal(ErrorIds.NothingToMerge, Assert.Throws<LoKrException>(() => model.Merge()).ErrorId);
        Dictionary<string, Tensor> before = State(model);
        Tensor x = randn(3, 12);
        Tensor plain = PeftCase.Run(model, x).detach();
        model.AddAdapter(s_config);
        model.Merge();
        model.SetAdaptersEnabled(false);
        AssertSame(before, State(model));
        Assert.True(PeftCase.Run(model, x).equal(plain).all().ToBoolean());
        Assert.Equal(ErrorIds.AdaptersDisabled, Assert.Throws<LoKrException>(() => model.Merge()).ErrorId);
        Assert.Equal(ErrorIds.AdapterNotFound, Assert.Throws<LoKrException>(() => model.Merge(["nope"])).ErrorId);
    }

    [Fact]
    public void A_check_refuses_what_a_merge_refuses_and_changes_nothing()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = new(TestNetworks.Decoder());
        IAdaptable target = model;
        ErrorAssert.Throws(ErrorIds.NothingToMerge, () => target.CheckMerge());
        ErrorAssert.Throws(ErrorIds.NothingToMerge, target.CheckUndoMerge);
        LoKrAdapter adapter = model.AddAdapter(s_config);
        Dictionary<string, Tensor> before = State(model);
        target.CheckMerge(safe: true);
        ErrorAssert.Throws(ErrorIds.AdapterNotFound, () => target.CheckMerge(["nope"]));
        Assert.Throws<OperationCanceledException>(() => target.CheckMerge(cancellationToken: new CancellationToken(canceled: true)));
        using (no_grad())
        {
            adapter.Layers[^1].Factors.Tensors[FactorNames.W1][0, 0] = double.NaN;
        }

        target.CheckMerge();
        Assert.Equal(adapter.Layers[^1].ModuleName, ErrorAssert.Throws(ErrorIds.MergeNotFinite, () => target.CheckMerge(safe: true)).Target);
        Assert.Empty(model.MergedAdapters);
        AssertSame(before, State(model));
        model.Merge();
        target.CheckUndoMerge();
        ErrorAssert.Throws(ErrorIds.NothingToMerge, () => target.CheckMerge());
        Assert.Equal(["default"], model.MergedAdapters);
    }

    private static Dictionary<string, Tensor> State(LoKrModel model) =>
        model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone(), StringComparer.Ordinal);

    private static void AssertSame(Dictionary<string, Tensor> expected, Dictionary<string, Tensor> actual) =>
        Assert.All(expected, pair => Assert.True(pair.Value.equal(actual[pair.Key]).all().ToBoolean(), pair.Key));
}
