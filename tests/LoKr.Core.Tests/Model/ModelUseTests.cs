using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.Testing;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

public sealed class ModelUseTests
{
    private static readonly TrainingOptions s_options = new() { MaxSteps = 3, BatchSize = 1, Seed = 1 };

    public static TheoryData<string> Names => [.. Operations.Keys];

    private static Dictionary<string, Action<LoKrModel>> Operations => new()
    {
        ["train"] = model => Train(model),
        ["measure"] = model => Evaluator.Evaluate(model, Task(), 1, TestContext.Current.CancellationToken),
        ["add"] = model => model.AddAdapter(Config(), "other"),
        ["check an addition"] = model => ((IAdaptable)model).CheckAddAdapter(Config(), "other"),
        ["check a merge"] = model => ((IAdaptable)model).CheckMerge(),
        ["activate"] = model => model.SetActiveAdapters(["default"]),
        ["enable"] = model => model.SetAdaptersEnabled(true),
        ["scale"] = model => model.SetAdapterScale(["default"], 1),
        ["merge"] = model => model.Merge(),
        ["merge a target"] = model => ((IAdaptable)model).Merge(),
        ["undo"] = model => model.UndoMerge(),
        ["move"] = model => model.MoveTo(dtype: ScalarType.Float32),
        ["export"] = model =>
        {
            using TempFolder folder = new();
            AdapterExporter.Export(model, "default", folder["adapter.safetensors"], AdapterLayout.Lycoris);
        },
        ["export a target"] = model =>
        {
            using TempFolder folder = new();
            AdapterExporter.Export((IAdaptable)model, "default", folder["adapter"], AdapterLayout.Peft);
        },
        ["read"] = model => model.BeginReading().Dispose(),
        ["remove"] = model => model.RemoveAdapter("default"),
    };

    [Theory]
    [MemberData(nameof(Names))]
    public void While_one_thread_trains_a_model_others_are_refused(string operation)
    {
        using LoKrModel model = Model();
        LoKrException? refused = null;
        LoKrException? dispose = null;
        using CustomLossTask task = new([1], (m, batch) =>
        {
            Thread other = new(() =>
            {
                refused ??= ErrorAssert.Throws(ErrorIds.ModelBusy, () => Operations[operation](model));
                dispose ??= ErrorAssert.Throws(ErrorIds.ModelBusy, model.Dispose);
            });
            other.Start();
            other.Join();
            return Loss(m, batch);
        });
        Assert.Equal("Completed", Trainer.Run(model, task, null, s_options, null, TestContext.Current.CancellationToken).StopReason);
        Assert.Same(model, refused!.Target);
        Assert.Contains("trained", refused.Message, StringComparison.Ordinal);
        Assert.NotNull(dispose);
        if (operation != "undo")
        {
            Operations[operation](model);
        }
    }

    [Fact]
    public void Several_threads_may_measure_a_model_but_none_may_train_it_then()
    {
        using LoKrModel model = Model();
        using EvaluationMode mine = new([model]);
        Exception? failure = null;
        Thread other = new(() => failure = Record.Exception(() =>
        {
            Evaluator.Evaluate(model, Task(), 1, TestContext.Current.CancellationToken);
            ErrorAssert.Throws(ErrorIds.ModelBusy, () => Train(model));
        }));
        other.Start();
        other.Join();
        Assert.Null(failure);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_disposed_model_says_so(string operation)
    {
        LoKrModel model = Model();
        model.Dispose();
        model.Dispose();
        Assert.True(model.IsDisposed);
        ErrorAssert.Throws(ErrorIds.ModelDisposed, () => Operations[operation](model));
    }

    [Fact]
    public void What_is_read_of_a_disposed_model_says_so()
    {
        LoKrModel model = Model();
        model.Dispose();
        Assert.Equal("Sequential", $"{model}");
        Action[] reads =
        [
            () => _ = model.Device, () => _ = model.DType, () => model.GetModules(), () => model.CountParameters(), () => model.GetBaseState(),
            () => model.GetAdapterStatus(), () => model.GetLayerStatus(), () => model.GetModelStatus(), () => model.GetAdapter("default"), () => model.GetOnlyActiveAdapter(),
        ];
        Assert.All(reads, read => ErrorAssert.Throws(ErrorIds.ModelDisposed, read));
    }

    private static LoKrConfig Config() => new() { R = 2, TargetModules = ModuleSelector.FromNames(["lin"]) };

    private static LoKrModel Model()
    {
        LoKrModel model = new(nn.Sequential(("lin", nn.Linear(4, 4))));
        model.AddAdapter(Config(), seed: 1);
        return model;
    }

    private static CustomLossTask Task() => new([1], Loss);

    private static void Train(LoKrModel model)
    {
        using CustomLossTask task = Task();
        Trainer.Run(model, task, null, s_options, null, TestContext.Current.CancellationToken);
    }

    private static Tensor Loss(LoKrModel model, object batch) => ((nn.Module<Tensor, Tensor>)model.Module).call(ones(2, 4)).square().mean();
}
