using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Tests.Layers;
using LoKr.Core.Tests.Support;
using LoKr.Core.Training;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Model;

/// <summary>Five training steps of every network: PEFT's losses, and the parameters of the dense form.</summary>
public sealed class PeftTrainingTests
{
    public static TheoryData<string> Cases => PeftLayersTests.Cases;

    [Theory]
    [MemberData(nameof(Cases))]
    public void Five_SGD_steps_agree_with_PEFT(string name) => Train(name, "sgd", static adapter => () =>
    {
        using IDisposable noGrad = no_grad();
        foreach (FlatParameter flat in adapter.FlatParameters)
        {
            flat.Value.sub_(flat.Gradient * 0.05);
        }
    });

    [Theory]
    [MemberData(nameof(Cases))]
    public void Five_AdamW_steps_agree_with_PEFT(string name) => Train(name, "adamw", static adapter =>
    {
        FlatAdamW optimizer = new(adapter.FlatParameters, weightDecay: 0.01);
        return () => optimizer.Step(0.01);
    });

    /// <summary>
    /// The same steps in double precision against a second implementation: dense delta weights, one tensor a parameter,
    /// torch's own AdamW. (In single precision AdamW turns the sign of a rounding error into a whole step.)
    /// </summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public void Five_steps_equal_those_through_dense_delta_weights(string name)
    {
        using DisposeScope scope = NewDisposeScope();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        using LoKrModel model = reference.BuildModel();
        model.Module.to(float64);
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        (Tensor input, Tensor target) = (io["input"].to(float64), io["train_target"].to(float64));
        LoKrAdapter adapter = model.LoadAdapter(reference.Config, reference.AdapterTensors());
        Dictionary<string, Tensor> dense = adapter.GetTensors().ToDictionary(static pair => pair.Key, static pair => (Tensor)nn.Parameter(pair.Value.detach().clone()));
        using optim.Optimizer denseOptimizer = optim.AdamW(dense.Values.Cast<TorchSharp.Modules.Parameter>(), 0.01, weight_decay: 0.01);
        using FlatAdamW optimizer = new(adapter.FlatParameters, weightDecay: 0.01);
        Dictionary<string, Tensor> weights = model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone());
        for (int step = 0; step < 5; step++)
        {
            optimizer.ZeroGradients();
            nn.functional.mse_loss(PeftCase.Run(model, input), target).backward();
            optimizer.Step(0.01);

            denseOptimizer.zero_grad();
            Dictionary<string, Tensor> state = new(weights);
            foreach (string saved in dense.Keys.Where(weights.ContainsKey))
            {
                state[saved] = dense[saved];
            }

            foreach (LoKrLayer layer in adapter.Layers)
            {
                string weight = layer.ModuleName + ".weight";
                state[weight] += DenseForm.Delta(suffix => dense.GetValueOrDefault($"{layer.ModuleName}.{suffix}"), state[weight].shape, layer.Scaling);
            }

            nn.functional.mse_loss(RunDense(model, state, input), target).backward();
            denseOptimizer.step();
        }

        foreach ((string key, Tensor tensor) in adapter.GetTensors())
        {
            TensorAssert.Close(dense[key], tensor, 1e-8, key);
        }
    }

    private static Tensor RunDense(LoKrModel model, Dictionary<string, Tensor> state, Tensor x)
    {
        foreach ((string name, nn.Module module) in model.Module.named_children())
        {
            x = state.ContainsKey(name + ".weight")
                ? DenseForm.Run(module, x, state[name + ".weight"], state.GetValueOrDefault(name + ".bias"))
                : ((nn.Module<Tensor, Tensor>)module).call(x);
        }

        return x;
    }

    private static void Train(string name, string optimizer, Func<LoKrAdapter, Action> prepare)
    {
        using DisposeScope scope = NewDisposeScope();
        PeftCase reference = PeftCase.Open("peft-layers", name);
        using LoKrModel model = reference.BuildModel();
        Dictionary<string, Tensor> io = reference.Tensors("io.safetensors");
        Dictionary<string, Tensor> start = reference.AdapterTensors();
        LoKrAdapter adapter = model.LoadAdapter(reference.Config, start);
        Action step = prepare(adapter);
        double[] losses = reference.Losses(optimizer);
        Assert.Equal(5, losses.Length);
        foreach (double expected in losses)
        {
            adapter.FlatParameters.ToList().ForEach(static flat => flat.Gradient.zero_());
            Tensor loss = nn.functional.mse_loss(PeftCase.Run(model, io["input"]), io["train_target"]);
            loss.backward();
            if (double.IsNaN(expected))
            {
                // One case diverges by SGD in the reference too.
                Assert.False(double.IsFinite(loss.ToDouble()));
                return;
            }

            TensorAssert.Close(expected, loss.ToDouble(), TensorAssert.Model, "loss");
            step();
        }

        // Fixtures whose after_* tensors are the starting values say nothing about training; the losses and the dense form do.
        IReadOnlyDictionary<string, Tensor> tensors = adapter.GetTensors();
        if (tensors.Keys.All(key => io[After(optimizer, key)].equal(start[key]).all().ToBoolean()))
        {
            Assert.All(tensors, pair => Assert.False(pair.Value.equal(start[pair.Key]).all().ToBoolean(), pair.Key));
            return;
        }

        foreach ((string key, Tensor tensor) in tensors)
        {
            TensorAssert.Close(io[After(optimizer, key)], tensor, TensorAssert.Layer, key);
        }
    }

    private static string After(string optimizer, string key) => $"after_{optimizer}.{PeftCase.InMemoryName(key)}";
}
