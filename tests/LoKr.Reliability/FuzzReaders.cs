using System.IO.Compression;
using System.Text;
using System.Text.Json.Nodes;
using Google.Protobuf;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Gguf;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Parquet.Serialization;
using SkiaSharp;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Reliability;

/// <summary>A reader of files, with valid files of its kind and the call that reads one of a folder.</summary>
/// <param name="Name">Name for reports.</param>
/// <param name="File">Name of the file in the folder.</param>
/// <param name="Share">Cases relative to other readers: slow readers get fewer.</param>
/// <param name="Prepare">Puts the files beside it into the folder, and returns valid files.</param>
/// <param name="Read">Reads the file of the folder.</param>
internal sealed record FuzzReader(string Name, string File, int Share, Func<string, IReadOnlyList<byte[]>> Prepare, Action<string> Read)
{
    public static IReadOnlyList<FuzzReader> All { get; } =
    [
        new("safetensors", "x.safetensors", 12, static folder => [Tensors(folder, type: float32), Tensors(folder, type: bfloat16)], ReadTensors),
        new("quantized weights", "model.safetensors", 8, static _ => [.. Quantized()], ReadQuantized),
        new("GGUF", "x.gguf", 12, static _ => [TinyGguf.Create(), TinyGguf.Create(alignment: 64)], ReadGguf),
        new("checkpoint index", "model.safetensors.index.json", 4, static folder => Index(folder), static folder => CheckpointReader.Open(folder).Dispose()),
        .. Enum.GetValues<AdapterLayout>().Select(static layout => new FuzzReader($"adapter, {layout}", "x.safetensors", 3, folder => [Adapter(folder, layout)], static folder => ReadAdapter(Path.Combine(folder, "x.safetensors")))),
        new("names of an adapter for a single file", "x.safetensors", 6, static folder => PrepareNames(folder, "x.safetensors"), MergeNames),
        new("names of a single file", "base.safetensors", 4, static folder => PrepareNames(folder, "base.safetensors"), MergeNames),
        new("adapter of PEFT with its configuration", "adapter_model.safetensors", 3, PreparePeft, static folder => ReadAdapter(folder)),
        new("adapter_config.json", "adapter_config.json", 8, static folder => [PreparePeft(folder, "adapter_config.json"), .. Configurations()], ReadAdapterConfig),
        new("adapter_config.json of LoRA", "adapter_config.json", 4, static folder => PrepareLora(folder, "adapter_config.json"), MergeLora),
        new("LoRA of PEFT", "adapter_model.safetensors", 4, static folder => PrepareLora(folder, "adapter_model.safetensors"), MergeLora),
        new("config.json of a model", "config.json", 3, static _ => [.. ModelConfigurations()], BuildModel),
        new("config.json of diffusers", "config.json", 1, static _ => [Utf8(TinyPipeline.UNet()), Utf8(TinyPipeline.UNet(large: true)), Utf8(TinyPipeline.Vae())], BuildModel),
        new("config.json beside weights", "config.json", 2, static folder => [PrepareModel(folder, "config.json")], static folder => ModelLoader.Load(folder).Dispose()),
        new("model weights", "model.safetensors", 2, static folder => [PrepareModel(folder, "model.safetensors")], static folder => ModelLoader.Load(folder).Dispose()),
        new("base of a merge", "config.json", 2, static folder => [PrepareModel(folder, "config.json")], static folder => BaseModel.Read(folder)),
        new("scheduler_config.json", "scheduler_config.json", 3, static _ => [.. Schedulers()], static folder =>
        {
            using DisposeScope scope = NewDisposeScope();
            _ = DiffusionScheduler.Create(ModelConfig.Read(Path.Combine(folder, "scheduler_config.json")), 4);
        }),
        new("model_index.json", "model_index.json", 1, static folder => [System.IO.File.ReadAllBytes(Path.Combine(TinyPipeline.Write(folder), "model_index.json"))], static folder => StableDiffusionLoader.Load(folder).Dispose()),
        new("tokenizer.json", "tokenizer.json", 6, static _ => [.. Tokenizers()], Tokenize),
        new("tokenizer_config.json", "tokenizer_config.json", 4, static folder => PrepareWith(folder, "tokenizer.json", Tokenizers().First(), TokenizerConfigs()), Tokenize),
        new("special_tokens_map.json", "special_tokens_map.json", 3, static folder => PrepareWith(folder, "tokenizer.json", Tokenizers().First(),
            ["""{"bos_token": "<s>", "pad_token": {"content": "</s>", "lstrip": false}, "additional_special_tokens": ["</s>"]}"""u8.ToArray()]), Tokenize),
        new("added_tokens.json", "added_tokens.json", 3, static folder => PrepareWith(folder, "vocab.txt", Vocabulary(), ["""{"[NEW]": 25, "[MORE]": 26}"""u8.ToArray()]), Tokenize),
        new("vocab.txt", "vocab.txt", 6, static _ => [Vocabulary()], Tokenize),
        new("vocab.json", "vocab.json", 4, static folder => PrepareBytePairs(folder, "vocab.json"), Tokenize),
        new("merges.txt", "merges.txt", 4, static folder => PrepareBytePairs(folder, "merges.txt"), Tokenize),
        new("tokenizer.model", "tokenizer.model", 4, static folder => PrepareWith(folder, "tokenizer_config.json", """{"tokenizer_class": "LlamaTokenizer"}"""u8.ToArray(), [Pieces()]), Tokenize),
        new("sentencepiece.bpe.model", "sentencepiece.bpe.model", 4, static folder => PrepareWith(folder, "tokenizer_config.json", """{"tokenizer_class": "XLMRobertaTokenizer"}"""u8.ToArray(), [Pieces(unigram: true)]), Tokenize),
        new("rows of JSON Lines", "rows.jsonl", 8, static _ =>
            ["{\"text\":\"a \\ud83d\\ude80\",\"label\":1}\n{\"text\":\"b\",\"label\":\"x\",\"more\":[1,{\"a\":\"b\"}]}\n"u8.ToArray(), "{\"prompt\":\"a: \",\"completion\":\"b\"}\n\n{\"messages\":[{\"role\":\"user\",\"content\":\"c\"}]}\n"u8.ToArray()], ReadRows),
        new("rows of JSON", "rows.json", 4, static _ => ["[{\"text\":\"a\",\"label\":1.5},\n{\"text\":\"b\",\"label\":\"x\"}]"u8.ToArray()], ReadRows),
        new("rows of CSV", "rows.csv", 8, static _ => ["text,label\n\"a, \"\"b\"\"\nc\",x\nd,y\n"u8.ToArray(), "\uFEFFtext;label\r\na;x\r\n"u8.ToArray()], ReadRows),
        new("rows of TSV", "rows.tsv", 3, static _ => ["text\tlabel\na\tx\n\"b\tc\"\ty\n"u8.ToArray()], ReadRows),
        new("rows of JSON Lines with gzip", "rows.jsonl.gz", 2, static _ => [Compressed("{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":\"x\"}\n"u8.ToArray())], ReadRows),
        new("rows of Parquet", "rows.parquet", 4, ParquetRows, ReadRows),
        new("PNG", "x.png", 5, static folder => [.. Pictures(folder, SKEncodedImageFormat.Png)], static folder => ReadPicture(Path.Combine(folder, "x.png"))),
        new("JPEG", "x.jpg", 5, static folder => [.. Pictures(folder, SKEncodedImageFormat.Jpeg)], static folder => ReadPicture(Path.Combine(folder, "x.jpg"))),
        new("WebP", "x.webp", 3, static folder => [.. Pictures(folder, SKEncodedImageFormat.Webp)], static folder => ReadPicture(Path.Combine(folder, "x.webp"))),
        new("captions", "00-red.txt", 3, static folder => [TinyCaption(folder, metadata: false), "ein größeres 🚀 Rack\n"u8.ToArray()], ReadPictures),
        new("metadata.jsonl", "metadata.jsonl", 4, static folder => [TinyCaption(folder, metadata: true)], ReadPictures),
        new("journal of a merge", ".lokr-merge.json", 1, PrepareMerge, RunMerge),
    ];

    private static byte[] Utf8(JsonNode json) => Encoding.UTF8.GetBytes(json.ToJsonString());

    private static byte[] Tensors(string folder, ScalarType type)
    {
        using DisposeScope scope = NewDisposeScope();
        string path = Path.Combine(folder, "valid");
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { ["a"] = ones(2, 3).to(type), ["b.weight"] = zeros(4).to(type), ["n"] = tensor(3L), ["empty"] = zeros(0, 2) }, new Dictionary<string, string> { ["format"] = "pt" });
        return Take(path);
    }

    private static void ReadTensors(string folder)
    {
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader reader = SafetensorsReader.Open(Path.Combine(folder, "x.safetensors"));
        foreach (string name in reader.Entries.Keys)
        {
            reader.Read(name);
        }
    }

    /// <summary>Weights as 8-bit floats and as bitsandbytes stores them, under the names of several programs.</summary>
    private static IEnumerable<byte[]> Quantized()
    {
        byte[] codes = [.. Enumerable.Range(0, 64).Select(static i => (byte)(i * 3 % 0x70))];
        byte[] one = BitConverter.GetBytes(0.5f);
        byte[] rows = [.. Enumerable.Range(1, 8).SelectMany(static i => BitConverter.GetBytes(i / 8f))];
        yield return Raw("{}", ("scaled_fp8", "F8_E4M3", "[0]", []), ("a.weight", "F8_E4M3", "[8,8]", codes), ("a.scale_weight", "F32", "[]", one), ("a.scale_input", "F32", "[]", one), ("b.weight", "F8_E5M2", "[8,8]", codes));
        yield return Raw("""{"_quantization_metadata":"{\"format_version\": \"1.0\", \"layers\": {\"a\": {\"format\": \"float8_e4m3fn\"}}}"}""",
            ("a.weight", "F8_E4M3", "[8,8]", codes), ("a.weight_scale", "F32", "[8,1]", rows), ("a.input_scale", "F32", "[]", one), ("b.weight", "F8_E4M3", "[8,8]", codes), ("b.weight_scale_inv", "F32", "[1,1]", one));
        yield return Raw("{}", ("a.weight", "F8_E4M3", "[8,8]", codes), ("a.weight_scale", "F32", "[]", one), ("a.comfy_quant", "U8", "[27]", "{\"format\": \"float8_e4m3fn\"}"u8.ToArray()));
        byte[] state = """{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8, 16], "nested_blocksize": 256, "nested_offset": 0.5}"""u8.ToArray();
        byte[] map = [.. Enumerable.Range(0, 16).SelectMany(static i => BitConverter.GetBytes((i - 8) / 8f))];
        byte[] nested = [.. Enumerable.Range(0, 256).SelectMany(static i => BitConverter.GetBytes(i / 256f))];
        yield return Raw("{}", ("a.weight", "U8", "[64,1]", codes), ("a.weight.absmax", "U8", "[2]", [3, 200]), ("a.weight.quant_map", "F32", "[16]", map), ("a.weight.nested_absmax", "F32", "[1]", one),
            ("a.weight.nested_quant_map", "F32", "[256]", nested), ("a.weight.quant_state.bitsandbytes__nf4", "U8", $"[{state.Length}]", state), ("b.weight", "I8", "[8,8]", codes), ("b.SCB", "F32", "[8]", rows), ("b.weight_format", "U8", "[]", [0]));
    }

    /// <summary>A safetensors file of any types.</summary>
    private static byte[] Raw(string metadata, params (string Name, string Type, string Shape, byte[] Bytes)[] tensors)
    {
        int offset = 0;
        List<string> items = [$"\"__metadata__\":{metadata}"];
        foreach ((string name, string type, string shape, byte[] bytes) in tensors)
        {
            items.Add($$"""
                "{{name}}":{"dtype":"{{type}}","shape":{{shape}},"data_offsets":[{{offset}},{{offset + bytes.Length}}]}
                """);
            offset += bytes.Length;
        }

        byte[] header = Encoding.UTF8.GetBytes($"{{{string.Join(',', items)}}}");
        return [.. BitConverter.GetBytes((long)header.Length), .. header, .. tensors.SelectMany(static tensor => tensor.Bytes)];
    }

    private static void ReadQuantized(string folder)
    {
        using DisposeScope scope = NewDisposeScope();
        using CheckpointReader reader = CheckpointReader.Open(folder);
        if (reader.FindQuantized() is (ITensorSource values, _))
        {
            foreach (string name in values.Entries.Keys)
            {
                values.Read(name);
            }
        }
    }

    private static void ReadGguf(string folder)
    {
        using DisposeScope scope = NewDisposeScope();
        using GgufReader reader = GgufReader.Open(Path.Combine(folder, "x.gguf"));
        foreach (GgufTensor tensor in reader.Tensors)
        {
            reader.Read(tensor.Name);
        }

        _ = LoKrTensorInfo.List(reader.FilePath);
    }

    private static IReadOnlyList<byte[]> Index(string folder)
    {
        using DisposeScope scope = NewDisposeScope();
        CheckpointWriter.Write(folder, Enumerable.Range(0, 4).ToDictionary(static i => $"layer.{i}.weight", static _ => ones(8, 8)), maxShardBytes: 300);
        return [Take(Path.Combine(folder, "model.safetensors.index.json"))];
    }

    private static LoKrModel Adapted()
    {
        LoKrModel model = new(nn.Sequential(("fc", nn.Linear(8, 16)), ("conv", nn.Conv2d(4, 8, 3))));
        model.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames(["fc", "conv"]), R = 2, InitWeights = InitWeights.Random });
        return model;
    }

    private static byte[] Adapter(string folder, AdapterLayout layout)
    {
        using LoKrModel model = Adapted();
        string path = Path.Combine(folder, "valid.safetensors");
        AdapterExporter.Export(model, "default", path, layout, new AdapterWriteOptions
        {
            Component = layout is AdapterLayout.Kohya or AdapterLayout.Diffusers ? AdapterComponent.Unet : layout is AdapterLayout.OneTrainer ? AdapterComponent.Transformer : null,
        });
        return Take(path);
    }

    private static byte[] PreparePeft(string folder, string taken)
    {
        using LoKrModel model = Adapted();
        AdapterExporter.Export(model, "default", folder, AdapterLayout.Peft);
        return System.IO.File.ReadAllBytes(Path.Combine(folder, taken));
    }

    private static IReadOnlyList<byte[]> PreparePeft(string folder) => [PreparePeft(folder, "adapter_model.safetensors")];

    private static void ReadAdapter(string path)
    {
        _ = AdapterValidator.Check(path, new AdapterCheckOptions { Values = true });
        _ = AdapterInspector.Inspect(path);
        using LoKrModel model = new(nn.Sequential(("fc", nn.Linear(8, 16)), ("conv", nn.Conv2d(4, 8, 3))));
        using AdapterFile file = AdapterFile.Open(path);
        AdapterImporter.Import(model, file);
    }

    /// <summary>A model in the names of Flux.1's authors, and adapters with the names of several programs: fused, divided, wrapped, with underscores.</summary>
    private static IReadOnlyList<byte[]> PrepareNames(string folder, string taken)
    {
        using DisposeScope scope = NewDisposeScope();
        string source = Path.Combine(folder, "base.safetensors");
        SafetensorsWriter.Write(source, new Dictionary<string, Tensor>
        {
            ["img_in.weight"] = ones(8, 4),
            ["double_blocks.0.img_attn.qkv.weight"] = ones(24, 8),
            ["double_blocks.0.img_attn.qkv.bias"] = ones(24),
            ["double_blocks.0.img_attn.norm.query_norm.scale"] = ones(4),
            ["single_blocks.0.linear1.weight"] = ones(56, 8),
            ["single_blocks.0.linear1.bias"] = ones(56),
            ["final_layer.adaLN_modulation.1.weight"] = ones(16, 8),
        });
        if (taken == "base.safetensors")
        {
            byte[] model = Take(source);
            System.IO.File.WriteAllBytes(source, model);
            WriteNames(Path.Combine(folder, "x.safetensors"), "transformer.transformer_blocks.0.attn.to_k", "transformer.norm_out.linear");
            return [model];
        }

        (string Module, string Second)[] spellings =
        [
            ("lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_final_layer_adaLN_modulation_1"),
            ("diffusion_model._orig_mod.double_blocks.0.img_attn.qkv", "diffusion_model._orig_mod.final_layer.adaLN_modulation.1"),
            ("transformer.single_transformer_blocks.0.attn.to_q", "transformer.norm_out.linear"),
            ("lycoris_transformer_blocks_0_attn_to_k", "lycoris_norm_out_linear"),
        ];
        return [.. spellings.Select(spelling => WriteNames(Path.Combine(folder, "valid.safetensors"), spelling.Module, spelling.Second)), WriteLora(Path.Combine(folder, "valid.safetensors"))];
    }

    private static byte[] WriteLora(string path)
    {
        Dictionary<string, Tensor> tensors = [];
        foreach (string module in (string[])["lora_transformer_transformer_blocks_0_attn_to_q", "lora_transformer_transformer_blocks_0_attn_to_v", "lora_transformer_norm_out_linear"])
        {
            tensors.Add($"{module}.lora_up.weight", ones(module.EndsWith("linear", StringComparison.Ordinal) ? 16 : 8, 2));
            tensors.Add($"{module}.lora_down.weight", ones(2, 8));
            tensors.Add($"{module}.alpha", tensor(1f));
        }

        SafetensorsWriter.Write(path, tensors);
        return System.IO.File.ReadAllBytes(path);
    }

    private static byte[] WriteNames(string path, string module, string second)
    {
        long rows = module.Contains("qkv", StringComparison.Ordinal) ? 6 : 2;
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor>
        {
            [$"{module}.lokr_w1"] = ones(rows, 2), [$"{module}.lokr_w2"] = ones(4, 4), [$"{module}.alpha"] = tensor(1f), [$"{module}.diff_b"] = ones(rows * 4),
            [$"{second}.lora_up.weight"] = ones(16, 2), [$"{second}.lora_down.weight"] = ones(2, 8),
        });
        return System.IO.File.ReadAllBytes(path);
    }

    private static void MergeNames(string folder)
    {
        using DisposeScope scope = NewDisposeScope();
        string adapter = Path.Combine(folder, "x.safetensors");
        _ = AdapterValidator.Check(adapter, new AdapterCheckOptions { Program = AdapterProgram.ComfyUI });
        foreach (ModuleDivision division in Enum.GetValues<ModuleDivision>())
        {
            try
            {
                AdapterConverter.Check(adapter, Path.Combine(folder, "divided.safetensors"), AdapterLayout.Comfy, new() { Division = division, Inexact = InexactRows.Full });
            }
            catch (LoKrException)
            {
                // The merge may refuse it for another reason.
            }
        }

        using CheckpointMerge merge = CheckpointMerge.Open(new() { Base = CheckpointBase.Read(Path.Combine(folder, "base.safetensors")), Adapters = [new AdapterMergeSource(adapter)], Destination = Path.Combine(folder, "merged.safetensors") });
    }

    private static IReadOnlyList<byte[]> PrepareLora(string folder, string taken)
    {
        using DisposeScope scope = NewDisposeScope();
        Directory.CreateDirectory(Path.Combine(folder, "base"));
        SafetensorsWriter.Write(Path.Combine(folder, "base", "model.safetensors"), new Dictionary<string, Tensor> { ["layers.0.q.weight"] = randn(8, 4), ["layers.0.conv.weight"] = randn(8, 4, 3, 3), ["embed_tokens.weight"] = randn(10, 4), ["score.weight"] = randn(2, 4) });
        System.IO.File.WriteAllText(Path.Combine(folder, "base", "config.json"), """{"model_type": "llama"}""");
        SafetensorsWriter.Write(Path.Combine(folder, "adapter_model.safetensors"), new Dictionary<string, Tensor>
        {
            ["base_model.model.layers.0.q.lora_A.weight"] = randn(2, 4), ["base_model.model.layers.0.q.lora_B.weight"] = randn(8, 2), ["base_model.model.layers.0.q.lora_magnitude_vector"] = randn(8),
            ["base_model.model.layers.0.conv.lora_A.weight"] = randn(2, 4, 3, 3), ["base_model.model.layers.0.conv.lora_B.weight"] = randn(8, 2, 1, 1),
            ["base_model.model.embed_tokens.lora_embedding_A"] = randn(2, 10), ["base_model.model.embed_tokens.lora_embedding_B"] = randn(4, 2), ["base_model.model.score.weight"] = randn(2, 4),
        });
        byte[] config = """{"peft_type":"LORA","r":2,"lora_alpha":4,"use_rslora":true,"use_dora":true,"bias":"none","target_modules":["q","conv","embed_tokens"],"rank_pattern":{"a.*":2},"alpha_pattern":{"q":3},"modules_to_save":["score"],"init_lora_weights":true}"""u8.ToArray();
        System.IO.File.WriteAllBytes(Path.Combine(folder, "adapter_config.json"), config);
        return [System.IO.File.ReadAllBytes(Path.Combine(folder, taken))];
    }

    private static void MergeLora(string folder)
    {
        using DisposeScope scope = NewDisposeScope();
        _ = AdapterValidator.Check(folder, new AdapterCheckOptions { Program = AdapterProgram.ComfyUI });
        using (CheckpointMerge merge = CheckpointMerge.Open(new() { Base = CheckpointBase.Read(Path.Combine(folder, "base")), Adapters = [new AdapterMergeSource(folder)], Destination = folder + "-merged" }))
        {
            _ = AdapterInspector.Inspect(folder);
        }
    }

    private static IEnumerable<byte[]> Configurations() =>
    [
        """{"peft_type":"LOKR","r":4,"alpha":8,"target_modules":["q","k"],"rank_pattern":{"a.*":2},"alpha_pattern":{},"auto_mapping":null,"init_weights":true}"""u8.ToArray(),
        """{"peft_type":"LOKR","r":4,"target_modules":".*\\.(q|v)$","exclude_modules":["fc"],"task_type":"CAUSAL_LM","modules_to_save":["score"],"init_weights":"lycoris"}"""u8.ToArray(),
    ];

    private static void ReadAdapterConfig(string folder)
    {
        LoKrConfig config = LoKrConfigJson.Read(Path.Combine(folder, "adapter_config.json"), out _);
        LoKrConfigValidator.Validate(config);
        using LoKrModel model = new(nn.Sequential(("fc", nn.Linear(8, 16)), ("conv", nn.Conv2d(4, 8, 3)), ("layers", nn.Sequential(("q", nn.Linear(8, 16)), ("score", nn.Linear(16, 8))))));
        model.AddAdapter(config);
    }

    private static IEnumerable<byte[]> ModelConfigurations() => ((JsonObject[])
    [
        TinyModel.BertConfig("x", "y"), TinyModel.VitConfig(), TinyModel.ClipTextConfig(), TinyModel.Gpt2Config(),
        new JsonObject
        {
            ["model_type"] = "llama", ["architectures"] = new JsonArray("LlamaForCausalLM"), ["vocab_size"] = 40, ["hidden_size"] = 16, ["intermediate_size"] = 32, ["num_hidden_layers"] = 2,
            ["num_attention_heads"] = 2, ["num_key_value_heads"] = 1, ["max_position_embeddings"] = 64, ["rms_norm_eps"] = 1e-6, ["tie_word_embeddings"] = true, ["dtype"] = "float32",
            ["rope_scaling"] = new JsonObject { ["rope_type"] = "linear", ["factor"] = 2.0 },
        },
    ]).Select(Utf8);

    private static void BuildModel(string folder)
    {
        using nn.Module module = ModelLoader.Build(ModelConfig.Load(folder));
    }

    private static byte[] PrepareModel(string folder, string taken)
    {
        using DisposeScope scope = NewDisposeScope();
        TinyModel.Write(folder, TinyModel.BertConfig("x", "y"));
        return System.IO.File.ReadAllBytes(Path.Combine(folder, taken));
    }

    private static IEnumerable<byte[]> Schedulers() =>
    [
        """{"_class_name":"DDIMScheduler","beta_start":0.00085,"beta_end":0.012,"beta_schedule":"scaled_linear","num_train_timesteps":1000,"clip_sample":false,"set_alpha_to_one":false,"steps_offset":1,"prediction_type":"epsilon"}"""u8.ToArray(),
        """{"_class_name":"EulerDiscreteScheduler","beta_start":0.00085,"beta_end":0.012,"beta_schedule":"linear","num_train_timesteps":1000,"timestep_spacing":"leading","interpolation_type":"linear"}"""u8.ToArray(),
    ];

    private static IEnumerable<byte[]> Tokenizers()
    {
        foreach (string added in (string[])["""{"id":256,"content":"<s>","special":true}""", """{"id":257,"content":"</s>","special":false,"lstrip":true,"normalized":true}"""])
        {
            JsonObject json = ByteLevel();
            json["added_tokens"] = new JsonArray(JsonNode.Parse(added));
            yield return Utf8(json);
        }

        yield return Encoding.UTF8.GetBytes("""
            {"version":"1.0","added_tokens":[{"id":1,"content":"[UNK]","special":true}],
             "normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lowercase"},{"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "}]},
             "pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{L}+|\\d{1,3}"},"behavior":"Isolated","invert":false},{"type":"BertPreTokenizer"}]},
             "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[UNK]","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"[UNK]":{"id":"[UNK]","ids":[1],"tokens":["[UNK]"]}}},
             "decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
             "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"[PAD]":0,"[UNK]":1,"a":2,"##b":3,"text":4}}}
            """);
        yield return Encoding.UTF8.GetBytes($$$"""
            {"version":"1.0","added_tokens":[{"id":0,"content":"[UNK]","special":true}],
             "normalizer":{"type":"Sequence","normalizers":[{"type":"Precompiled","precompiled_charsmap":"{{{Convert.ToBase64String(CharacterMap())}}}"},{"type":"Strip","strip_left":true,"strip_right":true}]},
             "pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
             "post_processor":{"type":"BertProcessing","sep":["[UNK]",0],"cls":["[UNK]",0]},
             "decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
             "model":{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["[UNK]",0],["▁a",-1.5],["▁",-2],["b",-3],["text",-4.25]]}}
            """);
    }

    // The double array of one key: A becomes a.
    private static byte[] CharacterMap()
    {
        uint[] units = new uint[256];
        units[0] = 1 << 10;
        units[1 ^ 'A'] = (1 << 10) | 0x100 | 'A';
        units[1 ^ 1 ^ 'A'] = 0x80000000;
        return [.. BitConverter.GetBytes(4 * units.Length), .. units.SelectMany(BitConverter.GetBytes), (byte)'a', 0];
    }

    private static JsonObject ByteLevel()
    {
        using TempFolder folder = new();
        TinyModel.WriteLlama(folder.Path);
        return JsonNode.Parse(System.IO.File.ReadAllText(folder["tokenizer.json"]))!.AsObject();
    }

    private static IEnumerable<byte[]> TokenizerConfigs() =>
    [
        """{"tokenizer_class":"GPT2Tokenizer","model_max_length":512,"pad_token":{"content":"a","lstrip":false},"additional_special_tokens":["b"],"added_tokens_decoder":{"256":{"content":"<s>","special":true}}}"""u8.ToArray(),
        """{"tokenizer_class":"LlamaTokenizerFast","add_bos_token":true,"add_eos_token":false,"bos_token":"<s>","eos_token":"</s>","clean_up_tokenization_spaces":false,"legacy":true}"""u8.ToArray(),
    ];

    private static byte[] Vocabulary() => Encoding.UTF8.GetBytes(string.Join('\n', (string[])["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. TinyData.Words]));

    // The tokenizer of CLIP, with some merges.
    private static IReadOnlyList<byte[]> PrepareBytePairs(string folder, string taken)
    {
        using TempFolder pipeline = new();
        TinyPipeline.Write(pipeline.Path);
        foreach (string file in Directory.EnumerateFiles(pipeline["tokenizer"]))
        {
            System.IO.File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
        }

        JsonObject vocabulary = JsonNode.Parse(System.IO.File.ReadAllText(Path.Combine(folder, "vocab.json")))!.AsObject();
        foreach (string token in (string[])["ab", "abc</w>", "de"])
        {
            vocabulary[token] = vocabulary.Count;
        }

        System.IO.File.WriteAllBytes(Path.Combine(folder, "vocab.json"), Utf8(vocabulary));
        System.IO.File.WriteAllText(Path.Combine(folder, "merges.txt"), "#version: 0.2\na b\nab c</w>\nd e\n");
        return [System.IO.File.ReadAllBytes(Path.Combine(folder, taken))];
    }

    private static byte[] Pieces(bool unigram = false)
    {
        using MemoryStream stream = new();
        using CodedOutputStream output = new(stream, leaveOpen: true);
        (string Text, float Score, int Kind)[] pieces = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), .. Enumerable.Range(0, 256).Select(static value => ($"<0x{value:X2}>", 0f, 6)), ("▁", -1, 1), ("a", -2, 1), ("▁a", -3, 1), ("b", -4, 1)];
        foreach ((string text, float score, int kind) in pieces)
        {
            Message(1, inner =>
            {
                inner.WriteTag(1, WireFormat.WireType.LengthDelimited);
                inner.WriteString(text);
                inner.WriteTag(2, WireFormat.WireType.Fixed32);
                inner.WriteFloat(score);
                inner.WriteTag(3, WireFormat.WireType.Varint);
                inner.WriteInt32(kind);
            });
        }

        // The trainer's kind of model is Unigram or byte pairs, with bytes for what is not known.
        Message(2, inner =>
        {
            foreach ((int field, int value) in ((int, int)[])[(3, unigram ? 1 : 2), (35, 1)])
            {
                inner.WriteTag(field, WireFormat.WireType.Varint);
                inner.WriteInt32(value);
            }
        });
        // Neither a space before the text nor white space removed.
        Message(3, static inner =>
        {
            foreach (int field in (int[])[3, 4])
            {
                inner.WriteTag(field, WireFormat.WireType.Varint);
                inner.WriteInt32(0);
            }
        });
        output.Flush();
        return stream.ToArray();

        void Message(int field, Action<CodedOutputStream> write)
        {
            using MemoryStream content = new();
            using (CodedOutputStream inner = new(content, leaveOpen: true))
            {
                write(inner);
            }

            output.WriteTag(field, WireFormat.WireType.LengthDelimited);
            output.WriteBytes(ByteString.CopyFrom(content.ToArray()));
        }
    }

    private static void Tokenize(string folder)
    {
        ITextTokenizer tokenizer = TokenizerLoader.Load(folder);
        tokenizer.Decode(tokenizer.Encode("A text, 123  with <s> and \ud83d\ude80 in it\n[MASK] ab abc"));
        tokenizer.Tokenize("A text, 123  with <s> and \ud83d\ude80 in it\n[MASK] ab abc");
    }

    private static IReadOnlyList<byte[]> PrepareWith(string folder, string beside, byte[] content, IEnumerable<byte[]> valid)
    {
        System.IO.File.WriteAllBytes(Path.Combine(folder, beside), content);
        return [.. valid];
    }

    private static byte[] Compressed(byte[] content)
    {
        using MemoryStream compressed = new();
        using (GZipStream stream = new(compressed, CompressionLevel.Fastest))
        {
            stream.Write(content);
        }

        return compressed.ToArray();
    }

    private static IReadOnlyList<byte[]> ParquetRows(string folder)
    {
        string path = Path.Combine(folder, "valid.parquet");
        ParquetSerializer.SerializeAsync<ParquetRow>([new() { Text = "a", Label = 1, Words = ["b", "c"] }, new() { Text = "d", Label = 2, Words = [] }], path).GetAwaiter().GetResult();
        return [Take(path)];
    }

    private sealed class ParquetRow
    {
        public string? Text { get; set; }

        public long? Label { get; set; }

        public List<string>? Words { get; set; }
    }

    private static void ReadRows(string folder)
    {
        foreach (DataRow row in DataReader.ReadFile(Directory.GetFiles(folder, "rows.*").Single()))
        {
            _ = RowFields.Has(row, "text") ? RowFields.Text(row, "text", "text") : null;
            _ = RowFields.Has(row, "prompt") ? RowFields.AnyText(row, "prompt", "prompt") : null;
            _ = RowFields.Has(row, "label") ? RowFields.Label(row, "label", "label") : null;
        }
    }

    private static IEnumerable<byte[]> Pictures(string folder, SKEncodedImageFormat format)
    {
        // Written by the library first, which finds SkiaSharp's native library.
        using DisposeScope scope = NewDisposeScope();
        ImageFile.WritePng(Path.Combine(folder, "valid"), full([16, 24, 3], 90, ScalarType.Byte));
        using SKBitmap bitmap = SKBitmap.Decode(Take(Path.Combine(folder, "valid")));
        using SKData data = bitmap.Encode(format, 80);
        byte[] plain = data.ToArray();
        yield return plain;
        byte[] orientation = [0x4d, 0x4d, 0, 0x2a, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0];
        if (format == SKEncodedImageFormat.Jpeg)
        {
            yield return [.. plain[..2], 0xff, 0xe1, 0, (byte)(orientation.Length + 8), .. "Exif\0\0"u8, .. orientation, .. plain[2..]];
        }
    }

    private static void ReadPicture(string path)
    {
        using DisposeScope scope = NewDisposeScope();
        _ = ImageFile.ReadSize(path);
        _ = ImageFile.Read(path);
    }

    private static byte[] TinyCaption(string folder, bool metadata)
    {
        TinyImages.Write(folder, 2);
        return metadata ? "{\"file_name\": \"00-red.png\", \"text\": \"a\"}\n{\"file_name\": \"01-green.png\", \"text\": \"b\"}\n"u8.ToArray() : "a red rack\n"u8.ToArray();
    }

    private static void ReadPictures(string folder) => _ = ImageFolder.Read(folder, new ImageDataOptions());

    // The journal of a merge that was interrupted after its first file.
    private static IReadOnlyList<byte[]> PrepareMerge(string folder)
    {
        Writer.Find("disk merge").Prepare(Path.Combine(folder, "inputs"));
        using CheckpointMerge merge = OpenMerge(folder);
        using CancellationTokenSource stop = new();
        try
        {
            merge.Run(_ => stop.Cancel(), stop.Token);
        }
        catch (OperationCanceledException)
        {
        }

        return [System.IO.File.ReadAllBytes(Path.Combine(folder, ".merged.lokr-merge", ".lokr-merge.json"))];
    }

    private static void RunMerge(string folder)
    {
        string unfinished = Path.Combine(folder, ".merged.lokr-merge");
        Directory.CreateDirectory(unfinished);
        System.IO.File.Copy(Path.Combine(folder, ".lokr-merge.json"), Path.Combine(unfinished, ".lokr-merge.json"), overwrite: true);
        using CheckpointMerge merge = OpenMerge(folder);
        merge.Run();
    }

    private static CheckpointMerge OpenMerge(string folder) => CheckpointMerge.Open(new CheckpointMergeOptions
    {
        Base = BaseModel.Read(Path.Combine(folder, "inputs", "base")),
        Destination = Path.Combine(folder, "merged"),
        Adapters = [new AdapterMergeSource(Path.Combine(folder, "inputs", "adapter0"))],
        Force = true,
    });

    private static byte[] Take(string path)
    {
        byte[] bytes = System.IO.File.ReadAllBytes(path);
        System.IO.File.Delete(path);
        return bytes;
    }
}
