using LoKr.Core.IO;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
// Makes examples/models/tiny-encoder: dotnet run -c Release --project tools/TinyEncoder -- examples/models/tiny-encoder examples/data/tickets.train.jsonl
using System.Text.Json;
using System.Text.Json.Nodes;
using TinyEncoder;
using static TorchSharp.torch;

if (args.Length is < 2 or > 3)
{
    Console.Error.WriteLine("usage: TinyEncoder <folder to write> <tickets.train.jsonl, for the vocabulary> [steps]");
    return 2;
}

string folder = Path.GetFullPath(args[0]);
int steps = args.Length > 2 ? int.Parse(args[2], System.Globalization.CultureInfo.InvariantCulture) : 8000;
TorchRuntime.EnsureLoaded();
manual_seed(1);
Random random = new(1);

PhraseBook phrases = PhraseBook.Load(Path.Combine(AppContext.BaseDirectory, "phrases.txt"));
IEnumerable<string> tickets = File.ReadLines(args[1]).Select(line => JsonNode.Parse(line)!["text"]!.GetValue<string>());
WordPieceVocabulary vocabulary = WordPieceVocabulary.Learn([.. Enumerable.Range(0, 20_000).Select(_ => phrases.Next(random).Text), .. tickets], new EncoderSize().Vocabulary);
EncoderSize size = new(Vocabulary: vocabulary.Pieces.Count);
using Encoder encoder = new(size);
Console.WriteLine($"{phrases.TopicCount} topics, {size.Vocabulary} pieces, {encoder.parameters().Sum(parameter => parameter.numel()):N0} parameters");
Pretraining.Run(encoder, phrases, vocabulary, size, steps, random, Console.WriteLine);

Directory.CreateDirectory(folder);
AtomicFile.WriteText(Path.Combine(folder, "vocab.txt"), string.Join('\n', vocabulary.Pieces) + "\n");
JsonSerializerOptions json = new() { WriteIndented = true };
AtomicFile.WriteText(Path.Combine(folder, "tokenizer_config.json"), new JsonObject
{
    ["cls_token"] = "[CLS]",
    ["do_basic_tokenize"] = true,
    ["do_lower_case"] = true,
    ["mask_token"] = "[MASK]",
    ["model_max_length"] = size.Positions,
    ["pad_token"] = "[PAD]",
    ["sep_token"] = "[SEP]",
    ["strip_accents"] = null,
    ["tokenize_chinese_chars"] = true,
    ["tokenizer_class"] = "BertTokenizer",
    ["unk_token"] = "[UNK]",
}.ToJsonString(json) + "\n");
AtomicFile.WriteText(Path.Combine(folder, "config.json"), new JsonObject
{
    ["architectures"] = new JsonArray("BertModel"),
    ["attention_probs_dropout_prob"] = 0.1,
    ["hidden_act"] = "gelu",
    ["hidden_dropout_prob"] = 0.1,
    ["hidden_size"] = size.Hidden,
    ["initializer_range"] = 0.02,
    ["intermediate_size"] = size.Intermediate,
    ["layer_norm_eps"] = 1e-12,
    ["max_position_embeddings"] = size.Positions,
    ["model_type"] = "bert",
    ["num_attention_heads"] = size.Heads,
    ["num_hidden_layers"] = size.Layers,
    ["pad_token_id"] = vocabulary["[PAD]"],
    ["torch_dtype"] = "float16",
    ["type_vocab_size"] = 2,
    ["vocab_size"] = size.Vocabulary,
}.ToJsonString(json) + "\n");
SafetensorsWriter.Write(
    Path.Combine(folder, "model.safetensors"),
    encoder.State.ToDictionary(item => item.Key, item => item.Value.detach().to(ScalarType.Float16)),
    new Dictionary<string, string> { ["format"] = "pt" });
return 0;
