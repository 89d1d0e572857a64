using System.Globalization;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Training;

/// <summary>Rows that share a line of a batch against the same rows with a line each: losses and gradients, for every family of decoders.</summary>
public sealed class PackingTests
{
    public static TheoryData<string, string> Decoders => new()
    {
        { "transformers", "llama" }, { "transformers", "llama-tied" }, { "transformers", "mistral" }, { "transformers", "qwen2" }, { "transformers", "qwen3" }, { "transformers", "gpt2" },
        { "text", "gemma3_text" }, { "text", "gemma3_text-linear" }, { "text", "phi3" }, { "text", "phi3-longrope" }, { "text", "smollm3" }, { "text", "granite" }, { "text", "olmo2" }, { "text", "olmo3" },
    };

    [Theory]
    [MemberData(nameof(Decoders))]
    public void Packed_rows_have_the_loss_and_the_gradients_of_rows_in_lines_of_their_own(string set, string name)
    {
        using LoKrModel loaded = ModelLoader.Load(Fixtures.Require(set, name), new() { WithTokenizer = false });
        using LoKrModel model = new(loaded.Module, tokenizer: new NumberTokenizer());

        // Some rows are longer than the windows of the fixtures, and the longest line has several rows.
        int[] lengths = [21, 3, 9, 2, 14, 5, 6, 11, 2, 7];
        DataRow[] rows = [.. lengths.Select(static (length, row) => Row(string.Join(' ', Enumerable.Range(0, length).Select(i => 3 + (((row * 31) + (i * i * 7) + (i * 5)) % 40)))))];
        Compare(model, rows, maxLength: 24);
    }

    [Fact]
    public void Packed_rows_of_a_real_model_have_the_loss_and_the_gradients_of_rows_in_lines_of_their_own()
    {
        using LoKrModel model = ModelLoader.Load(Fixtures.RequireBeside("models", "debian-lm"));
        IReadOnlyList<DataRow> rows = DataReader.ReadFile(Fixtures.RequireBeside("data", "debian-lm", "gnu-r.train.jsonl"));
        Compare(model, [.. rows.Take(24)], maxLength: 128);
    }

    [Fact]
    public void A_text_of_a_line_has_the_hidden_states_that_it_has_alone()
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel model = ModelLoader.Load(Fixtures.Require("transformers", "mistral"), new() { WithTokenizer = false });
        using IDisposable noGrad = no_grad();
        model.Module.eval();
        var language = (IPackedLanguageModel)model.Module;
        long[][] texts = [[5, 9, 2, 7, 7, 3, 8, 4, 4, 6], [11, 3], [8, 8, 1, 12, 5]];
        Tensor packed = language.PackedHiddenStates(
            tensor(texts.SelectMany(static text => text).Append(0).ToArray()).unsqueeze(0),
            tensor(texts.SelectMany(static text => Enumerable.Range(0, text.Length)).Append(0).Select(static i => (long)i).ToArray()).unsqueeze(0));
        long start = 0;
        foreach (long[] text in texts)
        {
            TensorAssert.Close(language.HiddenStates(tensor(text).unsqueeze(0)), packed.narrow(1, start, text.Length), 1e-5, "hidden states");
            start += text.Length;
        }
    }

    private static void Compare(LoKrModel model, DataRow[] rows, int maxLength)
    {
        using DisposeScope scope = NewDisposeScope();
        ModuleSelector targets = ModuleSelector.FromPattern("all-linear");
        LoKrAdapter adapter = model.AddAdapter(new LoKrConfig { R = 2, Alpha = 4, TargetModules = targets, InitWeights = InitWeights.Random }, seed: 3);
        model.Module.eval();
        using CausalLanguageTask task = new(model, rows, maxLength);
        using ITrainingTask packed = task.Pack()!;
        Assert.Equal(rows.Length, packed.RowCount);
        Assert.True(packed.LineCount <= (rows.Length + 1) / 2);
        (Tensor loss, Tensor[] gradients) = Run(task);
        (Tensor packedLoss, Tensor[] packedGradients) = Run(packed);
        TensorAssert.Close(loss, packedLoss, 1e-5, "loss");
        foreach ((Tensor expected, Tensor actual) in gradients.Zip(packedGradients))
        {
            Assert.True(expected.abs().max().ToDouble() > 0);
            TensorAssert.Close(expected, actual, 1e-4, "gradients");
        }

        (Tensor, Tensor[]) Run(ITrainingTask one)
        {
            TrainingBatch batch = Assert.Single(one.Batches(new BatchOrder(rows.Length)));
            Assert.Equal(rows.Length, batch.RowCount);
            foreach (FlatParameter flat in adapter.FlatParameters)
            {
                flat.Gradient.zero_();
            }

            Tensor mean = one.Loss(model, batch);
            mean.backward();
            return (mean.detach(), [.. adapter.FlatParameters.Select(static flat => flat.Gradient.clone())]);
        }
    }

    private static DataRow Row(string text) => new(new Dictionary<string, object?> { ["text"] = text }, "object");

    /// <summary>Reads numbers as token ids.</summary>
    private sealed class NumberTokenizer : ITextTokenizer
    {
        public int VocabularySize => 64;

        public int? MaxLength => null;

        public int? PadId => 0;

        public int? BosId => null;

        public int? EosId => 1;

        public IReadOnlyList<string> SourceFiles => [];

        public IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true, int? maxLength = null) =>
            [.. text.Split(' ').Select(static number => int.Parse(number, CultureInfo.InvariantCulture)).Take(maxLength ?? int.MaxValue)];

        public IReadOnlyList<TextToken> Tokenize(string text, string? textPair = null, bool addSpecialTokens = true, int? maxLength = null) => throw new NotSupportedException();

        public IReadOnlyList<TextToken> TokenizeWords(IReadOnlyList<string> words, bool addSpecialTokens = true, int? maxLength = null) => throw new NotSupportedException();

        public IDecodeStream OpenDecodeStream(bool skipSpecialTokens = true) => throw new NotSupportedException();
    }
}
