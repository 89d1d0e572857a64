using LoKr.Core.Configuration;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Training;

/// <summary>The loss by blocks of positions against torch's cross entropy over the logits of all of them.</summary>
public sealed class NextTokenLossTests
{
    private const int Positions = 37;

    [Theory]
    [InlineData(1)]
    [InlineData(8)]
    [InlineData(Positions)]
    [InlineData(64)]
    public void Loss_and_gradient_are_those_of_all_logits_at_once(int block)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = TinyLanguageModel.Create();
        Freeze(model);
        var language = (ICausalLanguageModel)model.Module;
        (Tensor hidden, Tensor targets) = Inputs();
        Tensor expected = nn.functional.cross_entropy(language.Project(hidden), targets);
        (expected * 0.3).backward();
        Tensor gradient = hidden.grad!.clone();
        hidden.grad = null;

        Tensor loss = NextTokenLoss.Mean(language, hidden, targets, block);
        (loss * 0.3).backward();
        TensorAssert.Close(expected, loss, 1e-6, "loss");
        TensorAssert.Close(gradient, hidden.grad!, 1e-5, "gradient");
        Tensor each = NextTokenLoss.Each(language, hidden, targets, block: block).Losses;
        TensorAssert.Close(nn.functional.cross_entropy(language.Project(hidden), targets, reduction: nn.Reduction.None), each, 1e-6, "losses");
        Assert.False(each.requires_grad);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_head_that_is_trained_gets_its_gradient(bool byAdapter)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = TinyLanguageModel.Create();
        model.AddAdapter(byAdapter
            ? new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["mix", "lm_head"]), InitWeights = InitWeights.Random }
            : new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["mix"]), ModulesToSave = ["lm_head"], InitWeights = InitWeights.Random }, seed: 1);
        var language = (ICausalLanguageModel)model.Module;
        (Tensor hidden, Tensor targets) = Inputs();
        Tensor[] expected = Gradients(nn.functional.cross_entropy(language.Project(hidden), targets));
        Tensor[] given = Gradients(NextTokenLoss.Mean(language, hidden, targets, block: 8));
        Assert.Contains(expected, static gradient => gradient.abs().max().ToDouble() > 0);
        foreach ((Tensor one, Tensor other) in expected.Zip(given))
        {
            TensorAssert.Close(one, other, 1e-5, "gradient");
        }

        Tensor[] Gradients(Tensor loss)
        {
            hidden.grad = null;
            foreach (FlatParameter flat in model.Adapters[0].FlatParameters)
            {
                flat.Gradient.zero_();
            }

            loss.backward();
            return [hidden.grad!.clone(), .. model.Adapters[0].FlatParameters.Select(static flat => flat.Gradient.clone())];
        }
    }

    [Fact]
    public void A_loss_that_is_not_finite_stays_so()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = TinyLanguageModel.Create();
        Freeze(model);
        (Tensor hidden, Tensor targets) = Inputs();
        Tensor broken = (hidden * double.NaN).detach().requires_grad_(true);
        Assert.True(double.IsNaN(NextTokenLoss.Mean((ICausalLanguageModel)model.Module, broken, targets, block: 8).ToDouble()));
    }

    private static void Freeze(LoKrModel model)
    {
        foreach (TorchSharp.Modules.Parameter parameter in model.Module.parameters())
        {
            parameter.requires_grad = false;
        }
    }

    private static (Tensor Hidden, Tensor Targets) Inputs()
    {
        using Generator seed = random.manual_seed(4);
        return (randn(Positions, 16).requires_grad_(true), randint(0, 130, [Positions]));
    }
}
