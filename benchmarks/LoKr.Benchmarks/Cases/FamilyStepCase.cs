using System.Text.Json.Nodes;
using LoKr.Benchmarks.Harness;
using LoKr.Benchmarks.References;
using LoKr.Core.Configuration;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>
/// Whole training steps of every family of text models, as classifier or language model: LoKr and LoRA of equal rank on all linear layers, LoRA by the
/// operations of PEFT, and the head alone. Four layers of 384; the head of a classifier is trained in all four, that of a language model (its output
/// embeddings) in the last.
/// </summary>
internal sealed class FamilyStepCase : IBenchmarkCase
{
    private const int Rank = 8;
    private const int BatchSize = 16;
    private const int Length = 64;

    private const string Encoder = """
        "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 12, "max_position_embeddings": 512, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0
        """;

    private const string Decoder = """
        "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 512, "tie_word_embeddings": false
        """;

    private static readonly (string Type, string Keys)[] s_families =
    [
        ("bert", Encoder),
        ("roberta", Encoder),
        ("xlm-roberta", Encoder),
        ("distilbert", "\"dim\": 384, \"hidden_dim\": 1536, \"n_layers\": 4, \"n_heads\": 12, \"dropout\": 0, \"attention_dropout\": 0, \"seq_classif_dropout\": 0"),
        ("modernbert", Encoder + ", \"local_attention\": 64, \"global_attn_every_n_layers\": 2, \"pad_token_id\": 1"),
        ("deberta-v2", Encoder + ", \"relative_attention\": true, \"pos_att_type\": \"c2p|p2c\", \"share_att_key\": true, \"norm_rel_ebd\": \"layer_norm\", \"position_buckets\": 32, \"position_biased_input\": false"),
        ("mpnet", Encoder),
        ("electra", Encoder + ", \"embedding_size\": 128"),
        ("albert", Encoder + ", \"embedding_size\": 128"),
        ("llama", Decoder),
        ("mistral", Decoder),
        ("qwen2", Decoder),
        ("qwen3", Decoder),
        ("gemma3_text", Decoder + ", \"sliding_window\": 32, \"sliding_window_pattern\": 2"),
        ("phi3", Decoder),
        ("smollm3", Decoder),
        ("granite", Decoder),
        ("olmo2", Decoder),
        ("olmo3", Decoder + ", \"sliding_window\": 32"),
        ("gpt2", "\"n_embd\": 384, \"n_layer\": 4, \"n_head\": 6, \"n_positions\": 512, \"tie_word_embeddings\": false, \"embd_pdrop\": 0, \"attn_pdrop\": 0, \"resid_pdrop\": 0"),
    ];

    /// <inheritdoc/>
    public string Name => "family-step";

    /// <inheritdoc/>
    public string Title => $"training step of every text family on all linear layers, 4 layers of 384, batch {BatchSize} x {Length} tokens, rank {Rank}";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        foreach ((string type, string keys) in s_families)
        {
            JsonObject config = JsonNode.Parse($$"""{"model_type": "{{type}}", "vocab_size": {{RandomModel.Vocabulary}}, {{keys}}}""")!.AsObject();
            Compare(context, type, RandomModel.Write(Path.Combine(context.Directory, type), config));
        }
    }

    private static void Compare(BenchmarkContext context, string type, string folder)
    {
        using DisposeScope scope = NewDisposeScope();
        using LoKrModel lokrModel = RandomModel.Load(folder, context.Device);
        using LoKrModel loraModel = RandomModel.Load(folder, context.Device);
        using LoKrModel peftModel = RandomModel.Load(folder, context.Device);
        using LoKrModel headModel = RandomModel.Load(folder, context.Device);
        string head = lokrModel.Pretrained is ICausalLanguageModel language ? language.OutputEmbeddingsName! : "classifier";
        bool trainsHead = lokrModel.Pretrained is ISequenceClassifier;

        // PEFT's all-linear leaves out GPT-2's Conv1D.
        ModuleSelector targets = type == "gpt2" ? ModuleSelector.FromNames(["c_attn", "c_proj", "c_fc"]) : ModuleSelector.FromPattern("all-linear");

        // The name of DistilBERT's other layer of the head ends like it, so that both are trained whole.
        ModuleSelector? excluded = type == "distilbert" ? ModuleSelector.FromNames(["pre_classifier"]) : null;
        LoKrConfig config = new() { R = Rank, Alpha = 2 * Rank, TargetModules = targets, ExcludeModules = excluded, ModulesToSave = trainsHead ? [head] : null };
        Adapters.Fill(lokrModel.AddAdapter(config));
        using FlatAdamW lokrOptimizer = new(lokrModel.Adapters[0].FlatParameters);
        LoKrConfig headOnly = new() { TargetModules = ModuleSelector.FromNames([]), ModulesToSave = [head] };
        string[] adapted = [.. lokrModel.Adapters[0].Layers.Select(static layer => layer.ModuleName)];
        using LoraReference lora = LoraReference.On(loraModel, adapted, Rank, 2);
        using FlatAdamW loraOptimizer = new([lora.Parameters, .. Head(loraModel)]);
        using LoraReference peft = LoraReference.On(peftModel, adapted, Rank, 2, asPeft: true);
        using FlatAdamW peftOptimizer = new([peft.Parameters, .. Head(peftModel)]);
        using FlatAdamW headOptimizer = new(headModel.AddAdapter(headOnly).FlatParameters);

        context.Compare(
            $"{type}, {adapted.Length} layers",
            [
                Step("LoKr", lokrModel, lokrOptimizer), Step("LoRA", loraModel, loraOptimizer), Step("PEFT's LoRA", peftModel, peftOptimizer),
                Step("head alone", headModel, headOptimizer),
            ],
            [new("LoKr", "LoRA", 1.05), new("LoKr", "PEFT's LoRA", 1.05), new("LoKr", "head alone")],
            weight: 3);

        FlatParameter[] Head(LoKrModel model) => trainsHead ? [model.AddAdapter(headOnly).FlatParameters[0]] : [];
    }

    private static Variant Step(string name, LoKrModel model, FlatAdamW optimizer)
    {
        ITrainingTask task = TrainingTaskFactory.Create(model, RandomModel.Rows(BatchSize, Length), Length);
        TrainingBatch batch = task.Batches(new BatchOrder(BatchSize)).Single();
        model.Module.train();
        return new(name, () => TrainingStep.Run(optimizer, () => task.Loss(model, batch)));
    }
}
