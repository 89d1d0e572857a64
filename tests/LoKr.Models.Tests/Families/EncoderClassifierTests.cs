using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Support;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Families;

/// <summary>Behavior of the encoders that holds for any weights.</summary>
public sealed class EncoderClassifierTests
{
    public static TheoryData<string> Families() => ["bert", "roberta", "distilbert", "xlm-roberta", "mpnet", "electra", "albert", "modernbert", "deberta-v2"];

    [Theory]
    [MemberData(nameof(Families))]
    public void Padding_does_not_change_the_logits(string family)
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = Build(family);
        using IDisposable noGrad = no_grad();
        ISequenceClassifier model = (ISequenceClassifier)module;
        Tensor ids = tensor([2L, 9, 8, 3]).view(1, 4);
        Tensor padded = cat([ids, full(1, 4, PadId(family), ScalarType.Int64)], 1);
        Tensor mask = cat([ones(1, 4, ScalarType.Int64), zeros(1, 4, ScalarType.Int64)], 1);
        TensorAssert.Close(model.Classify(ids, ones_like(ids)), model.Classify(padded, mask), 1e-5, family);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Dropout_acts_in_training_only(string family)
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = Build(family);
        using IDisposable noGrad = no_grad();
        ISequenceClassifier model = (ISequenceClassifier)module;
        (Tensor ids, Tensor mask) = TinyModel.Batch();

        // So many rows that two passes in training do not drop the same places of all by chance.
        (ids, mask) = (ids.repeat(64, 1), mask.repeat(64, 1));
        Tensor first = model.Classify(ids, mask);
        Assert.True(TensorAssert.Same(first, model.Classify(ids, mask)));
        module.train();
        Assert.False(TensorAssert.Same(model.Classify(ids, mask), model.Classify(ids, mask)));
        module.eval();
        Assert.True(TensorAssert.Same(first, model.Classify(ids, mask)));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Live_tensors_stay_flat_over_twenty_forwards_and_backwards(string family)
    {
        using nn.Module module = Build(family);
        ISequenceClassifier model = (ISequenceClassifier)module;
        Step();
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (int i = 0; i < 20; i++)
        {
            Step();
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);

        void Step()
        {
            using DisposeScope scope = NewDisposeScope();
            (Tensor ids, Tensor mask) = TinyModel.Batch();
            Tensor logits = model.Classify(ids, mask);
            logits.sum().backward();
            module.zero_grad(set_to_none: true);
        }
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Every_linear_layer_runs_through_its_hooks(string family)
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = Build(family);
        HashSet<string> fired = [];
        List<string> linears = [];
        foreach ((string name, nn.Module child) in module.named_modules())
        {
            if (child is TorchSharp.Modules.Linear linear)
            {
                linears.Add(name);
                linear.register_forward_hook((_, _, output) =>
                {
                    fired.Add(name);
                    return output;
                });
            }
        }

        (Tensor ids, Tensor mask) = TinyModel.Batch();
        ((ISequenceClassifier)module).Classify(ids, mask);
        Assert.NotEmpty(linears);
        Assert.Equal(linears.Order(StringComparer.Ordinal), fired.Order(StringComparer.Ordinal));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Batches_that_do_not_fit_are_errors(string family)
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = Build(family);
        ISequenceClassifier model = (ISequenceClassifier)module;
        Tensor longest = full(1, model.MaxSequenceLength, 5, ScalarType.Int64);
        Assert.Equal([1, 2], model.Classify(longest, ones_like(longest)).shape);
        Tensor tooLong = full(1, model.MaxSequenceLength + 1, 5, ScalarType.Int64);
        if (family is "modernbert" or "deberta-v2")
        {
            // Rotations and distances have no end.
            Assert.Equal([1, 2], model.Classify(tooLong, ones_like(tooLong)).shape);
        }
        else
        {
            ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Classify(tooLong, ones_like(tooLong)), $"{model.MaxSequenceLength}");
        }

        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Classify(longest, ones(1, 2, ScalarType.Int64)));
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Classify(longest.to_type(ScalarType.Float32), longest));
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Classify(longest[0], longest[0]));
        Tensor unknown = full(1, 3, 40, ScalarType.Int64);
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Classify(unknown, ones_like(unknown)), "39");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Classify(-unknown, ones_like(unknown)), "39");
    }

    [Fact]
    public void Roberta_counts_positions_from_the_padding_id() => Assert.Equal(10, MaxLength("roberta"));

    [Fact]
    public void Bert_has_as_many_positions_as_its_table() => Assert.Equal(12, MaxLength("bert"));

    [Fact]
    public void Token_types_choose_the_segment()
    {
        using DisposeScope scope = NewDisposeScope();
        using nn.Module module = Build("bert");
        using IDisposable noGrad = no_grad();
        ISequenceClassifier model = (ISequenceClassifier)module;
        (Tensor ids, Tensor mask) = TinyModel.Batch();
        Tensor without = model.Classify(ids, mask);
        Assert.True(TensorAssert.Same(without, model.Classify(ids, mask, zeros_like(ids))));
        Assert.False(TensorAssert.Same(without, model.Classify(ids, mask, ones_like(ids))));
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Classify(ids, mask, full_like(ids, 2)), "between 0 and 1");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => model.Classify(ids, mask, zeros(1, 2, ScalarType.Int64)), "token types");
        using nn.Module plain = Build("mpnet");
        ErrorAssert.Throws(ErrorIds.ModelInputInvalid, () => ((ISequenceClassifier)plain).Classify(ids, mask, zeros_like(ids)), "no token types");
    }

    /// <summary>A random model of a family, with gradients.</summary>
    internal static nn.Module Build(string family)
    {
        JsonObject config = TinyModel.BertConfig();
        config["model_type"] = family;
        config["pad_token_id"] = PadId(family);
        config["embedding_size"] = family is "electra" or "albert" ? 4 : null;
        config["position_biased_input"] = false;
        config["classifier_dropout"] = 0.1;
        config["dim"] = 8;
        config["n_layers"] = 1;
        config["n_heads"] = 2;
        config["hidden_dim"] = 16;
        nn.Module module = ModelLoader.Build(new ModelConfig(config), new ModelBuildOptions { Device = CPU });
        using Generator generator = new(11, CPU);
        foreach (TorchSharp.Modules.Parameter parameter in module.parameters())
        {
            parameter.normal_(0, 0.3, generator);
            parameter.requires_grad = true;
        }

        return module;
    }

    private static int MaxLength(string family)
    {
        using nn.Module module = Build(family);
        return ((ISequenceClassifier)module).MaxSequenceLength;
    }

    private static long PadId(string family) => family is "roberta" or "xlm-roberta" or "mpnet" ? 1 : 0;
}
