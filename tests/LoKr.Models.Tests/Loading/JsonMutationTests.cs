using System.Text;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Models.Tests.Tokenization;
using LoKr.Models.Tokenization;
using LoKr.Testing;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Loading;

/// <summary>Every reader of JSON meets seeded mutations of a valid file: it reads them or throws a <see cref="LoKrException"/>.</summary>
public sealed class JsonMutationTests
{
    private const int Mutations = 400;

    // What goes wrong in real files: cut emoji, other types, numbers without end, repeated keys, nesting, control characters.
    private static readonly string[] s_parts =
    [
        "\"\\ud83d\"", "\"\\udc00x\"", "\\ud800", "null", "[]", "{}", "-1", "1e999", "99999999999999999999", "2147483647", "true", "\"\"", "\"\\u0000\"",
        "[[[[", "\"a\":1,\"a\":1", "\u00e9", "{\"\\ud800\":1}", ",", ":", "\n", "\"", "0.5", "-0", "NaN",
    ];

    public static TheoryData<string> Readers => new("rows.jsonl", "rows.json", "config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "model_index.json", "header.safetensors");

    [Theory]
    [MemberData(nameof(Readers))]
    public void A_mutated_file_is_read_or_refused_by_a_typed_error(string name)
    {
        using TempFolder folder = new();
        string path = folder[name];
        (string valid, Action read) = Case(name, folder);
        Write(name, path, Encoding.UTF8.GetBytes(valid));
        read();

        Random random = new(name.Length + 20_000);
        int refused = 0;
        for (int i = 0; i < Mutations; i++)
        {
            byte[] bytes = Mutate(Encoding.UTF8.GetBytes(valid), random);
            Write(name, path, bytes);
            try
            {
                read();
            }
            catch (LoKrException error)
            {
                refused++;
                Assert.NotEmpty(error.ErrorId);
            }
            catch (Exception exception)
            {
                Assert.Fail($"Mutation {i} of {name}: {exception.GetType().Name} {exception.Message} at {exception.StackTrace}\n{Encoding.UTF8.GetString(bytes)}");
            }
        }

        Assert.True(refused > Mutations / 10);
    }

    [Theory]
    [InlineData("rows.jsonl", "{\"text\":\"a\"}\n{\"text\":\"cut \\ud83d\"}\n", "rows.jsonl:2", "'text'")]
    [InlineData("rows.jsonl", "{\"text\":\"a\"}\n{\"messages\":[{\"content\":\"cut \\ud83d\"}]}\n", "rows.jsonl:2", "'messages.content'")]
    [InlineData("rows.json", "[{\"text\":\"a\"},\n{\"text\":\"cut \\ud83d\"}]", "rows.json", "line 2")]
    public void A_cut_emoji_in_a_row_is_an_error_with_file_line_and_key(string name, string text, string origin, string place)
    {
        using TempFolder folder = new TempFolder().Write(name, text);
        ErrorAssert.Throws(ErrorIds.DataLineInvalid, () => DataReader.ReadFile(folder[name]), origin, place);
    }

    private static (string Valid, Action Read) Case(string name, TempFolder folder)
    {
        string path = folder[name];
        switch (name)
        {
            case "rows.jsonl":
                return ("{\"text\":\"a \\ud83d\\ude80\",\"label\":1}\n{\"text\":\"b\",\"label\":\"x\",\"more\":[1,{\"a\":\"b\"}]}\n", ReadRows);
            case "rows.json":
                return ("[{\"text\":\"a\",\"label\":1.5},{\"text\":\"b\",\"label\":null}]", ReadRows);
            case "config.json":
                return (TinyModel.BertConfig("x", "y").ToJsonString(), () =>
                {
                    using nn.Module module = ModelLoader.Build(ModelConfig.Load(folder.Path));
                });
            case "adapter_config.json":
                return ("{\"peft_type\":\"LOKR\",\"r\":4,\"alpha\":8,\"target_modules\":[\"q\"],\"rank_pattern\":{\"a.*\":2},\"auto_mapping\":null,\"init_weights\":true}", () =>
                    LoKrConfigValidator.Validate(LoKrConfigJson.Read(path, out _)));
            case "tokenizer.json":
                return (TinyTokenizers.ByteLevelJson().ToJsonString(), () => TokenizerLoader.Load(folder.Path).Encode("a \ud83d\ude80 text"));
            case "tokenizer_config.json":
                folder.Write("tokenizer.json", TinyTokenizers.ByteLevelJson().ToJsonString());
                return ("{\"tokenizer_class\":\"GPT2Tokenizer\",\"model_max_length\":512,\"pad_token\":{\"content\":\"a\",\"lstrip\":false},\"additional_special_tokens\":[\"b\"],\"added_tokens_decoder\":{}}", () =>
                    TokenizerLoader.Load(folder.Path));
            case "model_index.json":
                foreach (string component in new[] { "unet", "vae", "text_encoder", "tokenizer", "scheduler" })
                {
                    Directory.CreateDirectory(folder[component]);
                }

                return (new JsonObject
                {
                    ["_class_name"] = "StableDiffusionPipeline",
                    ["unet"] = new JsonArray("diffusers", "UNet2DConditionModel"),
                    ["vae"] = new JsonArray("diffusers", "AutoencoderKL"),
                    ["text_encoder"] = new JsonArray("transformers", "CLIPTextModel"),
                    ["tokenizer"] = new JsonArray("transformers", "CLIPTokenizer"),
                    ["scheduler"] = new JsonArray("diffusers", "DDIMScheduler"),
                }.ToJsonString(), () => PipelineIndex.Read(folder.Path));
            default:
                return ("{\"__metadata__\":{\"a\":\"b\"},\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", () => SafetensorsReader.Open(path).Dispose());
        }

        void ReadRows()
        {
            foreach (DataRow row in DataReader.ReadFile(path))
            {
                _ = RowFields.Has(row, "label") ? RowFields.Text(row, "text", "text") : null;
            }
        }
    }

    private static byte[] Mutate(byte[] valid, Random random)
    {
        List<byte> bytes = [.. valid];
        for (int change = random.Next(1, 4); change > 0 && bytes.Count > 0; change--)
        {
            // A whole value is hit as often as a byte anywhere.
            int at = random.Next(bytes.Count);
            int value = bytes.FindIndex(at, static item => item is (byte)':' or (byte)',' or (byte)'[') + 1;
            byte[] part = Encoding.UTF8.GetBytes(s_parts[random.Next(s_parts.Length)]);
            switch (random.Next(5))
            {
                case 0:
                    bytes.InsertRange(at, part);
                    break;
                case 1:
                    bytes[at] = (byte)random.Next(256);
                    break;
                case 2:
                    bytes.RemoveRange(at, Math.Min(random.Next(1, 8), bytes.Count - at));
                    break;
                default:
                    int end = bytes.FindIndex(value, static item => item is (byte)',' or (byte)'}' or (byte)']');
                    if (end > value)
                    {
                        bytes.RemoveRange(value, end - value);
                        bytes.InsertRange(value, part);
                    }

                    break;
            }
        }

        return [.. bytes];
    }

    private static void Write(string name, string path, byte[] json)
    {
        byte[] bytes = name.EndsWith(".safetensors", StringComparison.Ordinal) ? [.. BitConverter.GetBytes((long)json.Length), .. json, .. new byte[8]] : json;
        File.WriteAllBytes(path, bytes);
    }
}
