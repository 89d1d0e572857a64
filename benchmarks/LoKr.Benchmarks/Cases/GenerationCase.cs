using System.Text.Json.Nodes;
using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>Tokens a second of a decoder of four layers with a cache of keys and values: with an adapter on all linear layers, the adapter merged, and without.</summary>
internal sealed class GenerationCase : IBenchmarkCase
{
    private const int Prompt = 32;
    private const int Generated = 64;

    /// <inheritdoc/>
    public string Name => "generation";

    /// <inheritdoc/>
    public string Title => $"{Generated} tokens after a prompt of {Prompt}, greedy, Llama of 4 layers of 512, rank 8 on all linear layers";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        JsonObject config = JsonNode.Parse($$"""
            {
              "model_type": "llama", "vocab_size": {{RandomModel.Vocabulary}}, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4, "num_attention_heads": 8,
              "num_key_value_heads": 4, "max_position_embeddings": 512, "tie_word_embeddings": false
            }
            """)!.AsObject();
        string folder = RandomModel.Write(Path.Combine(context.Directory, "llama-4"), config);
        using LoKrModel adapted = Load(folder, context, withAdapter: true);
        using LoKrModel merged = Load(folder, context, withAdapter: true);
        using LoKrModel plain = Load(folder, context, withAdapter: false);
        merged.Merge();

        Variant[] variants = [Variant("with the adapter", adapted), Variant("merged", merged), Variant("without an adapter", plain)];
        double[][] times = context.Compare("greedy, cache on", variants, [new("with the adapter", "merged"), new("merged", "without an adapter")]);
        foreach ((Variant variant, double[] seconds) in variants.Zip(times))
        {
            context.Note(FormattableString.Invariant($"{variant.Name}: {Generated / Statistics.Median(seconds):0} tokens a second"));
        }
    }

    private static LoKrModel Load(string folder, BenchmarkContext context, bool withAdapter)
    {
        LoKrModel model = RandomModel.Load(folder, context.Device);
        if (withAdapter)
        {
            Adapters.Fill(model.AddAdapter(new() { R = 8, Alpha = 16, TargetModules = ModuleSelector.FromPattern("all-linear") }));
        }

        return model;
    }

    private static Variant Variant(string name, LoKrModel model)
    {
        int[] prompt = [.. Enumerable.Range(10, Prompt)];
        var language = (ICausalLanguageModel)model.Module;
        return new(name, () =>
        {
            using DisposeScope scope = NewDisposeScope();
            using IDisposable noGrad = no_grad();
            language.Generate(prompt, new() { MaxNewTokens = Generated });
        });
    }
}
