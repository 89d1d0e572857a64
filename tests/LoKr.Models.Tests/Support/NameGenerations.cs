using System.Text.RegularExpressions;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Support;

/// <summary>Both generations of names of ViT and CLIP, written down for the tests by themselves: renamed copies of model and adapter folders.</summary>
internal static class NameGenerations
{
    private static readonly (string Old, string New)[] s_vit =
    [
        ("encoder.layer.", "layers."), ("attention.attention.query", "attention.q_proj"), ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"), ("attention.output.dense", "attention.o_proj"), ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ];

    /// <summary>A name in the older, published generation.</summary>
    public static string ToPublished(string modelType, string name) => modelType == "vit"
        ? s_vit.Aggregate(name, (text, pair) => Regex.Replace(text, $@"(?<=\.|^){Regex.Escape(pair.New)}", pair.Old))
        : Regex.Replace(name, @"^(?=embeddings\.|encoder\.|final_layer_norm\.)", "text_model.");

    /// <summary>A name in the generation of transformers 5.</summary>
    public static string ToCurrent(string modelType, string name) => modelType == "vit"
        ? s_vit.Aggregate(name, (text, pair) => text.Replace(pair.Old, pair.New, StringComparison.Ordinal))
        : Regex.Replace(name, @"^text_model\.", "");

    /// <summary>A copy of a folder whose tensors have the names of one generation, with the rest of the files as they are.</summary>
    public static void Copy(string source, string destination, string modelType, bool published, string prefix = "")
    {
        using DisposeScope scope = NewDisposeScope();
        Directory.CreateDirectory(destination);
        foreach (string file in Directory.GetFiles(source))
        {
            string copy = Path.Combine(destination, Path.GetFileName(file));
            if (Path.GetFileName(file) is not ("model.safetensors" or "adapter_model.safetensors"))
            {
                File.Copy(file, copy);
                continue;
            }

            using SafetensorsReader reader = SafetensorsReader.Open(file);
            SafetensorsWriter.Write(copy, reader.Entries.Keys.ToDictionary(Rename, key => reader.Read(key), StringComparer.Ordinal), reader.Metadata);
        }

        string Rename(string key)
        {
            string name = ToCurrent(modelType, key[prefix.Length..]);
            return prefix + (published ? ToPublished(modelType, name) : name);
        }
    }
}
